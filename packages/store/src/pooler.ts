import { Client } from './client.ts'
import { sessionOptions, sessionSettings } from './database.ts'
import { checkSession, type Deviation } from './session-check.ts'

/** What sessions behind a pooler are like. */
export interface PoolerFacts {
  /** Settings that the role should have and has not. */
  missing: Deviation[]
  /** What to run so that they are there; empty when nothing is missing. */
  remedy: string
}

/** The pooler must not be used: it leads elsewhere. The message says so and what to do. */
export class PoolerError extends Error {}

/**
 * Looks through a pooler in transaction mode at the sessions behind it. They do not get our settings at their start, so the role must have
 * them: missing ones are returned.
 *
 * @param url of the server itself: the pooler must lead to the same database.
 * @throws PoolerError; SessionSettingsError where an acknowledged commit could be lost; or the driver's error when one of them is away.
 */
export async function readPoolerFacts(poolerUrl: string, url: string): Promise<PoolerFacts> {
  const [seen, direct] = await Promise.all([look(poolerUrl, true), look(url, false)])
  if (seen.databaseId !== direct.databaseId) {
    throw new PoolerError(
      'DATABASE_URL and DATABASE_DIRECT_URL lead to different databases. Both must name the same one: the pooler, and the server behind it.',
    )
  }
  return { missing: seen.missing, remedy: seen.remedy }
}

/** So often two connections are compared: a pooler may happen to have two sessions at hand. */
const looks = 5

/**
 * Refuses a pooler in transaction mode where sessions have to be ours alone: listeners would hear nothing, and statements that are prepared
 * in one session be asked for in another. It gives itself away by handing one session to two connections, or two to one.
 *
 * @throws PoolerError, or the driver's error.
 */
export async function assertOwnSessions(url: string): Promise<void> {
  const clients = [1, 2].map(() => new Client({ ...sessionOptions(url, 'askonce pooler check'), queryLimitMs: 5_000 }))
  try {
    await Promise.all(clients.map((client) => client.connect()))
    const pids = clients.map(() => new Set<unknown>())
    for (let round = 0; round < looks; round += 1) {
      for (const [index, client] of clients.entries()) {
        const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid')
        pids[index]?.add(rows[0]?.pid)
      }
    }
    const all = new Set(pids.flatMap((each) => [...each]))
    if (pids.some(({ size }) => size !== 1) || all.size !== clients.length) throw new PoolerError(transactionModeText)
  } finally {
    await Promise.all(clients.map((client) => client.end()))
  }
}

const transactionModeText =
  'The address leads through a pooler in transaction mode: connections of ours shared a session. Let DATABASE_URL be the pooler, and set DATABASE_DIRECT_URL to the server itself; or use the pooler in session mode.'

interface Seen extends PoolerFacts {
  databaseId: string
}

async function look(url: string, pooled: boolean): Promise<Seen> {
  const rules = { settings: sessionSettings, pooled }
  const client = new Client({ ...sessionOptions(url, 'askonce pooler check', { pooled }), queryLimitMs: 5_000 })
  await client.connect()
  try {
    const { deviations: missing, remedy } = await checkSession(client, rules)
    const { rows } = await client.query<{ database_id: string }>('select database_id from settings')
    return { missing, remedy, databaseId: rows[0]?.database_id ?? '' }
  } finally {
    await client.end()
  }
}
