import pg from 'pg'
import { importPeer } from './import-peer.ts'
import type { Peer } from './peer.ts'

/** What is used of the DBOS SDK 5; declared here so that the types check without it. */
interface DbosModule {
  DBOS: {
    setConfig(config: object): void
    launch(): Promise<void>
    registerWorkflow(run: (payload: object) => Promise<object>, config: { name: string }): unknown
    registerQueue(
      name: string,
      options: { workerConcurrency?: number; minPollingIntervalMs?: number },
    ): Promise<unknown>
    runStep<T>(run: () => Promise<T>, config: { name: string }): Promise<T>
  }
  DBOSClient: {
    create(options: { systemDatabaseUrl: string; systemDatabasePoolSize: number; applicationName: string }): Promise<{
      enqueue(options: object, payload: object): Promise<unknown>
      destroy(): Promise<void>
    }>
  }
}

const applicationName = 'bench'
const queueName = 'bench'
const workflowName = 'ask'
/** Of its default pool of 10 connections it is the concurrency of submissions that waits. */
const poolSize = 20
const quiet = { info: skip, debug: skip, warn: report, error: report }

/**
 * Submissions through its client, which is what it offers to processes that do not run workflows, with the key as the
 * workflow's id; workflows of one step on a queue. It looks at a queue once a second by default: here every 100 ms.
 */
export async function openDbos(databaseUrl: string): Promise<Peer> {
  const { DBOS, DBOSClient } = await importPeer<DbosModule>('@dbos-inc/dbos-sdk')
  const pool = new pg.Pool({ connectionString: databaseUrl, max: 1 })
  let answerNow = none
  // Registered before the launch, as it demands; launched only where jobs are worked, and once to make the schema.
  DBOS.registerWorkflow(() => DBOS.runStep(() => Promise.resolve(answerNow()), { name: 'call' }), {
    name: workflowName,
  })
  DBOS.setConfig({
    name: applicationName,
    systemDatabaseUrl: databaseUrl,
    systemDatabasePoolSize: poolSize,
    applicationVersion: '1',
    logger: quiet,
    // Nothing is taken before work() registers the queue.
    logLevel: 'error',
  })
  await DBOS.launch()
  const client = await DBOSClient.create({
    systemDatabaseUrl: databaseUrl,
    systemDatabasePoolSize: poolSize,
    applicationName,
  })
  return {
    setUp: () => Promise.resolve(),
    submit: async ({ key, payload }) =>
      void (await client.enqueue({ queueName, workflowName, workflowID: key, appVersion: '1' }, payload)),
    submitMany: null,
    async work(concurrency, answer, onStarted) {
      answerNow = () => {
        onStarted()
        return answer
      }
      await DBOS.registerQueue(queueName, { workerConcurrency: concurrency, minPollingIntervalMs: 100 })
    },
    async finished() {
      const { rows } = await pool.query<{ count: string }>(
        `select count(*) from dbos.workflow_status where queue_name = $1 and status = 'SUCCESS'`,
        [queueName],
      )
      return Number(rows[0]?.count)
    },
    async close() {
      await client.destroy()
      await pool.end()
    },
  }
}

function none(): object {
  return {}
}

function skip(): void {}

function report(message: unknown): void {
  process.stderr.write(`${String(message)}\n`)
}
