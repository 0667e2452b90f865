import { nameOf, withAskonce, type Askonce, type Form } from '../askonce.ts'
import { until, type Bench } from '../bench.ts'
import { apart, type Case, type Contender } from '../case.ts'
import { peerRate, peerTitles } from '../peer.ts'
import type { PeerName } from '../peers/peer.ts'
import { cpuFigures, withCpu } from '../usage.ts'

const concurrency = 200

/** Jobs a second from the first claim to the last stored answer, by the database's clock. */
export async function drained(bench: Bench, system: Askonce, count: number): Promise<number> {
  await until(
    bench.signal,
    // Counting those that are done would read all of them, twenty times a second.
    () => system.sql('select from ready union all select from open_attempts limit 1'),
    (unfinished) => unfinished.length === 0,
    180_000,
  )
  const [row] = await system.sql<{ seconds: number }>(
    'select extract(epoch from max(completed_at) - min(started_at))::float8 as seconds from jobs',
  )
  return count / (row?.seconds ?? Number.NaN)
}

function askonce(bench: Bench, form: Form, count: number): Contender {
  return {
    name: nameOf[form],
    measure: () =>
      withAskonce(bench, form, async (system) => {
        const address = await system.api()
        await system.fill(address, count)
        await system.janitor()
        const worker = await system.worker({
          ASKONCE_CONCURRENCY: String(concurrency),
          ASKONCE_SIMULATED_LATENCY_MS: '0',
        })
        // The first jobs are done by the time it has said that it is ready; of thousands they are few.
        return await withCpu(bench, [worker], async () => ({
          measured: { rate: await drained(bench, system, count) },
          units: count,
        }))
      }),
  }
}

function peer(bench: Bench, name: PeerName, count: number): Contender {
  return {
    name: peerTitles[name],
    async measure() {
      const fill = { kind: 'fill', prefix: bench.fresh('drain'), count } as const
      return { rate: await peerRate(bench, name, fill, { kind: 'drain', count, concurrency }) }
    },
  }
}

export const drain: Case = {
  name: 'drain',
  title: 'Queued jobs a second to stored answers: one worker, 200 at once, a provider that answers at once',
  figures: [{ name: 'rate', unit: 'jobs/s' }, ...cpuFigures],
  targets: [
    { figure: 'rate', of: 'Askonce', against: 'BullMQ on Redis', bound: 'at least', factor: 0.45 },
    { figure: 'rate', of: 'Askonce', against: 'DBOS', bound: 'at least', factor: 12 },
    { figure: 'rate', of: 'Askonce without Redis', against: 'BullMQ on Postgres', bound: 'at least', factor: 3.5 },
  ],
  // Slower ones get fewer jobs, so that each works for a few seconds.
  open: (bench) =>
    Promise.resolve(
      apart([
        askonce(bench, 'redis', bench.pick(40_000, 1_000)),
        askonce(bench, 'embedded', bench.pick(40_000, 1_000)),
        peer(bench, 'bullmq-redis', bench.pick(80_000, 1_000)),
        peer(bench, 'bullmq-postgres', bench.pick(8_000, 500)),
        peer(bench, 'pg-boss', bench.pick(1_000, 500)),
        peer(bench, 'graphile-worker', bench.pick(10_000, 500)),
        peer(bench, 'dbos', bench.pick(3_000, 200)),
      ]),
    ),
}
