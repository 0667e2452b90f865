import { redisAddress, tlsAdvice } from '@askonce/address'
import type { Config } from '@askonce/config'
import { explainCode } from '@askonce/core'
import { innermostCode } from '@askonce/telemetry'
import { databaseUrl } from '../database.ts'
import { libraryWords } from '../roles/library-lines.ts'
import { type Check, ok, problem, warn } from './check.ts'

const untilThen = 'Until then jobs are accepted and wait.'

/** Redis, if there is one: reachable, lets the queue work, new enough, never evicting, on disk, and no other system's. */
export async function checkRedis(config: Config): Promise<Check[]> {
  if (config.redis.url === null) return []
  const printed = console.warn
  const words = new Set<string>()
  // What the client prints would stand above our own report.
  console.warn = (text: unknown): void => {
    words.add(libraryWords(text) ?? 'its client gave a warning, which is not repeated here')
  }
  try {
    const checks = await askRedis(config)
    return [...checks, ...[...words].map((text) => warn('redis', text, 'Correct REDIS_URL, or the server.'))]
  } finally {
    console.warn = printed
  }
}

async function askRedis(config: Config): Promise<Check[]> {
  const { redis } = config
  if (redis.url === null) return []
  const { checkRedis: ask, QueueUnavailableError } = await import('@askonce/queue')
  /** The texts of Redis and of its client are not shown: they may hold what was sent. */
  const refused = (error: unknown, subject: string): Check => {
    const code = innermostCode(error)
    const known = code === undefined ? undefined : explainCode(code)
    const ours = error instanceof QueueUnavailableError ? error : null
    const reason = [ours?.message, code, known?.meaning].filter((part) => part !== undefined).join(', ')
    const todo = ours?.todo ?? tlsAdvice(error, 'redis') ?? known?.todo ?? 'Is it running, and is REDIS_URL right?'
    return problem('redis', `${subject}: ${reason === '' ? 'a bug, please report it' : reason}`, `${todo} ${untilThen}`)
  }
  try {
    const question = { prefix: redis.prefix, databaseId: await ownDatabaseId(config) }
    const { summary, findings, refusal } = await ask(redisAddress(redis.url.reveal(), redis.files), question)
    const checks = findings.map(({ grave, todo }) =>
      grave ? problem('redis', `${summary}, but the queue cannot rely on it`, todo) : warn('redis', summary, todo),
    )
    if (refusal !== null) checks.unshift(refused(refusal, `${summary}, but it refuses what the queue needs`))
    return checks.length === 0 ? [ok('redis', summary)] : checks
  } catch (error) {
    const away = isAway(innermostCode(error)) ? 'does not answer' : 'cannot be used'
    return [refused(error, `${String(redis.url)} ${away}`)]
  }
}

/** Codes of the system and of the network, rather than words of a Redis that answered. */
function isAway(code: string | undefined): boolean {
  return code?.startsWith('E') === true && !code.startsWith('ERR')
}

/** Null where the database cannot be asked, which is another check's to say. */
async function ownDatabaseId(config: Config): Promise<string | null> {
  const url = databaseUrl(config)
  if (url === null) return null
  const { readDatabaseId } = await import('@askonce/store')
  return readDatabaseId(url).catch(() => null)
}
