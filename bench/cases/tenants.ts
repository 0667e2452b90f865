import { withAskonce } from '../askonce.ts'
import type { Bench } from '../bench.ts'
import { apart, type Case, type Contender } from '../case.ts'
import { cpuFigures, withCpu } from '../usage.ts'
import { drained } from './drain.ts'

/** Null: the tenant that there always is. */
function contender(bench: Bench, name: string, tenants: number | null): Contender {
  return {
    name,
    measure: () =>
      withAskonce(bench, 'redis', async (system) => {
        const count = bench.pick(100_000, 1_000)
        const ids = Array.from({ length: tenants ?? 0 }, (_, index) => `tenant-${index}`)
        await system.addTenants(ids.map((id) => ({ id, weight: 1 })))
        const address = await system.api()
        await system.fill(address, count, tenants === null ? {} : { tenants: ids })
        await system.janitor()
        const worker = await system.worker({ ASKONCE_CONCURRENCY: '200', ASKONCE_SIMULATED_LATENCY_MS: '0' })
        return await withCpu(bench, [worker], async () => ({
          measured: { rate: await drained(bench, system, count) },
          units: count,
        }))
      }),
  }
}

const one = 'one tenant'
const many = '1,000 tenants'

export const tenants: Case = {
  name: 'tenants',
  title: 'Drain of 100,000 jobs, of one tenant and of a thousand with a hundred each, as `drain`',
  figures: [{ name: 'rate', unit: 'jobs/s' }, ...cpuFigures],
  targets: [{ figure: 'rate', of: many, against: one, bound: 'at least', factor: 0.8 }],
  open: (bench) =>
    Promise.resolve(apart([contender(bench, one, null), contender(bench, many, bench.pick(1_000, 100))])),
}
