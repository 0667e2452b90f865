import { ConfigError, loadConfig, redisAddress, type Config } from '@askonce/config'
import type { QueueConnection } from '@askonce/queue'
import { databaseUrl } from '../database.ts'
import { exitCodes, refusal } from '../errors.ts'

/** The configuration, or a {@link refusal} that lists every problem. */
export function readConfig(): Config {
  try {
    return loadConfig()
  } catch (error) {
    if (error instanceof ConfigError) {
      throw refusal(
        `the configuration has problems:\n${error.problems.map((problem) => `  - ${problem}`).join('\n')}`,
        exitCodes.usage,
      )
    }
    throw error
  }
}

/**
 * The database server that a separate role or a maintenance command works on, never a pooler: DATABASE_DIRECT_URL, DATABASE_URL, or the
 * embedded one that is running.
 */
export function databaseUrlOf(config: Config): string {
  const found = databaseUrl(config)
  if (found !== null) return found
  throw refusal(
    `no database: set DATABASE_URL, or run \`npm start\`, whose embedded database in ${config.dataDir} is then used.`,
    exitCodes.usage,
  )
}

/** The pooler in transaction mode in front of the database; null: there is none. */
export function poolerUrlOf({ database: { directUrl, url } }: Config): string | null {
  return directUrl === null ? null : (url?.reveal() ?? null)
}

/** Where BullMQ keeps its queues: Redis if there is one, else the same Postgres. */
export function queueOf(config: Config, postgresUrl: string): QueueConnection {
  const redis = config.redis.url?.reveal()
  return redis === undefined
    ? { kind: 'postgres', url: postgresUrl }
    : { ...redisAddress(redis), prefix: config.redis.prefix }
}
