import { createPostgresBackend, createRedisBackend, type BackendFactory, type QueueOptions } from 'bullmq'
import { Redis } from 'ioredis'
import pg from 'pg'

/** Where BullMQ keeps its queues. */
export type QueueConnection = { kind: 'redis'; url: string } | { kind: 'postgres'; url: string }

/** All keys of a queue hash to one slot of a cluster. */
const redisPrefix = '{askonce}'

/** Longest wait between two attempts to reconnect. */
const reconnectCapMs = 1_000

/** The BullMQ queue of a lane. */
export function queueName(lane: string): string {
  return `askonce-${lane}`
}

/** How a job is called in BullMQ: a fresh id for every hand-over, because an id that is still stored is ignored silently. */
export function dispatchId(id: string, dispatch: number): string {
  return `${id}.${dispatch}`
}

/** The job that a BullMQ id speaks of. */
export function jobIdOf(dispatchedId: string): string {
  return dispatchedId.slice(0, 36)
}

/**
 * `producer`: gives a command up after one try or two seconds. The offline queue stays on: BullMQ sends its first commands before
 * the connection is up, and without the queue they fail the process. `consumer`: blocks, and waits for Redis for ever.
 */
export type Role = 'producer' | 'consumer'

export function openRedis(url: string, role: Role, onError: (error: Error) => void): Redis {
  const redis = new Redis(url, {
    ...(role === 'producer' ? { maxRetriesPerRequest: 1, commandTimeout: 2_000 } : { maxRetriesPerRequest: null }),
    connectTimeout: 5_000,
    retryStrategy: (times) => Math.min(reconnectCapMs, 50 * 2 ** Math.min(times, 5)),
    // A failover leaves us on a replica: connect again and send the command again.
    reconnectOnError: (error) => (error.message.startsWith('READONLY') ? 2 : false),
  })
  redis.on('error', onError)
  return redis
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
  if (connection.kind === 'redis') {
    const redis = openRedis(connection.url, role, onError)
    return {
      options: { connection: redis, prefix: redisPrefix },
      backend: createRedisBackend,
      close: () => Promise.resolve(redis.disconnect()),
    }
  }
  const options = {
    connectionString: connection.url,
    Client,
    max: poolSize,
    connectionTimeoutMillis: 2_000,
    query_timeout: 10_000,
    application_name: 'askonce queue',
  }
  return {
    options: { connection: options },
    backend: createPostgresBackend as unknown as BackendFactory,
    close: () => Promise.resolve(),
  }
}
