import { freePort } from '@askonce/embedded'
import { withAskonce, type Askonce } from '../askonce.ts'
import { until, type Bench } from '../bench.ts'
import type { Case, Measured } from '../case.ts'
import { readMetric } from '../metrics.ts'
import { startProvider, upstreamModel, type Provider } from '../upstream.ts'
import { peakMemoryMb } from '../usage.ts'
import { drained } from './drain.ts'

const latencyMs = 2_000

/** The 99th percentile of the event loop's delay since it was last asked, in milliseconds: the process's own metric. */
async function loopDelayMs(healthPort: number): Promise<number> {
  const seconds = await readMetric(healthPort, 'nodejs_eventloop_lag_p99_seconds')
  if (seconds === 0) throw new Error('the worker does not say how late its event loop is')
  return seconds * 1000
}

/**
 * Ended jobs a second from when the first `first` have ended: whole rounds of calls. They come in waves, two seconds apart, so a rate between
 * two other moments says as much about where in a wave these lie.
 */
async function rateAfter(system: Askonce, first: number, count: number): Promise<number> {
  const [row] = await system.sql<{ seconds: number }>(
    `select extract(epoch from max(completed_at) - (
       select completed_at from jobs order by completed_at offset $1 limit 1
     ))::float8 as seconds from jobs`,
    [first - 1],
  )
  return (count - first) / (row?.seconds ?? Number.NaN)
}

function measure(bench: Bench, provider: Provider): Promise<Measured> {
  const concurrency = bench.pick(2_000, 200)
  const count = concurrency * bench.pick(6, 2)
  return withAskonce(bench, 'redis', async (system) => {
    const address = await system.api(provider.env)
    await system.fill(address, count, { model: upstreamModel })
    await system.janitor(provider.env)
    const healthPort = await freePort()
    const worker = await system.worker({
      ...provider.env,
      ASKONCE_CONCURRENCY: String(concurrency),
      ASKONCE_HEALTH_PORT: String(healthPort),
    })
    // Asking begins a new period: the start of the process is left out.
    await until(
      bench.signal,
      () => system.count('running'),
      (running) => running > concurrency / 2,
      60_000,
    )
    await loopDelayMs(healthPort)
    await drained(bench, system, count)
    return {
      rate: await rateAfter(system, concurrency, count),
      memory: peakMemoryMb(worker.pid),
      delay: await loopDelayMs(healthPort),
    }
  })
}

export const inFlight: Case = {
  name: 'in-flight',
  title: 'One worker with 2,000 calls of 2 s under way: 1,000 jobs/s is all that there can be',
  figures: [
    { name: 'rate', unit: 'jobs/s' },
    { name: 'memory', unit: 'MB' },
    { name: 'delay', unit: 'ms' },
  ],
  targets: [
    { figure: 'rate', of: 'Askonce', against: null, bound: 'at least', factor: 950 },
    { figure: 'memory', of: 'Askonce', against: null, bound: 'at most', factor: 450 },
    { figure: 'delay', of: 'Askonce', against: null, bound: 'at most', factor: 50 },
  ],
  async open(bench) {
    const provider = await startProvider(bench, latencyMs)
    return {
      contenders: [{ name: 'Askonce', measure: () => measure(bench, provider) }],
      close: async () => void (await provider.child.kill()),
    }
  },
}
