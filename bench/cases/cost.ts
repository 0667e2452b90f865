import { nameOf, withAskonce, type Form } from '../askonce.ts'
import { until, type Bench } from '../bench.ts'
import { query } from '../query.ts'
import { apart, type Case, type Contender, type Measured } from '../case.ts'
import { cleanLoad } from '../load.ts'
import { peerTitles, runPeer } from '../peer.ts'
import type { PeerName } from '../peers/peer.ts'
import { cpuMsOf, cpuMsOfTree } from '../usage.ts'
import { redisInfo } from '../redis-info.ts'

interface Meters {
  walBytes: number
  redisAofBytes: number
  redisNetBytes: number
  postgresCpuMs: number
  redisCpuMs: number
}

async function meters(bench: Bench): Promise<Meters> {
  const [row] = await query<{ bytes: number }>(
    bench.postgres.url,
    `select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8 as bytes`,
  )
  const redis = await redisInfo(bench.redis.port)
  return {
    walBytes: row?.bytes ?? Number.NaN,
    redisAofBytes: redis('aof_current_size'),
    redisNetBytes: redis('total_net_input_bytes') + redis('total_net_output_bytes'),
    postgresCpuMs: cpuMsOfTree(bench.postgres.pid),
    redisCpuMs: cpuMsOf(bench.redis.pid),
  }
}

function perJob(before: Meters, after: Meters, count: number, ownCpuMs: number | null): Measured {
  const by = (name: keyof Meters): number => (after[name] - before[name]) / count
  return {
    wal: by('walBytes'),
    aof: by('redisAofBytes'),
    'redis traffic': by('redisNetBytes'),
    'postgres cpu': by('postgresCpuMs'),
    'redis cpu': by('redisCpuMs'),
    ...(ownCpuMs === null ? {} : { 'own cpu': ownCpuMs / count }),
  }
}

function askonce(bench: Bench, form: Form): Contender {
  return {
    name: nameOf[form],
    measure: () =>
      withAskonce(bench, form, async (system) => {
        const count = bench.pick(3_000, 500)
        const address = await system.api()
        await system.janitor()
        await system.worker({ ASKONCE_SIMULATED_LATENCY_MS: '0' })
        const ownCpu = (): number => system.processes().reduce((sum, { pid }) => sum + cpuMsOf(pid), 0)
        const ownBefore = ownCpu()
        const before = await meters(bench)
        const request = { kind: 'submit', prefix: bench.fresh('cost') } as const
        await cleanLoad(bench, address, { connections: 32, durationMs: 120_000, limit: count, request })
        await until(
          bench.signal,
          () => system.count('succeeded'),
          (done) => done === count,
          120_000,
        )
        return perJob(before, await meters(bench), count, ownCpu() - ownBefore)
      }),
  }
}

/** Of a peer only what its servers spend: its process also makes the jobs. */
function peer(bench: Bench, name: PeerName): Contender {
  return {
    name: peerTitles[name],
    async measure() {
      const count = bench.pick(1_500, 300)
      const database = await bench.cleanDatabase()
      const prefix = bench.fresh('cost')
      // Its schema is made first, and is not in the figures.
      await runPeer(bench, name, database.url, { kind: 'fill', prefix, count: 0 })
      const before = await meters(bench)
      await runPeer(bench, name, database.url, { kind: 'fill-singly', prefix, count })
      await runPeer(bench, name, database.url, { kind: 'drain', count, concurrency: 50 })
      const found = perJob(before, await meters(bench), count, null)
      await database.drop()
      return found
    },
  }
}

export const cost: Case = {
  name: 'cost',
  title: 'What one job costs, submitted by itself and answered at once',
  figures: [
    { name: 'wal', unit: 'bytes of WAL' },
    { name: 'aof', unit: 'bytes' },
    { name: 'redis traffic', unit: 'bytes' },
    { name: 'postgres cpu', unit: 'ms' },
    { name: 'redis cpu', unit: 'ms' },
    { name: 'own cpu', unit: 'ms' },
  ],
  targets: [],
  // Bytes and CPU of a thousand jobs hardly vary.
  rounds: 1,
  open: (bench) =>
    Promise.resolve(
      apart([
        askonce(bench, 'redis'),
        askonce(bench, 'embedded'),
        peer(bench, 'bullmq-redis'),
        peer(bench, 'bullmq-postgres'),
        peer(bench, 'pg-boss'),
        peer(bench, 'graphile-worker'),
        peer(bench, 'dbos'),
      ]),
    ),
}
