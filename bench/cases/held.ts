import { freePort } from '@askonce/embedded'
import pg from 'pg'
import { nameOf, withAskonce, type Askonce, type Form } from '../askonce.ts'
import { until, type Bench } from '../bench.ts'
import { apart, type Case, type Contender, type Measured } from '../case.ts'
import { endedAttempts } from '../metrics.ts'
import { peerTitles, runPeer } from '../peer.ts'
import type { PeerName, Progress } from '../peers/peer.ts'

const concurrency = 200
/** What is slowed down by dead rows may never be done: then what counts is how far it came. */
const limitMs = (bench: Bench): number => bench.pick(120_000, 20_000)

/** Opens a transaction that goes on seeing what is there now, as a dump or a forgotten session does: no row that dies from now on may go. */
async function holdSnapshot(url: string): Promise<() => Promise<void>> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => undefined)
  await client.connect()
  await client.query('begin isolation level repeatable read')
  await client.query('select 1')
  return () => client.end().catch(() => undefined)
}

/**
 * The pace of the first and of the last quarter of what was done. `at`: seconds at which the nth was. A process is slow until its hot parts
 * are compiled: the first fiftieth is not counted.
 */
async function pace(done: number, at: (n: number) => number | Promise<number>): Promise<Measured> {
  const rate = async (from: number, to: number): Promise<number> => (to - from) / ((await at(to)) - (await at(from)))
  const quarter = Math.floor(done / 4)
  const first = await rate(Math.ceil(done / 50), quarter)
  const last = await rate(done - quarter, done)
  return { 'last ÷ first': last / first, 'first quarter': first, 'last quarter': last, done }
}

async function claimedAt(system: Askonce, n: number): Promise<number> {
  const [row] = await system.sql<{ at: number }>(
    'select extract(epoch from started_at)::float8 as at from attempts order by started_at offset $1 limit 1',
    [n - 1],
  )
  return row?.at ?? Number.NaN
}

function askonce(bench: Bench, form: Form, count: number): Contender {
  return {
    name: nameOf[form],
    measure: () =>
      withAskonce(bench, form, async (system) => {
        const address = await system.api()
        await system.fill(address, count)
        await system.janitor()
        const release = await holdSnapshot(system.databaseUrl)
        const healthPort = await freePort()
        const worker = await system.worker({
          ASKONCE_CONCURRENCY: String(concurrency),
          ASKONCE_SIMULATED_LATENCY_MS: '0',
          ASKONCE_HEALTH_PORT: String(healthPort),
        })
        const givenUpAt = performance.now() + limitMs(bench)
        await until(
          bench.signal,
          () => endedAttempts(healthPort),
          (ended) => ended >= count || performance.now() > givenUpAt,
          limitMs(bench) * 2,
        )
        await worker.kill()
        await release()
        const [row] = await system.sql<{ claims: number }>('select count(*)::int as claims from attempts')
        return await pace(row?.claims ?? 0, (n) => claimedAt(system, n))
      }),
  }
}

/** When the nth was finished, between two looks as if they were finished one after the other. */
function finishedAt(progress: readonly Progress[], n: number): number {
  const after = progress.findIndex(({ finished }) => finished >= n)
  const to = progress[after]
  const from = progress[after - 1] ?? { seconds: 0, finished: 0 }
  if (to === undefined) return Number.NaN
  return from.seconds + ((to.seconds - from.seconds) * (n - from.finished)) / (to.finished - from.finished)
}

function peer(bench: Bench, name: PeerName, count: number): Contender {
  return {
    name: peerTitles[name],
    async measure() {
      const database = await bench.cleanDatabase()
      await runPeer(bench, name, database.url, { kind: 'fill', prefix: bench.fresh('held'), count })
      const release = await holdSnapshot(database.url)
      const task = {
        kind: 'drain',
        count,
        concurrency,
        limitMs: limitMs(bench),
        // Some count rows to know what is finished, dead ones among them.
        pollMs: bench.pick(1_000, 50),
      } as const
      const { count: done, progress = [] } = await runPeer(bench, name, database.url, task)
      await release()
      await database.drop()
      return await pace(done, (n) => finishedAt(progress, n))
    },
  }
}

const figure = 'last ÷ first'

export const held: Case = {
  name: 'held',
  title:
    'Drain under a held snapshot: the pace of the last quarter beside that of the first; 200,000 jobs, two minutes at most',
  figures: [
    { name: figure, unit: 'times' },
    { name: 'first quarter', unit: 'jobs/s' },
    { name: 'last quarter', unit: 'jobs/s' },
    { name: 'done', unit: 'jobs' },
  ],
  targets: [
    { figure, of: 'Askonce', against: null, bound: 'at least', factor: 0.8 },
    { figure, of: 'Askonce without Redis', against: null, bound: 'at least', factor: 0.8 },
  ],
  // Minutes each.
  rounds: 1,
  open(bench) {
    const count = bench.pick(200_000, 1_000)
    return Promise.resolve(
      apart([
        askonce(bench, 'redis', count),
        askonce(bench, 'embedded', count),
        peer(bench, 'bullmq-postgres', count),
        peer(bench, 'pg-boss', count),
        peer(bench, 'graphile-worker', count),
      ]),
    )
  },
}
