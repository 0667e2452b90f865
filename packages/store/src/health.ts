import { sql } from 'kysely'
import { openDatabase } from './database.ts'
import { StoreRefusalError } from './errors.ts'
import { StoreProbe } from './probe.ts'
import { explainRefusal } from './refusals.ts'
import type { Db } from './tables.ts'

/** Connections that are counted against a limit. */
export interface ConnectionLimit {
  of: 'server' | 'role' | 'database'
  /** Of the role or the database. */
  name: string
  /** How many there may be for us; of the server: what is not reserved for others. */
  most: number
  inUse: number
}

export interface ServerFacts {
  /** e.g. 180004. */
  versionNumber: number
  version: string
  /** The database's clock. */
  now: Date
  synchronousCommit: string
  fsync: string
  maxConnections: number
  /** Those that apply to our role; the server's first. */
  limits: ConnectionLimit[]
}

/** What `doctor` asks a server; also proof that it answers. */
export async function readServerFacts(db: Db): Promise<ServerFacts> {
  const { rows } = await sql<Omit<ServerFacts, 'limits'>>`
    select
      current_setting('server_version_num')::int as "versionNumber", current_setting('server_version') as version,
      clock_timestamp() as now, current_setting('synchronous_commit') as "synchronousCommit",
      current_setting('fsync') as fsync, current_setting('max_connections')::int as "maxConnections"
  `.execute(db)
  return { ...(rows[0] as Omit<ServerFacts, 'limits'>), limits: await readLimits(db) }
}

/** Limits of role and database are -1 where there is none, and none for superusers. Places are reserved for other roles since 16. */
async function readLimits(db: Db): Promise<ConnectionLimit[]> {
  const { rows } = await sql<ConnectionLimit>`
    with role as (select oid, rolname, rolsuper, rolconnlimit from pg_roles where rolname = session_user)
    select 'server' as of, '' as name,
      current_setting('max_connections')::int - case when rolsuper then 0 else
        current_setting('superuser_reserved_connections')::int + coalesce(current_setting('reserved_connections', true), '0')::int
      end as most,
      (select sum(numbackends)::int from pg_stat_database) as "inUse"
    from role
    union all
    select 'role', rolname, rolconnlimit, (select count(*)::int from pg_stat_activity where usesysid = role.oid)
    from role where rolconnlimit >= 0 and not rolsuper
    union all
    select 'database', pg_database.datname, datconnlimit, numbackends
    from role, pg_database join pg_stat_database on datid = pg_database.oid
    where pg_database.datname = current_database() and datconnlimit >= 0 and not rolsuper
  `.execute(db)
  return rows
}

/**
 * Why Postgres refused a statement, in our own words; null where we have none. A refusal to write has several causes, and the server is
 * asked which one it is.
 */
export async function findRefusal(url: string, error: unknown): Promise<StoreRefusalError | null> {
  const explained = explainRefusal(error)
  if ((error as { code?: unknown } | null)?.code !== '25006') return explained
  const { db, close } = openDatabase({ url, name: 'askonce looks', poolSize: 1 })
  try {
    await new StoreProbe(db).check()
    return explained
  } catch (found) {
    return found instanceof StoreRefusalError ? found : explained
  } finally {
    await close()
  }
}
