import { Kysely, PostgresDialect } from 'kysely'
import type pg from 'pg'
import { Client } from './client.ts'
import { openPool, sessionOptions, type DatabaseOptions } from './database.ts'
import type { Db, Tables } from './tables.ts'

/** How long a server may take for a cancellation, and a cancelled statement for its end. */
const cancelMs = 2_000

/** Connections for reads that may take long. They end in Postgres, too, when nobody wants their result any more. */
export class ReadPool {
  private readonly pool: pg.Pool
  private readonly config: pg.ClientConfig

  constructor(options: DatabaseOptions) {
    this.pool = openPool(options)
    const { url, poolerUrl = null, name } = options
    this.config = sessionOptions(poolerUrl ?? url, name, { pooled: poolerUrl !== null })
  }

  /** Runs a read on one connection. Rejects when the signal aborts: its statement is cancelled then. */
  async run<Result>(signal: AbortSignal, read: (db: Db) => Promise<Result>): Promise<Result> {
    const client = await this.pool.connect()
    let cancelled = false
    let timer: NodeJS.Timeout | undefined
    const cancel = (): void => {
      cancelled = true
      sendCancel(this.config, client)
      timer = setTimeout(() => void (client as unknown as pg.Client).end(), cancelMs)
    }
    try {
      signal.throwIfAborted()
      signal.addEventListener('abort', cancel)
      return await read(overOne(client))
    } finally {
      signal.removeEventListener('abort', cancel)
      clearTimeout(timer)
      // A cancellation may come late, and would meet the next statement: this connection has no next one.
      client.release(cancelled)
    }
  }

  async close(): Promise<void> {
    await this.pool.end()
  }
}

/** Kysely over one connection, which it does not give back. */
function overOne(client: pg.PoolClient): Db {
  const query = (text: string, values: unknown[]): Promise<unknown> => client.query(text, values)
  const connect = (): Promise<pg.PoolClient> =>
    Promise.resolve({ query, release: () => undefined } as unknown as pg.PoolClient)
  return new Kysely<Tables>({ dialect: new PostgresDialect({ pool: { connect, end: () => Promise.resolve() } }) })
}

/** What node-postgres has and its types do not tell. */
interface Cancelling {
  host: string
  port: number
  connection: pg.Connection & {
    connect: (port: number | string, host?: string) => void
    cancel: (processId: number, secret: unknown) => void
  }
}

/**
 * The protocol’s own cancellation, over a connection of its own: it needs no place in a pool and no right over other sessions, and PgBouncer passes
 * it on.
 */
function sendCancel(config: pg.ClientConfig, client: pg.PoolClient): void {
  const { processID, secretKey } = client as unknown as { processID: number; secretKey: unknown }
  const { host, port, connection } = new Client(config) as unknown as Cancelling
  connection.on('error', () => undefined)
  connection.once('connect', () => connection.cancel(processID, secretKey))
  if (host.startsWith('/')) connection.connect(`${host}/.s.PGSQL.${port}`)
  else connection.connect(port, host)
  // The server closes it when it has heard.
  setTimeout(() => connection.stream.destroy(), cancelMs).unref()
}
