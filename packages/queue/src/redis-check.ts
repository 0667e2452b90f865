import type { RedisAddress } from '@askonce/address'
import type { Cluster, Redis } from 'ioredis'
import { inOwnWords, QueueTimeoutError, QueueUnavailableError } from './errors.ts'
import { readDatabases, sharedMessage, tryWrite } from './look.ts'
import { openRedis } from './redis.ts'
import type { WatchedRedis } from './watch-redis.ts'
import { within } from './within.ts'

export interface RedisFinding {
  /** The queue does not work with this; else it works, and something should be mended. */
  grave: boolean
  /** What to do; our own words. */
  todo: string
}

export interface RedisFacts {
  /** One line for people. */
  summary: string
  /** What an operator should mend. */
  findings: RedisFinding[]
  /** Why it takes no writes; null: it does. As {@link checkRedis} rejects. */
  refusal: Error | null
}

export interface RedisQuestion {
  /** Braces included. */
  prefix: string
  /** Of our own system; null: nobody knows. */
  databaseId: string | null
}

const timeoutMs = 3_000

/**
 * What `doctor` asks a Redis: the server, every primary of a cluster, or the primary that the sentinels name. Rejects when it cannot be
 * asked, with our own words or an error whose code tells why.
 */
export async function checkRedis(target: RedisAddress, { prefix, databaseId }: RedisQuestion): Promise<RedisFacts> {
  const watched = openRedis(target, 'consumer', () => undefined)
  try {
    const infos = await answer(watched, readInfos(watched.redis, prefix), 'asking Redis').catch((error: unknown) => {
      // A server without TLS reads what opens TLS as the beginning of a command, and waits for the rest.
      throw error instanceof QueueTimeoutError && target.login.tls
        ? new QueueUnavailableError('no answer, and REDIS_URL asks for TLS', {
            todo: 'Does the port speak TLS? If not, use redis:// instead of rediss://.',
          })
        : error
    })
    const servers = infos.map(({ name, info }) => readServer(infos.length > 1 ? ` of ${name}` : '', info))
    const findings = servers.flatMap(serverFindings)
    if (target.kind !== 'redis-cluster' && servers[0]?.inCluster === true) {
      findings.push(
        grave(
          'It is a node of a cluster. Use the form for a cluster: redis+cluster://user:password@host:port,host:port',
        ),
      )
    }
    if (target.kind === 'redis-sentinel' && servers[0]?.replicas === 0) {
      findings.push(
        note('The primary has no replica that is connected: there is nothing to fail over to. Look at the replicas.'),
      )
    }
    const facts = { summary: summaryOf(target, servers), findings }
    // Each of these says why a write would fail.
    if (findings.some(({ grave }) => grave)) return { ...facts, refusal: null }
    const refusal = await answer(watched, tryWork(watched.redis, prefix), 'writing to Redis').then(
      (missing) => {
        if (missing.length > 0) findings.push(grave(missingCommands(missing)))
        return null
      },
      (error: unknown) => error as Error,
    )
    if (refusal === null && databaseId !== null) {
      const databases = await answer(watched, readDatabases(watched.redis, prefix), 'reading from Redis')
      if (databases.some((id) => id !== databaseId))
        findings.push(grave(`Another system lives there: ${sharedMessage}.`))
    }
    return { ...facts, refusal }
  } finally {
    watched.disconnect()
  }
}

const grave = (todo: string): RedisFinding => ({ grave: true, todo })
const note = (todo: string): RedisFinding => ({ grave: false, todo })

async function answer<T>({ failure }: WatchedRedis, asking: Promise<T>, what: string): Promise<T> {
  return within(asking, timeoutMs, what).catch((error: unknown) => {
    throw failure() ?? inOwnWords(error as Error)
  })
}

async function readInfos(redis: Redis | Cluster, prefix: string): Promise<{ name: string; info: string }[]> {
  if (!('nodes' in redis)) {
    // A server that is still loading answers this, and is never ready.
    if (redis.status !== 'ready' && redis.status !== 'connect') {
      await new Promise<void>((resolve) => redis.once('connect', () => resolve()))
    }
    return [{ name: '', info: await redis.info() }]
  }
  // A command waits until the slots are known; only then the primaries are.
  await redis.exists(`${prefix}:doctor`)
  return Promise.all(
    redis.nodes('master').map(async (node) => {
      const { host, port } = node.options
      return { name: `${host}:${port}`, info: await node.info() }
    }),
  )
}

