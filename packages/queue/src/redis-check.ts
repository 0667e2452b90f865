import { openRedis } from './connection.ts'
import { within } from './within.ts'

export interface RedisFacts {
  version: string
  maxmemoryPolicy: string
  appendonly: boolean
  /** What an operator should mend, each with what to do. */
  problems: string[]
}

/** What `doctor` asks a Redis. Rejects when it does not answer. */
export async function checkRedis(url: string): Promise<RedisFacts> {
  let failure: Error | undefined
  const redis = openRedis(url, 'consumer', (error) => (failure = error))
  try {
    const info = await within(redis.info(), 3_000, 'asking Redis').catch((error: unknown) => {
      throw failure ?? error
    })
    const field = (name: string): string => new RegExp(`^${name}:(.*)\\r?$`, 'm').exec(info)?.[1]?.trim() ?? ''
    const version = field('redis_version')
    const maxmemoryPolicy = field('maxmemory_policy')
    const appendonly = field('aof_enabled') === '1'
    const problems: string[] = []
    if (Number.parseInt(version, 10) < 7) problems.push(`Redis ${version} is older than 7.0. Upgrade it.`)
    if (maxmemoryPolicy !== 'noeviction') {
      problems.push(
        `maxmemory-policy is ${maxmemoryPolicy}: Redis may drop queue entries under memory pressure (they come back from Postgres, slowly). Set: maxmemory-policy noeviction`,
      )
    }
    if (!appendonly) {
      problems.push(
        'AOF is off: after a restart of Redis the queue is refilled from Postgres, which takes a while. Set: appendonly yes',
      )
    }
    return { version, maxmemoryPolicy, appendonly, problems }
  } finally {
    redis.disconnect()
  }
}
