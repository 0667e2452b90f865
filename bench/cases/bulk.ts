import { nameOf, nothingDue, withAskonce, type Form } from '../askonce.ts'
import type { Bench } from '../bench.ts'
import { apart, type Case, type Contender } from '../case.ts'
import { cleanLoad } from '../load.ts'
import { peerRate, peerTitles } from '../peer.ts'
import type { PeerName } from '../peers/peer.ts'
import { cpuFigures, withCpu } from '../usage.ts'

const items = 1_000
/** Bulk requests, or bulk adds, under way at once. */
const atOnce = 4

const times = (bench: Bench) => ({ warmUpMs: bench.pick(2_000, 0), durationMs: bench.pick(3_000, 1_500) })

function askonce(bench: Bench, form: Form, later?: typeof nothingDue): Contender {
  return {
    name: later?.name ?? nameOf[form],
    measure: () =>
      withAskonce(bench, form, async (system) => {
        const address = await system.api()
        return await withCpu(bench, system.processes(), async () => {
          const result = await cleanLoad(bench, address, {
            connections: atOnce,
            ...times(bench),
            request: {
              kind: 'bulk',
              prefix: bench.fresh('bulk'),
              items,
              ...(later === undefined ? {} : { delaySeconds: later.delaySeconds }),
            },
          })
          const stored = await system.count('queued')
          const units = result.accepted * items
          if (stored !== units) throw new Error(`${units} were accepted and ${stored} are stored`)
          return { measured: { rate: result.perSecond * items, generator: result.cpuShare * 100 }, units }
        })
      }),
  }
}

function peer(bench: Bench, name: PeerName): Contender {
  return {
    name: peerTitles[name],
    async measure() {
      const task = { kind: 'bulk', prefix: bench.fresh('bulk'), items, concurrency: atOnce, ...times(bench) } as const
      return { rate: await peerRate(bench, name, task) }
    },
  }
}

export const bulk: Case = {
  name: 'bulk',
  title: 'Jobs a second in bulks of 1,000, four at once',
  figures: [{ name: 'rate', unit: 'jobs/s' }, { name: 'generator', unit: '% of a core' }, ...cpuFigures],
  targets: [
    { figure: 'rate', of: 'Askonce', against: 'BullMQ on Redis', bound: 'at least', factor: 0.5 },
    { figure: 'rate', of: 'Askonce without Redis', against: 'BullMQ on Postgres', bound: 'at least', factor: 1 },
  ],
  open: (bench) =>
    Promise.resolve(
      apart([
        askonce(bench, 'redis'),
        askonce(bench, 'embedded'),
        askonce(bench, 'redis', nothingDue),
        peer(bench, 'bullmq-redis'),
        peer(bench, 'bullmq-postgres'),
        peer(bench, 'pg-boss'),
        peer(bench, 'graphile-worker'),
      ]),
    ),
}
