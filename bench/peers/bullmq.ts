import { createPostgresBackend, Queue, runMigrations, Worker, type BackendFactory, type IQueueBackend } from 'bullmq'
import pg from 'pg'
import type { Peer } from './peer.ts'

const name = 'bench'

type AnyQueue = Queue<object, object, string, object, object, string, IQueueBackend>
type AnyWorker = Worker<object, object, string, IQueueBackend>

/**
 * As its guide writes it: the key is the jobId, finished jobs and their results are kept by age. On Redis with a connection
 * for producers that fails fast, on Postgres with the pool sizes that Askonce gives it.
 */
export async function openBullmq(server: { kind: 'redis' | 'postgres'; url: string }): Promise<Peer> {
  const { hostname, port } = new URL(server.url)
  const redis = { host: hostname, port: Number(port) }
  const backend = createPostgresBackend as unknown as BackendFactory
  const postgres = (max: number): object => ({ connectionString: server.url, max })
  const keep = { removeOnComplete: { age: 3_600 }, removeOnFail: { age: 24 * 3_600 } }

  if (server.kind === 'postgres') {
    const client = new pg.Client({ connectionString: server.url })
    await client.connect()
    await runMigrations(client)
    await client.end()
  }
  const queue: AnyQueue =
    server.kind === 'redis'
      ? new Queue(name, { connection: { ...redis, maxRetriesPerRequest: 1 }, defaultJobOptions: keep })
      : new Queue(name, { connection: postgres(10), defaultJobOptions: keep }, backend)
  let worker: AnyWorker | undefined
  let done = 0

  return {
    setUp: () => queue.waitUntilReady(),
    submit: async ({ key, payload }) => void (await queue.add('ask', payload, { jobId: key })),
    submitMany: async (jobs) =>
      void (await queue.addBulk(
        jobs.map(({ key, payload }) => ({ name: 'ask', data: payload, opts: { jobId: key } })),
      )),
    async work(concurrency, answer, onStarted) {
      const handle = (): Promise<object> => {
        onStarted()
        return Promise.resolve(answer)
      }
      worker =
        server.kind === 'redis'
          ? new Worker(name, handle, { connection: redis, concurrency })
          : new Worker(name, handle, { connection: postgres(10), concurrency }, backend)
      worker.on('completed', () => {
        done += 1
      })
      worker.on('error', (error) => {
        process.stderr.write(`${error.message}\n`)
      })
      await worker.waitUntilReady()
    },
    finished: () => done,
    async close() {
      await worker?.close(true)
      await queue.close()
    },
  }
}
