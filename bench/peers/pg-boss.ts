import pg from 'pg'
import PgBoss from 'pg-boss'
import type { Peer } from './peer.ts'

const name = 'bench'
/** The longest that a key may be unique for: as long as completed jobs stay before they are archived. */
const singletonSeconds = 12 * 3_600
/** Loops that fetch, each a batch at a time. */
const batchSize = 100

/** `send` with a singleton key, `insert` for many, and workers that fetch in batches, as its documentation says for throughput. */
export async function openPgBoss(databaseUrl: string): Promise<Peer> {
  const boss = new PgBoss({ connectionString: databaseUrl, schedule: false, max: 20 })
  boss.on('error', (error) => {
    process.stderr.write(`${error.message}\n`)
  })
  const pool = new pg.Pool({ connectionString: databaseUrl, max: 1 })
  await boss.start()
  return {
    setUp: () => boss.createQueue(name),
    submit: async ({ key, payload }) =>
      void (await boss.send(name, payload, { singletonKey: key, singletonSeconds, retryLimit: 3 })),
    submitMany: (jobs) =>
      boss.insert(jobs.map(({ key, payload }) => ({ name, data: payload, singletonKey: key, singletonSeconds }))),
    async work(concurrency, answer, onStarted) {
      for (let loop = 0; loop < Math.max(1, concurrency / batchSize); loop += 1) {
        await boss.work(name, { batchSize, pollingIntervalSeconds: 0.5 }, () => {
          onStarted()
          return Promise.resolve(answer)
        })
      }
    },
    async finished() {
      const { rows } = await pool.query<{ count: string }>(
        `select count(*) from pgboss.job where name = $1 and state = 'completed'`,
        [name],
      )
      return Number(rows[0]?.count)
    },
    async close() {
      await pool.end()
      await boss.stop({ graceful: false })
    },
  }
}
