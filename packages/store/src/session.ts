import type { Socket } from 'node:net'
import { Kysely, PostgresDialect } from 'kysely'
import type pg from 'pg'
import { Client } from './client.ts'
import { sessionOptions } from './database.ts'
import { hot } from './hot.ts'
import type { Db, Tables } from './tables.ts'

/** Longest time between two attempts to reconnect. */
const reconnectCapMs = 1_000

export interface SessionOptions {
  url: string
  name: string
  /** Channels to LISTEN on, again after every reconnect. */
  channels?: readonly string[]
  /** It listens, for the first time or again: what was said before was not heard. */
  onListening?: () => void
  /** A notification. After a reconnect some may have been lost: hints, never facts. */
  onNotification?: (channel: string, payload: string) => void
  onError?: (error: Error) => void
  /** A statement of this session is given up after this long. */
  queryTimeoutMs: number
}

/** The address and port of a socket on our side. */
export interface LocalEnd {
  address: string
  port: number
}

/**
 * One connection of its own that comes back within a second whenever the server does: for heartbeats, which must not queue
 * behind other statements, and for LISTEN, which is bound to a connection.
 */
export class Session {
  /** Statements run on the session's connection and reject at once while it is down. */
  readonly db: Db
  private readonly options: SessionOptions
  private client: pg.Client | null = null
  private connecting: pg.Client | null = null
  private timer: NodeJS.Timeout | null = null
  private delayMs = 50
  private closed = false

  constructor(options: SessionOptions) {
    this.options = options
    this.db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool: this.asPool() }) })
    void this.connect()
  }

  get connected(): boolean {
    return this.client !== null
  }

  /** Our end of the connection, as the server sees it too unless something stands between; null: no TCP connection. */
  get localEnd(): LocalEnd | null {
    const stream = (this.client as { connection?: { stream?: Partial<Socket> } } | null)?.connection?.stream
    const { localAddress, localPort } = stream ?? {}
    return localAddress === undefined || localPort === undefined ? null : { address: localAddress, port: localPort }
  }

  async close(): Promise<void> {
    this.closed = true
    if (this.timer !== null) clearTimeout(this.timer)
    const clients = [this.client, this.connecting].filter((client) => client !== null)
    this.client = null
    await Promise.all(clients.map((client) => client.end()))
  }

  private async connect(): Promise<void> {
    const { url, name, channels = [], queryTimeoutMs } = this.options
    const client = new Client({
      ...sessionOptions(url, name),
      queryLimitMs: queryTimeoutMs,
      connectLimitMs: queryTimeoutMs,
    })
    this.connecting = client
    // A connection can be lost in several ways at once; it is replaced once.
    let failed = false
    const fail = (error: Error): void => {
      if (failed) return
      failed = true
      this.lost(client, error)
    }
    client.on('error', fail)
    client.on('end', () => fail(new Error('the connection ended')))
    client.on('notification', ({ channel, payload }) => this.options.onNotification?.(channel, payload ?? ''))
    try {
      await client.connect()
      for (const channel of channels) await client.query(`listen ${client.escapeIdentifier(channel)}`)
      if (this.connecting === client) this.connecting = null
      if (failed || this.closed) return void client.end()
      this.client = client
      this.delayMs = 50
      this.options.onListening?.()
    } catch (error) {
      fail(error as Error)
    }
  }

  private lost(client: pg.Client, error: Error): void {
    if (this.client === client) this.client = null
    if (this.connecting === client) this.connecting = null
    void client.end()
    if (this.closed) return
    this.options.onError?.(error)
    this.timer = setTimeout(() => void this.connect(), this.delayMs)
    this.delayMs = Math.min(reconnectCapMs, this.delayMs * 2)
  }

  /** What Kysely needs of a pool, over the one connection. */
  private asPool(): { connect: () => Promise<pg.PoolClient>; end: () => Promise<void> } {
    return {
      connect: () => {
        const client = this.client
        const { name } = this.options
        if (client === null) return Promise.reject(new Error(`the connection to Postgres is down (${name})`))
        const query = (text: string, values: unknown[]): Promise<unknown> => client.query(text, values)
        return Promise.resolve({ query, release: () => undefined } as unknown as pg.PoolClient)
      },
      end: () => this.close(),
    }
  }
}

/** Longest payload of a notification is 8,000 bytes; an id takes 37 of them. */
const idsPerNotification = 200

/**
 * Tells listeners that these ids have news. A statement of its own after the commit it speaks of: inside it, NOTIFY would
 * serialise the commits of all workers. Lost hints cost latency only; waiters also poll. So this commit, which holds nothing else,
 * does not wait for the disk.
 */
export async function notify(db: Db, channel: string, ids: readonly string[]): Promise<void> {
  const payloads = payloadsOf(ids)
  if (payloads.length === 0) return
  await hot(db, 'notify')`
    select set_config('synchronous_commit', 'off', true), pg_notify(${channel}, payload) from unnest(${payloads}::text[]) as p (payload)
  `
}

/** Ids as payloads of notifications. */
export function payloadsOf(ids: readonly string[]): string[] {
  return Array.from({ length: Math.ceil(ids.length / idsPerNotification) }, (_, index) =>
    ids.slice(index * idsPerNotification, (index + 1) * idsPerNotification).join(','),
  )
}

/** Jobs that settled; payload: ids, comma-separated. */
export const settledChannel = 'askonce_settled'
/** Jobs that were cancelled while a call was under way; payload: ids. */
export const interruptedChannel = 'askonce_interrupted'
/** Streams that have more to show; payload: ids. */
export const streamsChannel = 'askonce_streams'
/** Batches that are new; payload: ids. */
export const batchesChannel = 'askonce_batches'
/** Lanes that changed; payload: names. */
export const lanesChannel = 'askonce_lanes'
