import type { RedisAddress } from '@askonce/address'
import type { Cluster, Redis } from 'ioredis'
import { openRedis } from './redis.ts'
import { within } from './within.ts'

export interface RedisFacts {
  /** The oldest of its servers. */
  version: string
  /** One line for people. */
  summary: string
  /** What an operator should mend, each with what to do. */
  problems: string[]
}

const timeoutMs = 3_000

/** What `doctor` asks a Redis: the server, every primary of a cluster, or the primary that the sentinels name. Rejects when it does not answer. */
export async function checkRedis(target: RedisAddress): Promise<RedisFacts> {
  let failure: Error | undefined
  const redis = openRedis(target, 'consumer', (error) => (failure = error))
  try {
    const infos = await within(readInfos(redis), timeoutMs, 'asking Redis').catch((error: unknown) => {
      throw failure ?? error
    })
    const servers = infos.map(({ name, info }) => readServer(infos.length > 1 ? ` of ${name}` : '', info))
    const [first] = servers.toSorted((a, b) => a.major - b.major)
    const problems = servers.flatMap(serverProblems)
    if (target.kind === 'redis-sentinel' && servers[0]?.replicas === 0) {
      problems.push(
        'The primary has no replica that is connected: there is nothing to fail over to. Look at the replicas.',
      )
    }
    const form = {
      redis: '',
      'redis-cluster': `, cluster of ${servers.length} primaries`,
      'redis-sentinel': ', by sentinels',
    }
    const policies = [...new Set(servers.map(({ policy }) => policy))].join(' and ')
    const aof = servers.every(({ appendonly }) => appendonly) ? 'on' : 'off'
    const version = first?.version ?? 'unknown'
    return { version, summary: `Redis ${version}${form[target.kind]}, ${policies}, AOF ${aof}`, problems }
  } finally {
    redis.disconnect()
  }
}

async function readInfos(redis: Redis | Cluster): Promise<{ name: string; info: string }[]> {
  if (!('nodes' in redis)) return [{ name: '', info: await redis.info() }]
  // A command waits until the slots are known; only then the primaries are.
  await redis.exists('{askonce}:doctor')
  return Promise.all(
    redis.nodes('master').map(async (node) => {
      const { host, port } = node.options
      return { name: `${host}:${port}`, info: await node.info() }
    }),
  )
}

interface Server {
  /** ` of <address>` where there are several. */
  name: string
  version: string
  major: number
  policy: string
  appendonly: boolean
  replicas: number
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
  }
}

function serverProblems({ name, version, major, policy, appendonly }: Server): string[] {
  const problems: string[] = []
  if (major < 7) problems.push(`Redis ${version}${name} is older than 7.0. Upgrade it.`)
  if (policy !== 'noeviction') {
    problems.push(
      `maxmemory-policy${name} is ${policy}: Redis may drop queue entries under memory pressure (they come back from Postgres, slowly). Set: maxmemory-policy noeviction`,
    )
  }
  if (!appendonly) {
    problems.push(
      `AOF${name} is off: after a restart of Redis the queue is refilled from Postgres, which takes a while. Set: appendonly yes`,
    )
  }
  return problems
}
