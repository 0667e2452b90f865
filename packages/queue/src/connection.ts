import { groundSettings, postgresParts, type RedisAddress } from '@askonce/address'
import { createPostgresBackend, createRedisBackend, type BackendFactory, type QueueOptions } from 'bullmq'
import pg from 'pg'
import type { Cluster, Redis } from 'ioredis'
import { openRedis, type Role } from './redis.ts'

/**
 * Where BullMQ keeps its queues. All keys of a Redis begin with `prefix`, which is in braces: they hash to one slot of a cluster, as BullMQ's
 * scripts need it. Another prefix is another queue. On Postgres a database is a system.
 */
export type QueueConnection =
  | (RedisAddress & { readonly prefix: string })
  | { readonly kind: 'postgres'; readonly url: string }

/** The BullMQ queue of a lane. */
export function queueName(lane: string): string {
  return `askonce-${lane}`
}

/** BullMQ does not listen to the clients that it checks out: a connection that breaks then would end the process. */
class Client extends pg.Client {
  constructor(config?: string | pg.ClientConfig) {
    super(config)
    this.on('error', () => undefined)
  }
}

export interface BullConnection {
  options: Pick<QueueOptions, 'connection' | 'prefix'>
  backend: BackendFactory
  /** The Redis client that BullMQ works with; null on Postgres. */
  redis: Redis | Cluster | null
  /** Why it is not connected, in our own words; null: it is, or nobody knows. */
  failure(): Error | null
  /** Closes what BullMQ does not own. */
  close(): Promise<void>
}

/** A connection for one BullMQ object. `poolSize` counts Postgres connections; a consumer adds one that listens. */
export function bullConnection(
  connection: QueueConnection,
  role: Role,
  poolSize: number,
  onError: (error: Error) => void,
): BullConnection {
  if (connection.kind !== 'postgres') {
    const watched = openRedis(connection, role, onError)
    return {
      options: { connection: watched.redis, prefix: connection.prefix },
      backend: createRedisBackend,
      redis: watched.redis,
      failure: () => watched.failure(),
      close: () => Promise.resolve(watched.disconnect()),
    }
  }
  const options = {
    ...postgresParts(connection.url, groundSettings),
    Client,
    max: poolSize,
    connectionTimeoutMillis: 2_000,
    query_timeout: 10_000,
    application_name: 'askonce queue',
  }
  return {
    options: { connection: options },
    backend: createPostgresBackend as unknown as BackendFactory,
    redis: null,
    failure: () => null,
    close: () => Promise.resolve(),
  }
}
