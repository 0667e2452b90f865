import { redisAddress, tlsAdvice } from '@askonce/address'
import type { Config } from '@askonce/config'
import { reasonOf } from '../errors.ts'
import { type Check, ok, problem, warn } from './check.ts'

/** Redis, if there is one: reachable, new enough, never evicting, on disk. */
export async function checkRedis({ redis }: Config): Promise<Check[]> {
  if (redis.url === null) return []
  const queue = await import('@askonce/queue')
  try {
    const { version, summary, problems } = await queue.checkRedis(redisAddress(redis.url.reveal(), redis.files))
    if (problems.length === 0) return [ok('redis', summary)]
    // A Redis that is too old breaks BullMQ; one that forgets only costs time, because Postgres is the truth.
    const broken = Number.parseInt(version, 10) < 7
    return problems.map((todo, index) => (broken && index === 0 ? problem : warn)('redis', summary, todo))
  } catch (error) {
    const detail = `${String(redis.url)} does not answer: ${reasonOf(error)}`
    // What a server says of TLS before it hangs up is often lost.
    const tls = String(redis.url).startsWith('rediss')
      ? 'Does it speak TLS on that port, and does it ask for a certificate (ASKONCE_REDIS_CERT_FILE, ASKONCE_REDIS_KEY_FILE)?'
      : 'If it speaks TLS on that port, REDIS_URL begins with rediss.'
    const todo = `Is it running, and is REDIS_URL right? ${tls} Until then jobs are accepted and wait.`
    return [problem('redis', detail, tlsAdvice(error, 'redis') ?? todo)]
  }
}
