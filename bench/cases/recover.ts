import { withAskonce } from '../askonce.ts'
import { until, type Bench } from '../bench.ts'
import type { Case, Measured } from '../case.ts'
import { startProvider, upstreamModel, type Provider } from '../upstream.ts'

/** Longer than anything here takes: nothing ends by itself. */
const latencyMs = 600_000

function measure(bench: Bench, provider: Provider): Promise<Measured> {
  const count = bench.pick(500, 100)
  return withAskonce(bench, 'redis', async (system) => {
    const address = await system.api(provider.env)
    await system.janitor(provider.env)
    const env = { ...provider.env, ASKONCE_CONCURRENCY: String(count) }
    const running = async (attempt: number): Promise<number> => {
      const [row] = await system.sql<{ count: string }>(
        `select count(*) from jobs where state = 'running' and attempt >= $1`,
        [attempt],
      )
      return Number(row?.count)
    }
    const doomed = await system.worker(env)
    await system.fill(address, count, { model: upstreamModel })
    const all = (found: number): boolean => found === count
    await until(bench.signal, () => running(1), all, 60_000)
    await system.worker(env)
    const killedAt = performance.now()
    await doomed.kill()
    await until(bench.signal, () => running(2), all, 60_000)
    return { time: (performance.now() - killedAt) / 1000 }
  })
}

export const recover: Case = {
  name: 'recover',
  title: 'A worker with 500 calls under way is killed: time until another one runs the last of them',
  figures: [{ name: 'time', unit: 's' }],
  targets: [{ figure: 'time', of: 'Askonce', against: null, bound: 'at most', factor: 4 }],
  async open(bench) {
    const provider = await startProvider(bench, latencyMs)
    return {
      contenders: [{ name: 'Askonce', measure: () => measure(bench, provider) }],
      close: async () => void (await provider.child.kill()),
    }
  },
}
