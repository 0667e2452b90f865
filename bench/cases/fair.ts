import { nameOf, withAskonce, type Form } from '../askonce.ts'
import { until, type Bench } from '../bench.ts'
import { apart, type Case, type Contender, type Measured } from '../case.ts'
import { load } from '../load.ts'
import { percentile } from '../stats.ts'

const crowd = { id: 'crowd', weight: 1 }
const single = { id: 'single', weight: 1 }
const weighted = [1, 2, 4].map((weight) => ({ id: `weight-${weight}`, weight }))
/** With calls of 200 ms a place gets free every 4 ms. */
const busyWorker = { ASKONCE_CONCURRENCY: '50', ASKONCE_SIMULATED_LATENCY_MS: '200' }

/** One tenant has queued very many jobs; another one sends one at a time. */
function besideACrowd(bench: Bench, form: Form): Promise<Measured> {
  return withAskonce(bench, form, async (system) => {
    await system.addTenants([crowd, single])
    const address = await system.api()
    await system.fill(address, bench.pick(100_000, 1_000), { tenants: [crowd.id] })
    await system.janitor()
    await system.worker(busyWorker)
    await until(
      bench.signal,
      () => system.count('running'),
      (running) => running > 0,
      60_000,
    )
    await load(bench, address, {
      connections: 1,
      durationMs: bench.pick(60_000, 10_000),
      limit: bench.pick(40, 4),
      request: { kind: 'submit', prefix: bench.fresh('single'), waitSeconds: 10, tenants: [single.id] },
    })
    // What has not begun by now has waited at least so long.
    const rows = await system.sql<{ ms: number }>(
      `select extract(epoch from coalesce(a.started_at, clock_timestamp()) - j.created_at)::float8 * 1000 as ms
       from jobs j left join attempts a on a.job_id = j.id and a.attempt = 1 where j.tenant_id = $1`,
      [single.id],
    )
    const waits = rows.map(({ ms }) => ms)
    return { median: percentile(waits, 0.5), longest: percentile(waits, 1) }
  })
}

/** Tenants of different weights, all of which have more queued than is claimed. Whole claims are counted, so a few more than asked for. */
function byWeight(bench: Bench, form: Form): Promise<Measured> {
  return withAskonce(bench, form, async (system) => {
    const claims = bench.pick(2_000, 200)
    await system.addTenants(weighted)
    const address = await system.api()
    await system.fill(address, claims * weighted.length, { tenants: weighted.map(({ id }) => id) })
    await system.janitor()
    const worker = await system.worker(busyWorker)
    await until(
      bench.signal,
      async () => (await system.sql<{ count: number }>('select count(*)::int as count from attempts'))[0]?.count ?? 0,
      (count) => count > claims,
      60_000,
    )
    await worker.kill()
    const rows = await system.sql<{ tenant: string; share: number }>(
      `select tenant_id as tenant, count(*) / sum(count(*)) over ()::float8 as share from attempts
       where started_at <= (select started_at from attempts order by started_at offset $1 limit 1) group by tenant_id`,
      [claims - 1],
    )
    const whole = weighted.reduce((sum, { weight }) => sum + weight, 0)
    const off = weighted.map(({ id, weight }) => {
      const share = rows.find(({ tenant }) => tenant === id)?.share ?? 0
      return Math.abs((share * whole) / weight - 1) * 100
    })
    return { 'off its weight by': Math.max(...off) }
  })
}

function contender(bench: Bench, form: Form): Contender {
  return {
    name: nameOf[form],
    measure: async () => ({ ...(await besideACrowd(bench, form)), ...(await byWeight(bench, form)) }),
  }
}

const forms = ['redis', 'embedded'] as const

export const fair: Case = {
  name: 'fair',
  title:
    'One tenant has 100,000 jobs queued and another one sends single ones: from submission to call, a place free every 4 ms. And shares of 2,000 calls by weights of 1, 2 and 4',
  figures: [
    { name: 'median', unit: 'ms' },
    { name: 'longest', unit: 'ms' },
    { name: 'off its weight by', unit: '%' },
  ],
  targets: forms.flatMap((form) => [
    { figure: 'longest', of: nameOf[form], against: null, bound: 'at most', factor: 150 } as const,
    { figure: 'off its weight by', of: nameOf[form], against: null, bound: 'at most', factor: 5 } as const,
  ]),
  open: (bench) => Promise.resolve(apart(forms.map((form) => contender(bench, form)))),
}
