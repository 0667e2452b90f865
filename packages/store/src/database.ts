import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { Client } from './client.ts'
import type { Tables } from './tables.ts'

/** How long a statement may wait for a row lock, and run, in milliseconds. */
export const lockTimeoutMs = 5_000
export const statementTimeoutMs = 30_000

export interface DatabaseOptions {
  url: string
  /** Shown in pg_stat_activity. */
  name: string
  /** Most connections at once. */
  poolSize: number
  /** Idle connections that break (a restart of Postgres) land here; the pool replaces them by itself. */
  onError?: (error: Error) => void
}

export interface Database {
  db: Kysely<Tables>
  url: string
  close(): Promise<void>
}

// bigint and numeric as numbers: counters and dollars, far below 2^53.
const numberTypes = new Set<number>([pg.types.builtins.INT8, pg.types.builtins.NUMERIC])

const parserOf = (oid: number, format?: 'text' | 'binary'): ((text: string) => unknown) => {
  if (numberTypes.has(oid) && format !== 'binary') return Number
  return pg.types.getTypeParser(oid, format ?? 'text') as (text: string) => unknown
}

export const parsers: pg.CustomTypesConfig = { getTypeParser: parserOf as pg.CustomTypesConfig['getTypeParser'] }

/**
 * A kept plan must do for a table that grows from nothing to millions of rows: no reading of whole tables where an index will do, no
 * plan made for the values of one call, and no compiling, which the costs of such plans would bring about.
 */
export const plannerSettings = {
  enable_seqscan: 'off',
  enable_mergejoin: 'off',
  enable_hashjoin: 'off',
  jit: 'off',
  plan_cache_mode: 'force_generic_plan',
}

/** What every session must have: an acknowledged commit is on disk, and nothing waits for ever. */
export function sessionOptions(url: string, name: string): pg.ClientConfig {
  return {
    connectionString: url,
    application_name: name,
    connectionTimeoutMillis: 5_000,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    options: [
      '-c synchronous_commit=on',
      `-c lock_timeout=${lockTimeoutMs}`,
      `-c statement_timeout=${statementTimeoutMs}`,
      `-c idle_in_transaction_session_timeout=${statementTimeoutMs}`,
      ...Object.entries(plannerSettings).map(([setting, value]) => `-c ${setting}=${value}`),
    ].join(' '),
    types: parsers,
  }
}

/** Opens a pool. No connection is made before the first statement, so Postgres may be away at boot. */
export function openDatabase({ url, name, poolSize, onError }: DatabaseOptions): Database {
  const pool = new pg.Pool({
    ...sessionOptions(url, name),
    Client,
    max: poolSize,
    idleTimeoutMillis: 30_000,
    // Longer than the statement timeout: a server that vanished without a word must not keep a caller for ever.
    query_timeout: statementTimeoutMs + 5_000,
  })
  pool.on('error', (error) => onError?.(error))
  const db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) })
  return { db, url, close: () => db.destroy() }
}
