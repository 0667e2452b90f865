import pg from 'pg'
import { importPeer } from './import-peer.ts'
import type { Peer } from './peer.ts'

/** What is used of graphile-worker 0.17; declared here so that the types check without it. */
interface GraphileWorker {
  makeWorkerUtils(options: { connectionString: string; maxPoolSize: number }): Promise<{
    migrate(): Promise<void>
    addJob(task: string, payload: object, spec: { jobKey: string }): Promise<unknown>
    addJobs(jobs: readonly { identifier: string; payload: object; jobKey: string }[]): Promise<unknown>
    release(): Promise<void>
  }>
  run(options: {
    preset: { worker: Record<string, unknown> }
    taskList: Record<string, () => Promise<void>>
    noHandleSignals: boolean
  }): Promise<{ stop(): Promise<void> }>
}

const task = 'ask'

/**
 * `addJob` with a job key, `addJobs` for many, and a worker set as its page on performance shows: a local queue, and
 * completions written in batches. It has no results: a job that is done is a row that is gone.
 */
export async function openGraphileWorker(databaseUrl: string): Promise<Peer> {
  const { makeWorkerUtils, run } = await importPeer<GraphileWorker>('graphile-worker')
  const utils = await makeWorkerUtils({ connectionString: databaseUrl, maxPoolSize: 20 })
  const pool = new pg.Pool({ connectionString: databaseUrl, max: 1 })
  let runner: { stop(): Promise<void> } | undefined
  let there = 0
  const left = async (): Promise<number> => {
    const { rows } = await pool.query<{ count: string }>('select count(*) from graphile_worker._private_jobs')
    return Number(rows[0]?.count)
  }
  return {
    setUp: () => utils.migrate(),
    submit: async ({ key, payload }) => void (await utils.addJob(task, payload, { jobKey: key })),
    submitMany: async (jobs) =>
      void (await utils.addJobs(jobs.map(({ key, payload }) => ({ identifier: task, payload, jobKey: key })))),
    async work(concurrency, _answer, onStarted) {
      there = await left()
      runner = await run({
        preset: {
          worker: {
            connectionString: databaseUrl,
            concurrentJobs: concurrency,
            maxPoolSize: 20,
            localQueue: { size: 500 },
            completeJobBatchDelay: 0,
            failJobBatchDelay: 0,
            // It writes three lines a job otherwise.
            logger: await quietLogger(),
          },
        },
        taskList: {
          [task]: () => {
            onStarted()
            return Promise.resolve()
          },
        },
        noHandleSignals: true,
      })
    },
    finished: async () => there - (await left()),
    async close() {
      await runner?.stop()
      await pool.end()
      await utils.release()
    },
  }
}

async function quietLogger(): Promise<unknown> {
  const { Logger } = await importPeer<{ Logger: new (factory: () => () => void) => unknown }>('graphile-worker')
  return new Logger(() => () => undefined)
}
