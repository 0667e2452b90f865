import { setTimeout as sleep } from 'node:timers/promises'
import { tlsAdvice } from '@askonce/address'
import { explainCode } from '@askonce/core'
import { assertQueueSchema, QueueSchemaError } from '@askonce/queue'
import {
  assertOwnSessions,
  assertSchema,
  findRefusal,
  GrantsError,
  isUnavailable,
  PoolerError,
  readPoolerFacts,
  ReadOnlySettingError,
  SchemaVersionError,
  SessionSettingsError,
} from '@askonce/store'
import { errorReason, innermostCode, type Log } from '@askonce/telemetry'
import { exitCodes, refusal } from '../errors.ts'
import { migrateBoth, requireGrants } from './grants.ts'
import { WaitNotice } from './wait-notice.ts'

const retryMs = 500

/** What waiting does not mend, in our own words. */
const ownRefusals = [SchemaVersionError, GrantsError, QueueSchemaError, PoolerError, SessionSettingsError]

/**
 * Waits for Postgres, then refuses a schema that is not this program's, and a role that may not work on it: roles never migrate. BullMQ's schema is only looked at
 * where BullMQ uses it.
 */
export async function requireSchema(
  url: string,
  queueInPostgres: boolean,
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  await whenAvailable(url, log, signal, async () => {
    await assertOwnSessions(url)
    await assertSchema(url)
    if (queueInPostgres) await assertQueueSchema(url)
    await requireGrants(url, queueInPostgres)
  })
}

/** Applies our migrations, and BullMQ's where BullMQ is on Postgres, once Postgres answers; returns the names of ours that were missing. */
export async function migrateAll(
  url: string,
  queueInPostgres: boolean,
  log: Log,
  signal: AbortSignal,
): Promise<string[]> {
  return whenAvailable(url, log, signal, async () => {
    await assertOwnSessions(url)
    const applied = await migrateBoth(url, queueInPostgres, signal)
    if (applied.length > 0) log.event('schema.migrated', { count: applied.length })
    return applied
  })
}

/**
 * Refuses a pooler behind which an acknowledged commit could be lost, or that leads elsewhere; says which settings its role lacks. Looked at
 * once per start: `askonce doctor` looks again.
 */
export async function requirePooler(poolerUrl: string, url: string, log: Log, signal: AbortSignal): Promise<void> {
  const { missing, remedy } = await whenAvailable(url, log, signal, () => readPoolerFacts(poolerUrl, url))
  if (missing.length > 0) log.event('pooler.settings_missing', { count: missing.length, reason: remedy })
}

/**
 * Waits for a server that is away, starting, full, out of connections, or a standby that may be promoted: each of them passes. A wrong password,
 * a missing database or grant, and sessions that somebody has made read-only stay: they are refused, and a supervisor may try again.
 */
async function whenAvailable<T>(url: string, log: Log, signal: AbortSignal, run: () => Promise<T>): Promise<T> {
  const notice = new WaitNotice(log)
  for (;;) {
    try {
      const result = await run()
      notice.over()
      return result
    } catch (error) {
      if (ownRefusals.some((refused) => error instanceof refused)) throw refusal((error as Error).message)
      const { message } = error as Error
      if (/unsupported startup parameter/.test(message)) {
        throw refusal(
          `a pooler answers at DATABASE_URL and refuses what our sessions need (${message}). Set DATABASE_DIRECT_URL to the server behind it.`,
        )
      }
      // Waiting renews no certificate, and brings no encryption.
      const advice = tlsAdvice(error, 'postgres')
      if (advice !== null) throw refusal(`Postgres cannot be used: ${advice}. (${message})`)
      if (signal.aborted) throw refusal('stopped before Postgres was ready for work', exitCodes.interrupted)
      const found = await findRefusal(url, error)
      if (found instanceof ReadOnlySettingError) throw refusal(`${found.message}. ${found.todo}`)
      if (!isUnavailable(error)) {
        throw refusal(`Postgres refuses: ${message}. ${found?.todo ?? 'Check DATABASE_URL and DATABASE_DIRECT_URL.'}`)
      }
      const todo =
        found?.todo ?? explainCode(innermostCode(error) ?? '')?.todo ?? 'Is it running, and is the way to it open?'
      notice.say(found?.message ?? errorReason(error), todo)
      await sleep(retryMs, undefined, { signal }).catch(() => undefined)
    }
  }
}
