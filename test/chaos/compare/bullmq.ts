import { Queue, Worker } from 'bullmq'
import { answerSha } from '../record.ts'
import { open, requestOf, sha256, type Backend } from './backend.ts'
import { callLikeSdk } from './sdk-call.ts'

const name = 'llm'

function connectionOf(url: string): { host: string; port: number } {
  const { hostname, port } = new URL(url)
  return { host: hostname, port: Number(port) }
}

/**
 * The producer's side as BullMQ's guide writes it: the key makes the jobId, so that adding it again does nothing; three
 * attempts with exponential backoff; completed jobs, and with them the answers, are kept by age; and a connection that fails
 * fast while Redis is away, so that nothing counts as accepted that is not in Redis.
 */
export function bullmqBackend(redisUrl: string): Backend {
  const queue = new Queue(name, {
    connection: { ...connectionOf(redisUrl), enableOfflineQueue: false, maxRetriesPerRequest: 1 },
    defaultJobOptions: {
      attempts: 3,
      backoff: { type: 'exponential', delay: 1_000 },
      removeOnComplete: { age: 3_600 },
      removeOnFail: { age: 24 * 3_600 },
    },
  })
  queue.on('error', () => undefined)
  const idOf = (key: string): string => `k${sha256(key)}`
  return {
    async submit(key) {
      await queue.add('ask', { request: requestOf(key) }, { jobId: idOf(key) })
    },
    async read(key) {
      const job = await queue.getJob(idOf(key))
      if (job === undefined) return open
      if (await job.isCompleted()) return { how: 'answered', sha: answerSha(job.returnvalue) }
      return (await job.isFailed()) ? { how: 'failed', sha: null } : open
    },
    close: () => queue.close(),
  }
}

/** The worker's side: the answer is the return value. Lock, stalled checks and their limits are the defaults. */
export function bullmqWorker(redisUrl: string, upstreamUrl: string, concurrency: number, timeoutMs: number): void {
  const worker = new Worker<{ request: object }>(name, (job) => callLikeSdk(upstreamUrl, job.data.request, timeoutMs), {
    connection: connectionOf(redisUrl),
    concurrency,
  })
  worker.on('error', () => undefined)
}
