import { setTimeout as sleep } from 'node:timers/promises'
import { withAskonce } from '../askonce.ts'
import type { Bench } from '../bench.ts'
import { apart, type Case, type Measured } from '../case.ts'
import { peerTitles, runPeer } from '../peer.ts'
import { redisInfo } from '../redis-info.ts'

/** What Redis keeps when nobody asks it for anything: not while it rewrites its file, nor what a buffer takes for a moment. */
async function memoryAtRest(bench: Bench): Promise<number> {
  const seen: number[] = []
  while (seen.length < 5) {
    await sleep(200, undefined, { signal: bench.signal })
    const info = await redisInfo(bench.redis.port)
    if (info('aof_rewrite_in_progress') === 0) seen.push(info('used_memory'))
  }
  return Math.min(...seen)
}

function grown(before: number, after: number, count: number): Measured {
  return { growth: (after - before) / 1e6, 'a job': (after - before) / count }
}

function askonce(bench: Bench, count: number): Promise<Measured> {
  return withAskonce(bench, 'redis', async (system) => {
    const address = await system.api()
    await system.janitor()
    await system.fill(address, 10)
    const before = await memoryAtRest(bench)
    await system.fill(address, count)
    return grown(before, await memoryAtRest(bench), count)
  })
}

async function bullmq(bench: Bench, count: number): Promise<Measured> {
  const database = await bench.cleanDatabase()
  const fill = (jobs: number) =>
    runPeer(bench, 'bullmq-redis', database.url, { kind: 'fill', prefix: bench.fresh('memory'), count: jobs })
  await fill(10)
  const before = await memoryAtRest(bench)
  await fill(count)
  const after = await memoryAtRest(bench)
  await database.drop()
  return grown(before, after, count)
}

export const redisMemory: Case = {
  name: 'redis-memory',
  title:
    'Memory of Redis that a million queued jobs take, of BullMQ a hundred thousand: no worker, prompts of 200 bytes',
  figures: [
    { name: 'growth', unit: 'MB' },
    { name: 'a job', unit: 'bytes' },
  ],
  targets: [{ figure: 'growth', of: 'Askonce', against: null, bound: 'at most', factor: 5 }],
  // Bytes hardly vary.
  rounds: 1,
  open: (bench) =>
    Promise.resolve(
      apart([
        { name: 'Askonce', measure: () => askonce(bench, bench.pick(1_000_000, 5_000)) },
        { name: peerTitles['bullmq-redis'], measure: () => bullmq(bench, bench.pick(100_000, 5_000)) },
      ]),
    ),
}
