import { readTlsFiles, type RedisAddress } from '@askonce/address'
import { Cluster, Redis, type RedisOptions } from 'ioredis'
import { reconnectOnError, watchRedis, type WatchedRedis } from './watch-redis.ts'

/**
 * `producer`: gives a command up after one try or two seconds. The offline queue stays on: BullMQ sends its first commands before
 * the connection is up, and without the queue they fail the process. `consumer`: blocks, and waits for Redis for ever.
 */
export type Role = 'producer' | 'consumer'

/** Longest wait between two attempts to reconnect. */
const reconnectCapMs = 1_000

/** How often a cluster is asked who has which slots: a failover that breaks no connection is noticed so. */
const slotsRefreshMs = 5_000

const retryDelay = (times: number): number => Math.min(reconnectCapMs, 50 * 2 ** Math.min(times, 5))

/** Connects, and again whenever the connection is lost, wherever the primary then is. */
export function openRedis(target: RedisAddress, role: Role, onError: (error: Error) => void): WatchedRedis {
  return watchRedis(connect(target, role), onError)
}

function connect(target: RedisAddress, role: Role): Redis | Cluster {
  const options: RedisOptions = {
    ...(role === 'producer' ? { maxRetriesPerRequest: 1, commandTimeout: 2_000 } : { maxRetriesPerRequest: null }),
    connectTimeout: 5_000,
    maxLoadingRetryTime: reconnectCapMs,
  }
  const { tls, files = null, ...login } = target.login
  const certificates = files === null ? {} : readTlsFiles(files)
  const secure = tls ? { tls: certificates } : {}
  if (target.kind === 'redis') {
    const { server, db, family } = target
    return new Redis({
      ...options,
      ...login,
      ...secure,
      ...server,
      db,
      family,
      retryStrategy: retryDelay,
      reconnectOnError,
    })
  }
  if (target.kind === 'redis-cluster') {
    // A cluster says itself who is read-only (MOVED), and its own retries take the place of those for each connection.
    return new Cluster([...target.nodes], {
      redisOptions: { ...options, ...login, ...secure },
      clusterRetryStrategy: retryDelay,
      slotsRefreshInterval: slotsRefreshMs,
      // Certificates name hosts, not addresses.
      ...(tls ? { dnsLookup: (host, callback) => callback(null, host) } : {}),
    })
  }
  const { sentinels, primary, db, sentinelLogin } = target
  return new Redis({
    ...options,
    ...login,
    ...secure,
    ...(tls ? { sentinelTLS: certificates, enableTLSForSentinelMode: true } : {}),
    sentinels: [...sentinels],
    name: primary,
    db,
    ...(sentinelLogin.username === undefined ? {} : { sentinelUsername: sentinelLogin.username }),
    ...(sentinelLogin.password === undefined ? {} : { sentinelPassword: sentinelLogin.password }),
    sentinelCommandTimeout: 2_000,
    // A primary that froze, or whose machine vanished, closes no connection: the sentinels say that another one has taken over.
    failoverDetector: true,
    sentinelMaxConnections: 3,
    retryStrategy: retryDelay,
    sentinelRetryStrategy: retryDelay,
    reconnectOnError,
  })
}
