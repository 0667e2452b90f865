import { Redis, type Cluster } from 'ioredis'
import { QueueUnavailableError } from './errors.ts'
import { within } from './within.ts'

/** How often each process says which database its system has. */
export const tellEveryMs = 15_000
/** A system that has not said so for this long is gone. */
const goneAfterSeconds = 45

/**
 * Says that the system of a database works with this prefix, and returns every database of which that was said lately. The server's
 * clock decides, and the entry makes itself anew after FLUSHALL.
 */
const tell = `
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2] * 1000)
return redis.call('ZRANGE', KEYS[1], 0, -1)`

const databasesKey = (prefix: string): string => `${prefix}:databases`

/** The databases of other systems that work with the same prefix now. */
export async function tellDatabase(redis: Redis | Cluster, prefix: string, databaseId: string): Promise<string[]> {
  const found = (await redis.eval(tell, 1, databasesKey(prefix), databaseId, goneAfterSeconds)) as string[]
  return found.filter((id) => id !== databaseId)
}

/** The same without saying anything, for a program that is part of no system. */
export async function readDatabases(redis: Redis | Cluster, prefix: string): Promise<string[]> {
  const now = Number((await redis.time())[0])
  return redis.zrangebyscore(databasesKey(prefix), now - goneAfterSeconds, '+inf')
}

/** Rejects unless the server takes what the queue needs: a write. A replica, a full server and one that cannot save answer reads. */
export async function tryWrite(redis: Redis | Cluster, prefix: string): Promise<void> {
  await redis.set(`${prefix}:probe`, '', 'PX', 10_000)
}

/** A server that reads its data after a start is connected and never ready; of all commands that matter it answers INFO. */
export async function isLoading(redis: Redis | Cluster | null): Promise<boolean> {
  if (!(redis instanceof Redis) || redis.status !== 'connect') return false
  const info = await within(redis.info('persistence'), 300, 'asking whether Redis loads').catch(() => '')
  return /^loading:1/m.test(info)
}

export class QueueLoadingError extends QueueUnavailableError {
  constructor() {
    super('Redis still reads its data after a start', { todo: 'Wait; it ends by itself.' })
  }
}

export const sharedMessage =
  'another system (a Postgres database of its own) works on this Redis with the same prefix: give one of the two another ' +
  'ASKONCE_REDIS_PREFIX, or another database number in REDIS_URL; if the other one is gone, this ends within a minute'

/** Two systems on one prefix take each other's wake-ups. Jobs still run: Postgres is the truth. */
export class QueueSharedError extends QueueUnavailableError {
  constructor() {
    super(sharedMessage)
  }
}
