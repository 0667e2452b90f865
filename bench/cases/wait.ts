import { nameOf, withAskonce, type Form } from '../askonce.ts'
import type { Bench } from '../bench.ts'
import type { Case, Contender, Measured } from '../case.ts'
import type { LoadRequest, LoadResult } from '../load/spec.ts'
import { cleanLoad } from '../load.ts'
import { startProvider, upstreamModel, type Provider } from '../upstream.ts'

const upstreamMs = 50
const rate = 20

function run(bench: Bench, address: string, request: LoadRequest): Promise<LoadResult> {
  const times = { warmUpMs: bench.pick(1_000, 1_000), durationMs: bench.pick(8_000, 2_000) }
  return cleanLoad(bench, address, { connections: 64, ...times, rate, request })
}

/** What is on top of the time that the provider takes. */
function added({ p50, p99, max }: LoadResult): Measured {
  return { p50: p50 - upstreamMs, p99: p99 - upstreamMs, max: max - upstreamMs }
}

function askonce(bench: Bench, form: Form, provider: Provider): Contender {
  return {
    name: nameOf[form],
    measure: () =>
      withAskonce(bench, form, async (system) => {
        const address = await system.api(provider.env)
        await system.janitor(provider.env)
        await system.worker(provider.env)
        const prefix = bench.fresh('wait')
        const request = { kind: 'submit', prefix, waitSeconds: 30, model: upstreamModel } as const
        const result = await run(bench, address, request)
        const succeeded = await system.count('succeeded')
        if (succeeded !== result.accepted) throw new Error(`of ${result.accepted} answered jobs ${succeeded} succeeded`)
        return added(result)
      }),
  }
}

export const wait: Case = {
  name: 'wait',
  title: `Latency that submit-and-wait adds to a provider of ${upstreamMs} ms, at ${rate} new keys a second`,
  figures: ['p50', 'p99', 'max'].map((name) => ({ name, unit: 'ms' })),
  targets: [
    { figure: 'p50', of: 'Askonce', against: null, bound: 'at most', factor: 15 },
    { figure: 'p99', of: 'Askonce', against: null, bound: 'at most', factor: 60 },
  ],
  async open(bench) {
    const provider = await startProvider(bench, upstreamMs)
    const direct: Contender = {
      name: 'the provider itself',
      measure: async () => added(await run(bench, provider.url, { kind: 'complete', prefix: 'direct' })),
    }
    return {
      contenders: [askonce(bench, 'redis', provider), askonce(bench, 'embedded', provider), direct],
      close: async () => void (await provider.child.kill()),
    }
  },
}
