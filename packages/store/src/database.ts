import { groundSettings, placeSettings, postgresParts } from '@askonce/address'
import { Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { within } from '@askonce/timing'
import { Client, UnnamedClient, type ClientOptions } from './client.ts'
import { StoreTimeoutError } from './errors.ts'
import type { Tables } from './tables.ts'

/** How long a statement may wait for a row lock, and run, in milliseconds. */
export const lockTimeoutMs = 5_000
export const statementTimeoutMs = 30_000

/** How long it may take to make a connection, or to get one out of a pool. */
const connectLimitMs = 5_000

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

/**
 * What every session must have: an acknowledged commit is on disk, and nothing waits for ever. Sent at the start of each session; a
 * transaction pooler does not pass that on, so behind one the role has to have them (see pooler.ts).
 */
export const sessionSettings: Readonly<Record<string, string>> = {
  synchronous_commit: 'on',
  lock_timeout: String(lockTimeoutMs),
  statement_timeout: String(statementTimeoutMs),
  idle_in_transaction_session_timeout: String(statementTimeoutMs),
  ...groundSettings,
  ...plannerSettings,
}

export interface DatabaseOptions {
  /** Of the server itself, where a session is ours alone. */
  url: string
  /** Of a pooler in transaction mode, which takes `url`'s place for these connections. */
  poolerUrl?: string | null
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

const timestamptz: number = pg.types.builtins.TIMESTAMPTZ

/** Every session has the time zone UTC, so times end in this. */
const utc = '+00'
const shortestTime = '2026-01-02 03:04:05+00'.length

/** As node-postgres reads it, which takes six times as long; of a job there are seven. What looks otherwise (infinity, BC) is left to it. */
function timeOf(text: string): Date {
  const digits = (from: number): number => (text.charCodeAt(from) - zero) * 10 + text.charCodeAt(from + 1) - zero
  if (text.length < shortestTime || text[10] !== ' ' || !text.endsWith(utc)) return otherTime(text)
  let ms = 0
  let scale = 100
  for (let at = 20; at < text.length - utc.length && scale >= 1; at += 1) {
    ms += (text.charCodeAt(at) - zero) * scale
    scale /= 10
  }
  const year = digits(0) * 100 + digits(2)
  // Date.UTC takes those for 1900 to 1999.
  if (year < 100) return otherTime(text)
  return new Date(Date.UTC(year, digits(5) - 1, digits(8), digits(11), digits(14), digits(17), ms))
}

const zero = 0x30
const otherTime = pg.types.getTypeParser(pg.types.builtins.TIMESTAMPTZ) as (text: string) => Date

const parserOf = (oid: number, format?: 'text' | 'binary'): ((text: string) => unknown) => {
  if (numberTypes.has(oid) && format !== 'binary') return Number
  if (oid === timestamptz && format !== 'binary') return timeOf
  return pg.types.getTypeParser(oid, format ?? 'text') as (text: string) => unknown
}

export const parsers: pg.CustomTypesConfig = { getTypeParser: parserOf as pg.CustomTypesConfig['getTypeParser'] }

/** How a connection is made. `pooled`: through a pooler in transaction mode, where the next statement may be in another session. */
export function sessionOptions(url: string, name: string, { pooled = false } = {}): ClientOptions {
  return {
    ...postgresParts(url, pooled ? null : sessionSettings),
    application_name: name,
    connectLimitMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    rules: { settings: pooled ? sessionSettings : { ...placeSettings(url), ...sessionSettings }, pooled },
    types: parsers,
  }
}

/** No connection is made before the first statement, so Postgres may be away at boot. */
export function openPool({ url, poolerUrl = null, name, poolSize, onError }: DatabaseOptions): pg.Pool {
  // The pool hands its options on to each client.
  const options: pg.PoolConfig & ClientOptions = {
    ...sessionOptions(poolerUrl ?? url, name, { pooled: poolerUrl !== null }),
    Client: poolerUrl === null ? Client : UnnamedClient,
    max: poolSize,
    idleTimeoutMillis: 30_000,
    // Longer than the statement timeout: a server that vanished without a word must not keep a caller for ever.
    queryLimitMs: statementTimeoutMs + 5_000,
  }
  const pool = new pg.Pool(options)
  pool.on('error', (error) => onError?.(error))
  return pool
}

/** Opens a pool for statements of all kinds. */
export function openDatabase(options: DatabaseOptions): Database {
  const { url } = options
  const pool = openPool(options)
  const db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool: impatient(pool) }) })
  return { db, url, close: () => db.destroy() }
}

/** The pool, whose connections are waited for no longer than {@link connectLimitMs}: its own time-out would fire before replies are read. */
function impatient(pool: pg.Pool): Pick<pg.Pool, 'end'> & { connect: () => Promise<pg.PoolClient> } {
  return {
    connect: () => {
      const connecting = pool.connect()
      return within(connecting, connectLimitMs, () => {
        connecting.then((client) => client.release()).catch(() => undefined)
        return new StoreTimeoutError('no connection to Postgres in time')
      })
    },
    end: () => pool.end(),
  }
}
