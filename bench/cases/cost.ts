import { freePort } from '@askonce/embedded'
import { nameOf, withAskonce, type Form } from '../askonce.ts'
import { until, type Bench } from '../bench.ts'
import { apart, type Case, type Contender, type Measured } from '../case.ts'
import { cleanLoad } from '../load.ts'
import { endedAttempts } from '../metrics.ts'
import { peerTitles, runPeer } from '../peer.ts'
import type { PeerName } from '../peers/peer.ts'
import { touched } from '../tables-touched.ts'
import { cpuMsOf, cpuMsOfTree } from '../usage.ts'
import { redisInfo } from '../redis-info.ts'
import { walPosition, walSince } from '../wal.ts'

interface Meters {
  lsn: string
  redisAofBytes: number
  redisNetBytes: number
  postgresCpuMs: number
  redisCpuMs: number
}

async function meters(bench: Bench): Promise<Meters> {
  const lsn = await walPosition(bench.postgres.url)
  const redis = await redisInfo(bench.redis.port)
  return {
    lsn,
    redisAofBytes: redis('aof_current_size'),
    redisNetBytes: redis('total_net_input_bytes') + redis('total_net_output_bytes'),
    postgresCpuMs: cpuMsOfTree(bench.postgres.pid),
    redisCpuMs: cpuMsOf(bench.redis.pid),
  }
}

/** What has been spent since then, for each job. */
async function perJob(bench: Bench, before: Meters, count: number, ownCpuMs: () => number | null): Promise<Measured> {
  const after = await meters(bench)
  const own = ownCpuMs()
  const wal = await walSince(bench.postgres.url, before.lsn)
  const by = (name: Exclude<keyof Meters, 'lsn'>): number => (after[name] - before[name]) / count
  return {
    wal: wal.bytes / count,
    'page images': wal.pageImages / count,
    aof: by('redisAofBytes'),
    'redis traffic': by('redisNetBytes'),
    'postgres cpu': by('postgresCpuMs'),
    'redis cpu': by('redisCpuMs'),
    ...(own === null ? {} : { 'own cpu': own / count }),
  }
}

function askonce(bench: Bench, form: Form): Contender {
  return {
    name: nameOf[form],
    measure: () =>
      withAskonce(bench, form, async (system) => {
        const count = bench.pick(3_000, 500)
        const schema = await touched(system.databaseUrl)
        const address = await system.api()
        await system.janitor()
        const healthPort = await freePort()
        await system.worker({ ASKONCE_SIMULATED_LATENCY_MS: '0', ASKONCE_HEALTH_PORT: String(healthPort) })
        const ownCpu = (): number => system.processes().reduce((sum, { pid }) => sum + cpuMsOf(pid), 0)
        const ownBefore = ownCpu()
        const before = await meters(bench)
        const request = { kind: 'submit', prefix: bench.fresh('cost') } as const
        await cleanLoad(bench, address, { connections: 32, durationMs: 120_000, limit: count, request })
        await until(
          bench.signal,
          () => endedAttempts(healthPort),
          (done) => done >= count,
          120_000,
        )
        const found = await perJob(bench, before, count, () => ownCpu() - ownBefore)
        await system.end()
        const { pages, updates, hot } = await touched(system.databaseUrl)
        const succeeded = await system.count('succeeded')
        if (succeeded !== count) throw new Error(`of ${count} jobs ${succeeded} succeeded`)
        return {
          ...found,
          pages: (pages - schema.pages) / count,
          hot: ((hot - schema.hot) / (updates - schema.updates)) * 100,
        }
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
      const found = await perJob(bench, before, count, () => null)
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
    { name: 'page images', unit: 'bytes' },
    { name: 'pages', unit: 'touched' },
    { name: 'hot', unit: '% of updates' },
    { name: 'aof', unit: 'bytes' },
    { name: 'redis traffic', unit: 'bytes' },
    { name: 'postgres cpu', unit: 'ms' },
    { name: 'redis cpu', unit: 'ms' },
    { name: 'own cpu', unit: 'ms' },
  ],
  targets: [{ figure: 'wal', of: 'Askonce', against: null, bound: 'at most', factor: 2_800 }],
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
