import PgBoss from 'pg-boss'
import { answerSha } from '../record.ts'
import { open, requestOf, sha256, type Backend } from './backend.ts'
import { callLikeSdk } from './sdk-call.ts'

const name = 'llm'
/** The longest that a key may be unique for: as long as completed jobs stay before they are archived, 12 hours by default. */
const singletonSeconds = 12 * 3_600
/** The default is 15 minutes; its documentation says to set what a job may take. A minute leaves room for the SDK's retries. */
const expireInSeconds = 60

async function start(databaseUrl: string, maintenance: boolean): Promise<PgBoss> {
  const boss = new PgBoss({
    connectionString: databaseUrl,
    schedule: false,
    supervise: maintenance,
    // Jobs of dead workers are found by the maintenance; every two minutes by default, here in its favour every ten seconds.
    maintenanceIntervalSeconds: 10,
  })
  boss.on('error', () => undefined)
  await boss.start()
  return boss
}

/** Made once, before producers and workers start. */
export async function createPgBossQueue(databaseUrl: string): Promise<void> {
  const boss = await start(databaseUrl, false)
  await boss.createQueue(name)
  await boss.stop({ graceful: false })
}

/**
 * The producer's side: `singletonKey` with `singletonSeconds` makes the key unique, finished jobs included; the id is made from
 * the key, so that a producer that crashed finds its job again.
 */
export async function pgBossBackend(databaseUrl: string): Promise<Backend> {
  const boss = await start(databaseUrl, false)
  return {
    async submit(key) {
      // Null: it is there already.
      await boss.send(
        name,
        { request: requestOf(key) },
        {
          id: idOf(key),
          singletonKey: key,
          singletonSeconds,
          retryLimit: 3,
          retryDelay: 1,
          retryBackoff: true,
          expireInSeconds,
        },
      )
    },
    async read(key) {
      const job = await boss.getJobById(name, idOf(key))
      if (job === null) return open
      if (job.state === 'completed') return { how: 'answered', sha: answerSha(job.output) }
      return job.state === 'failed' ? { how: 'failed', sha: null } : open
    },
    close: () => boss.stop({ graceful: false }),
  }
}

/** The worker's side: one fetching loop for each call that may run at once; the handler's result is the job's output. */
export async function pgBossWorker(
  databaseUrl: string,
  upstreamUrl: string,
  concurrency: number,
  timeoutMs: number,
): Promise<void> {
  const boss = await start(databaseUrl, true)
  for (let loop = 0; loop < concurrency; loop += 1) {
    await boss.work<{ request: object }>(name, { pollingIntervalSeconds: 0.5 }, async ([job]) =>
      job === undefined ? undefined : await callLikeSdk(upstreamUrl, job.data.request, timeoutMs),
    )
  }
}

/** A UUID that is a function of the key. */
function idOf(key: string): string {
  const hex = sha256(key)
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-5${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}
