import { withAskonce, type Askonce } from '../askonce.ts'
import { until, type Bench } from '../bench.ts'
import { apart, type Case, type Contender } from '../case.ts'

const concurrency = 25
const latencyMs = 200
/** What one worker cannot do more of. */
const mostPerSecond = (concurrency * 1000) / latencyMs

const nameOf = (workers: number): string => (workers === 1 ? '1 worker' : `${workers} workers`)

/** Ended jobs a second without the first and the last tenth: while work comes in, and when it no longer fills every worker. */
async function steadyRate(system: Askonce, count: number): Promise<number> {
  const [row] = await system.sql<{ seconds: number }>(
    `select extract(epoch from percentile_disc(0.9) within group (order by completed_at)
          - percentile_disc(0.1) within group (order by completed_at))::float8 as seconds from jobs`,
  )
  return (count * 0.8) / (row?.seconds ?? Number.NaN)
}

function contender(bench: Bench, workers: number): Contender {
  return {
    name: nameOf(workers),
    measure: () =>
      withAskonce(bench, 'redis', async (system) => {
        const count = Math.round(mostPerSecond * workers * bench.pick(5, 2))
        const address = await system.api()
        await system.janitor()
        const env = { ASKONCE_CONCURRENCY: String(concurrency), ASKONCE_SIMULATED_LATENCY_MS: String(latencyMs) }
        // All of them are there before there is work.
        await Promise.all(Array.from({ length: workers }, () => system.worker(env)))
        await system.fill(address, count)
        await until(
          bench.signal,
          () => system.count('succeeded'),
          (done) => done === count,
          120_000,
        )
        return { rate: await steadyRate(system, count) }
      }),
  }
}

export const widen: Case = {
  name: 'widen',
  title: `Jobs a second of 1, 2 and 4 workers, each with ${concurrency} calls of ${latencyMs} ms under way`,
  figures: [{ name: 'rate', unit: 'jobs/s' }],
  targets: [
    { figure: 'rate', of: nameOf(2), against: nameOf(1), bound: 'at least', factor: 1.9 },
    { figure: 'rate', of: nameOf(4), against: nameOf(1), bound: 'at least', factor: 3.6 },
  ],
  open: (bench) => Promise.resolve(apart([1, 2, 4].map((workers) => contender(bench, workers)))),
}
