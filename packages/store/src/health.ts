import { sql } from 'kysely'
import type { Db } from './tables.ts'

export interface ServerFacts {
  /** e.g. 180004. */
  versionNumber: number
  version: string
  /** The database's clock. */
  now: Date
  synchronousCommit: string
  fsync: string
  maxConnections: number
}

/** What `doctor` asks a server; also proof that it answers. */
export async function readServerFacts(db: Db): Promise<ServerFacts> {
  const { rows } = await sql<ServerFacts>`
    select
      current_setting('server_version_num')::int as "versionNumber", current_setting('server_version') as version,
      clock_timestamp() as now, current_setting('synchronous_commit') as "synchronousCommit",
      current_setting('fsync') as fsync, current_setting('max_connections')::int as "maxConnections"
  `.execute(db)
  return rows[0] as ServerFacts
}

/** Rejects when Postgres does not answer. */
export async function ping(db: Db): Promise<void> {
  await sql`select 1`.execute(db)
}