/** What BullMQ's scripts call most, and what it waits with. A user who lacks one of them stops the queue at some moment. */
const commands =
  'BZPOPMIN DEL EXISTS GET HDEL HGET HGETALL HINCRBY HMGET HMSET HSET INCR LLEN LPOS LPUSH LRANGE LREM PEXPIRE PTTL RPOPLPUSH ' +
  'RPUSH SADD SCARD SET SREM TIME UNLINK XADD XTRIM ZADD ZCARD ZPOPMIN ZRANGE ZRANGEBYSCORE ZREM ZREMRANGEBYSCORE ZSCORE'

// Some take several keys, and a user may be bound to those of the prefix: nothing else is named.
const findMissing = `
local missing = {}
for word in string.gmatch(ARGV[1], '%u+') do
  if not redis.acl_check_cmd(word, KEYS[1], KEYS[1], KEYS[1]) then table.insert(missing, word) end
end
return missing`

/** Writes, and returns the commands of the queue that the user may not run. */
async function tryWork(redis: Redis | Cluster, prefix: string): Promise<string[]> {
  const missing = (await redis.eval(findMissing, 1, `${prefix}:doctor`, commands)) as string[]
  if (missing.length === 0) await tryWrite(redis, prefix)
  return missing
}

function missingCommands(missing: readonly string[]): string {
  const rules = missing.map((command) => `+${command.toLowerCase()}`).join(' ')
  return `The user may not run ${missing.join(', ')} on the keys of the queue. Run: ACL SETUSER <user of REDIS_URL> ${rules}`
}

interface Server {
  /** ` of <address>` where there are several. */
  name: string
  version: string
  major: number
  policy: string
  appendonly: boolean
  replicas: number
  isReplica: boolean
  isLoading: boolean
  inCluster: boolean
}

function readServer(name: string, info: string): Server {
  const field = (label: string): string => new RegExp(`^${label}:(.*)\\r?$`, 'm').exec(info)?.[1]?.trim() ?? ''
  const version = field('redis_version')
  return {
    name,
    version,
    major: Number.parseInt(version, 10),
    policy: field('maxmemory_policy'),
    appendonly: field('aof_enabled') === '1',
    replicas: Number(field('connected_slaves')),
    isReplica: field('role') === 'slave',
    isLoading: field('loading') === '1',
    inCluster: field('cluster_enabled') === '1',
  }
}

const forms = { redis: '', 'redis-cluster': ', cluster', 'redis-sentinel': ', by sentinels' }

function summaryOf(target: RedisAddress, servers: readonly Server[]): string {
  const [oldest] = servers.toSorted((a, b) => a.major - b.major)
  const count = target.kind === 'redis-cluster' ? ` of ${servers.length} primaries` : ''
  const policies = [...new Set(servers.map(({ policy }) => policy))].join(' and ')
  const aof = servers.every(({ appendonly }) => appendonly) ? 'on' : 'off'
  return `Redis ${oldest?.version ?? 'unknown'}${forms[target.kind]}${count}, ${policies}, AOF ${aof}`
}

function serverFindings({ name, version, major, policy, appendonly, isReplica, isLoading }: Server): RedisFinding[] {
  const findings: RedisFinding[] = []
  // A Redis that is too old breaks BullMQ; one that forgets only costs time, because Postgres is the truth.
  if (major < 7) findings.push(grave(`Redis ${version}${name} is older than 7.0. Upgrade it.`))
  if (isReplica) {
    findings.push(
      grave(
        `The server${name} is a replica and takes no writes. Let REDIS_URL name the primary, or use the form redis+sentinel://, which follows it.`,
      ),
    )
  }
  if (isLoading) findings.push(grave(`The server${name} still reads its data after a start. Wait; it ends by itself.`))
  if (policy !== 'noeviction') {
    findings.push(
      note(
        `maxmemory-policy${name} is ${policy}: Redis may drop queue entries under memory pressure (they come back from Postgres, slowly). Set: maxmemory-policy noeviction`,
      ),
    )
  }
  if (!appendonly) {
    findings.push(
      note(
        `AOF${name} is off: after a restart of Redis the queue is refilled from Postgres, which takes a while. Set: appendonly yes`,
      ),
    )
  }
  return findings
}
