import { setTimeout as sleep } from 'node:timers/promises'
import { withAskonce, type Askonce } from '../askonce.ts'
import { until, type Bench } from '../bench.ts'
import { apart, type Case, type Measured } from '../case.ts'

/** How long claims are watched after Redis was emptied, and before, for what is usual. */
const watchedSeconds = 5

async function now(system: Askonce): Promise<string> {
  const [row] = await system.sql<{ at: string }>('select clock_timestamp()::text as at')
  return row?.at ?? ''
}

/** Seconds from then to the first claim, and the longest time without one, both while claims were watched. */
async function pauses(system: Askonce, since: string): Promise<{ first: number; longest: number }> {
  const [row] = await system.sql<{ first: number; longest: number }>(
    `with claims as (
       select started_at as at from attempts where started_at > $1::timestamptz and started_at <= $1::timestamptz + $2::interval
       union all select $1::timestamptz + $2::interval
     ), gaps as (select at - lag(at, 1, $1::timestamptz) over (order by at) as gap from claims)
     select (select extract(epoch from min(at) - $1::timestamptz) from claims)::float8 as first,
       (select extract(epoch from max(gap)) from gaps)::float8 as longest`,
    [since, `${watchedSeconds} seconds`],
  )
  return row ?? { first: Number.NaN, longest: Number.NaN }
}

function measure(bench: Bench): Promise<Measured> {
  return withAskonce(bench, 'redis', async (system) => {
    const address = await system.api()
    await system.fill(address, bench.pick(100_000, 10_000))
    await system.janitor()
    // 500 calls a second: more is queued than is called here.
    await system.worker({ ASKONCE_CONCURRENCY: '50', ASKONCE_SIMULATED_LATENCY_MS: '100' })
    await until(
      bench.signal,
      () => system.count('running'),
      (running) => running > 0,
      60_000,
    )
    const watched = async (): Promise<{ first: number; longest: number }> => {
      const since = await now(system)
      await sleep(watchedSeconds * 1000, undefined, { signal: bench.signal })
      return await pauses(system, since)
    }
    const usual = await watched()
    const after: { first: number; longest: number }[] = []
    for (let time = 0; time < bench.pick(5, 1); time += 1) {
      await bench.redis.flushAll()
      after.push(await watched())
    }
    return {
      'next claim': Math.max(...after.map(({ first }) => first)),
      'without a claim': Math.max(...after.map(({ longest }) => longest)),
      usual: usual.longest,
    }
  })
}

const figure = 'without a claim'

export const flushall: Case = {
  name: 'flushall',
  title: `FLUSHALL five times while a worker runs and 100,000 jobs wait: until the next claim, and the longest time without one in the ${watchedSeconds} s after it; usual: the same before`,
  figures: ['next claim', figure, 'usual'].map((name) => ({ name, unit: 's' })),
  targets: [
    { figure: 'next claim', of: 'Askonce', against: null, bound: 'at most', factor: 1.5 },
    { figure, of: 'Askonce', against: null, bound: 'at most', factor: 1.5 },
  ],
  rounds: 2,
  open: (bench) => Promise.resolve(apart([{ name: 'Askonce', measure: () => measure(bench) }])),
}
