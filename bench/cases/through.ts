import { withAskonce } from '../askonce.ts'
import type { Bench } from '../bench.ts'
import type { Case, Contender, Measured } from '../case.ts'
import { startPortkey, startProxy, type Gateway } from '../gateways.ts'
import { cleanLoad } from '../load.ts'
import { startProvider, type Provider } from '../upstream.ts'
import { cpuFigures, withCpu } from '../usage.ts'

const connections = 64
const calmRate = 20
const openaiRoute = { path: '/openai/v1/chat/completions' }

type Way = Pick<Gateway, 'address' | 'request'> & { processes: readonly Gateway['child'][] }

/** As many as there can be, and then so few that none waits for another. `accepted`: all of them together. */
async function run(
  bench: Bench,
  { address, request: given, processes }: Way,
): Promise<{ measured: Measured; accepted: number }> {
  let accepted = 0
  const warmUpMs = bench.pick(3_000, 500)
  const asked = async (durationMs: number, rate: number | null): ReturnType<typeof cleanLoad> => {
    const request = { kind: 'complete', prefix: bench.fresh('through'), ...given } as const
    const result = await cleanLoad(bench, address, { connections, warmUpMs, durationMs, rate, request })
    accepted += result.accepted
    return result
  }
  const measured = await withCpu(bench, processes, async () => {
    const { perSecond, p99, cpuShare, accepted: units } = await asked(bench.pick(5_000, 1_000), null)
    return { measured: { rate: perSecond, p99, generator: cpuShare * 100 }, units }
  })
  const calm = await asked(bench.pick(8_000, 1_000), calmRate)
  return { measured: { ...measured, 'calm p50': calm.p50, 'calm p99': calm.p99 }, accepted }
}

function askonce(bench: Bench, provider: Provider): Contender {
  return {
    name: 'Askonce',
    measure: () =>
      withAskonce(bench, 'redis', async (system) => {
        const address = await system.api(provider.env)
        await system.janitor(provider.env)
        await system.worker({ ...provider.env, ASKONCE_CONCURRENCY: '100' })
        const found = await run(bench, { address, request: openaiRoute, processes: system.processes() })
        const stored = await system.count('succeeded')
        if (stored !== found.accepted) throw new Error(`${found.accepted} were answered and ${stored} are stored`)
        return found.measured
      }),
  }
}

function gateway(
  bench: Bench,
  name: string,
  provider: Provider,
  start: (bench: Bench, provider: Provider) => Promise<Gateway>,
): Contender {
  return {
    name,
    async measure() {
      const { child, ...way } = await start(bench, provider)
      try {
        return (await run(bench, { ...way, processes: [child] })).measured
      } finally {
        await child.kill()
      }
    },
  }
}

const portkey = 'Portkey gateway'

export const through: Case = {
  name: 'through',
  title: `Chat completions a second of one API and one worker, new keys, ${connections} at a time, to a provider that answers at once; calm: at ${calmRate} a second`,
  figures: [
    { name: 'rate', unit: 'calls/s' },
    { name: 'p99', unit: 'ms' },
    { name: 'calm p50', unit: 'ms' },
    { name: 'calm p99', unit: 'ms' },
    { name: 'generator', unit: '% of a core' },
    ...cpuFigures,
  ],
  targets: [
    { figure: 'rate', of: 'Askonce', against: portkey, bound: 'at least', factor: 1.6 },
    { figure: 'calm p50', of: 'Askonce', against: portkey, bound: 'at most', factor: 10, difference: true },
  ],
  async open(bench) {
    const provider = await startProvider(bench, 0)
    const direct: Contender = {
      name: 'the provider itself',
      measure: async () =>
        (await run(bench, { address: provider.url, request: {}, processes: [provider.child] })).measured,
    }
    return {
      contenders: [
        askonce(bench, provider),
        gateway(bench, portkey, provider, startPortkey),
        gateway(bench, 'bare proxy', provider, startProxy),
        direct,
      ],
      close: async () => void (await provider.child.kill()),
    }
  },
}
