import { Client } from './client.ts'
import { sessionOptions, sessionSettings } from './database.ts'

/** What sessions behind a pooler are like. */
export interface PoolerFacts {
  /** Settings that the role should have and has not: as `name = wanted`, with what was found. */
  missing: { setting: string; wanted: string; found: string }[]
  /** What to run so that they are there; empty when nothing is missing. */
  remedy: string
}

/** The pooler must not be used: it would break a promise. The message says why and what to do. */
export class PoolerError extends Error {}

/**
 * Looks through a pooler in transaction mode at the sessions behind it. They do not get our settings at their start, so the role must have
 * them: missing ones are returned. What an acknowledged commit is worth is no matter of taste: weaker than `on` throws.
 *
 * @param url of the server itself: the pooler must lead to the same database.
 * @throws PoolerError, or the driver's error when one of them is away.
 */
export async function readPoolerFacts(poolerUrl: string, url: string): Promise<PoolerFacts> {
  const [seen, direct] = await Promise.all([look(poolerUrl, true), look(url, false)])
  if (seen.databaseId !== direct.databaseId) {
    throw new PoolerError(
      'DATABASE_URL and DATABASE_DIRECT_URL lead to different databases. Both must name the same one: the pooler, and the server behind it.',
    )
  }
  const missing = Object.entries(sessionSettings)
    .map(([setting, wanted]) => ({ setting, wanted, found: seen.settings.get(setting) ?? 'unknown' }))
    .filter(({ wanted, found }) => found !== wanted)
  const remedy = missing.map(({ setting, wanted }) => `alter role ${seen.role} set ${setting} = '${wanted}';`).join(' ')
  const commit = seen.settings.get('synchronous_commit') ?? 'unknown'
  if (isWeak(commit, seen.settings.get('synchronous_standby_names') ?? '')) {
    throw new PoolerError(
      `synchronous_commit is ${commit} behind the pooler of DATABASE_URL: what is acknowledged could be lost. As ${seen.role} or a superuser run: ${remedy} Then let the pooler reconnect (RECONNECT in its console).`,
    )
  }
  return { missing, remedy }
}

/** Whether an acknowledged commit could be lost although a session with `on` would have kept it. Without a standby all but `off` wait for the disk. */
function isWeak(synchronousCommit: string, standbys: string): boolean {
  if (synchronousCommit === 'on' || synchronousCommit === 'remote_apply') return false
  return synchronousCommit === 'off' || standbys !== ''
}

interface Seen {
  role: string
  databaseId: string
  settings: Map<string, string>
}

async function look(url: string, pooled: boolean): Promise<Seen> {
  const client = new Client({ ...sessionOptions(url, 'askonce pooler check', { pooled }), queryLimitMs: 5_000 })
  await client.connect()
  try {
    const { rows } = await client.query<{ role: string; database_id: string; name: string; setting: string }>(
      `select quote_ident(current_user) as role, (select database_id from settings) as database_id, name, setting
       from pg_settings where name = any ($1)`,
      [[...Object.keys(sessionSettings), 'synchronous_standby_names']],
    )
    const settings = new Map(rows.map(({ name, setting }) => [name, setting]))
    return { role: rows[0]?.role ?? '', databaseId: rows[0]?.database_id ?? '', settings }
  } finally {
    await client.end()
  }
}
