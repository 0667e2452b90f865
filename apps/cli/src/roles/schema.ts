import { setTimeout as sleep } from 'node:timers/promises'
import { assertQueueSchema, QueueSchemaError } from '@askonce/queue'
import {
  assertSchema,
  GrantsError,
  isUnavailable,
  PoolerError,
  readPoolerFacts,
  SchemaVersionError,
} from '@askonce/store'
import { errorReason, type Log } from '@askonce/telemetry'
import { exitCodes, refusal } from '../errors.ts'
import { migrateBoth, requireGrants } from './grants.ts'
import { postgresRefusal } from './postgres-refusal.ts'

const retryMs = 500

/** What waiting does not mend, in our own words. */
const ownRefusals = [SchemaVersionError, GrantsError, QueueSchemaError, PoolerError]

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
  await whenAvailable(log, signal, async () => {
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
  return whenAvailable(log, signal, async () => {
    const applied = await migrateBoth(url, queueInPostgres)
    if (applied.length > 0) log.event('schema.migrated', { count: applied.length })
    return applied
  })
}

/**
 * Refuses a pooler behind which an acknowledged commit could be lost, or that leads elsewhere; says which settings its role lacks. Looked at
 * once per start: `askonce doctor` looks again.
 */
export async function requirePooler(poolerUrl: string, url: string, log: Log, signal: AbortSignal): Promise<void> {
  const { missing, remedy } = await whenAvailable(log, signal, () => readPoolerFacts(poolerUrl, url))
  if (missing.length > 0) log.event('pooler.settings_missing', { count: missing.length, reason: remedy })
}

/** A wrong password or a missing database does not mend itself; a server that is away does. */
async function whenAvailable<T>(log: Log, signal: AbortSignal, run: () => Promise<T>): Promise<T> {
  let waiting = false
  for (;;) {
    try {
      const result = await run()
      if (waiting) log.event('store.recovered')
      return result
    } catch (error) {
      if (ownRefusals.some((refused) => error instanceof refused)) throw refusal((error as Error).message)
      const { message } = error as Error
      if (/unsupported startup parameter/.test(message)) {
        throw refusal(
          `a pooler answers at DATABASE_URL and refuses what our sessions need (${message}). Set DATABASE_DIRECT_URL to the server behind it.`,
        )
      }
      if (signal.aborted) throw refusal('stopped while waiting for Postgres', exitCodes.interrupted)
      if (!isUnavailable(error)) throw postgresRefusal(error as Error)
      if (!waiting) log.event('store.unavailable', { reason: errorReason(error) })
      waiting = true
      await sleep(retryMs, undefined, { signal }).catch(() => undefined)
    }
  }
}
