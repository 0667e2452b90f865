import { groundSettings, postgresParts } from '@askonce/address'
import pg from 'pg'
import { USER } from './init.ts'

/** Connection URL of a server made here. */
export function urlOf(port: number, password: string, database: string): string {
  return `postgres://${USER}:${password}@127.0.0.1:${port}/${database}`
}

/** How a server answers: `silent` covers refused, reset and no answer within the time. */
export type ServerState = 'ready' | 'starting' | 'stopping' | 'wrong_password' | 'silent'

/** Connects once to the database `postgres` and says what came of it. SCRAM proves both sides: only our cluster is `ready`. */
export async function probe(port: number, password: string, timeoutMs: number): Promise<ServerState> {
  try {
    await withClient(urlOf(port, password, 'postgres'), timeoutMs, async () => {})
    return 'ready'
  } catch (error) {
    const code = sqlState(error)
    if (code === '57P03') return /shutting down/.test(String(error)) ? 'stopping' : 'starting'
    if (code === '57P01' || code === '57P02') return 'stopping'
    if (code === '28P01' || code === '28000') return 'wrong_password'
    // All connections taken, by clients of a dead process that the server has yet to notice.
    return code === '53300' ? 'starting' : 'silent'
  }
}

/** Makes the database unless it exists. */
export async function ensureDatabase(port: number, password: string, database: string): Promise<void> {
  await withClient(urlOf(port, password, 'postgres'), 10_000, async (client) => {
    const found = await client.query('select from pg_database where datname = $1', [database])
    if (found.rowCount) return
    await client.query(`create database ${client.escapeIdentifier(database)}`).catch((error: unknown) => {
      // 42P04, 23505: another start was faster.
      if (!['42P04', '23505'].includes(sqlState(error) ?? '')) throw error
    })
  })
}

/** Runs `use` on a connection of its own, closed afterwards. */
export async function withClient<T>(
  url: string,
  timeoutMs: number,
  use: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = new pg.Client({
    // In parts: what an address leaves out, pg takes from the PG* variables of somebody's psql.
    ...postgresParts(url, groundSettings),
    connectionTimeoutMillis: timeoutMs,
    query_timeout: 60_000,
  })
  // Without a listener a connection cut at the wrong moment would end the process.
  client.on('error', () => {})
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end().catch(() => {})
  }
}

/** SQLSTATE of a thrown value, or undefined when it did not come from the server. */
export function sqlState(error: unknown): string | undefined {
  return error instanceof pg.DatabaseError ? error.code : undefined
}
