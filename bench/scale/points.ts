import { existsSync } from 'node:fs'
import { cpus } from 'node:os'
import { withAskonce, type Askonce } from '../askonce.ts'
import { until, type Bench } from '../bench.ts'
import { cleanLoad } from '../load.ts'
import type { LoadSpec } from '../load/spec.ts'
import { startWithAnswers } from '../succeeded.ts'
import { cpuMsOf, cpuMsOfTree } from '../usage.ts'
import type { Costs, Part } from './model.ts'

/** A setup that was measured: jobs or requests a second, and what one of them cost. */
export interface Point {
  perSecond: number
  costs: Costs
  /** How much of the machine's cores was used meanwhile, 0 to 1. */
  busy: number
}

/** Time of all cores, since the machine started. */
function coreTimes(): { idle: number; all: number } {
  const times = cpus().map((core) => core.times)
  const all = times.reduce((sum, { user, nice, sys, idle, irq }) => sum + user + nice + sys + idle + irq, 0)
  return { idle: times.reduce((sum, { idle }) => sum + idle, 0), all }
}

/** Asked again later, it says how much of the cores was used in between. */
function watchCores(): () => number {
  const before = coreTimes()
  return () => {
    const after = coreTimes()
    return 1 - (after.idle - before.idle) / (after.all - before.all)
  }
}

/** CPU milliseconds of every part that runs. */
function cpu(bench: Bench, processes: Readonly<Partial<Record<Part, readonly number[]>>>): Record<string, number> {
  const sums: Record<string, number> = { postgres: cpuMsOfTree(bench.postgres.pid), redis: cpuMsOf(bench.redis.pid) }
  for (const [part, pids] of Object.entries(processes)) sums[part] = pids.reduce((sum, pid) => sum + cpuMsOf(pid), 0)
  return sums
}

function perJob(before: Record<string, number>, after: Record<string, number>, count: number): Costs {
  return Object.fromEntries(Object.entries(after).map(([part, ms]) => [part, (ms - (before[part] ?? 0)) / count]))
}

/** Starts APIs until there are so many; their addresses and pids. */
async function startApis(system: Askonce, addresses: readonly string[], count: number): Promise<Apis> {
  const all = [...addresses]
  while (all.length < count) all.push(await system.api())
  // A worker that made answers first has ended.
  const pids = system.processes().map(({ pid }) => pid)
  return { addresses: all, pids: pids.filter((pid) => existsSync(`/proc/${pid}`)) }
}

interface Apis {
  addresses: readonly string[]
  pids: readonly number[]
}

const warmUpMs = 1_500

/** Requests a second that so many APIs answer, each with a load generator of its own that keeps so many connections busy. */
async function requests(
  bench: Bench,
  { addresses, pids }: Apis,
  connections: number,
  requestOf: (index: number) => LoadSpec['request'],
): Promise<Point> {
  const durationMs = bench.pick(5_000, 1_000)
  const run = (index: number, ms: number): ReturnType<typeof cleanLoad> =>
    cleanLoad(bench, addresses[index] as string, {
      connections,
      warmUpMs: 0,
      durationMs: ms,
      request: requestOf(index),
    })
  await Promise.all(addresses.map((_, index) => run(index, warmUpMs)))
  const apis = { api: pids }
  const before = cpu(bench, apis)
  const busy = watchCores()
  const results = await Promise.all(addresses.map((_, index) => run(index, durationMs)))
  const after = cpu(bench, apis)
  const share = busy()
  const count = results.reduce((sum, { accepted }) => sum + accepted, 0)
  const generator = results.reduce(
    (sum, { cpuShare, accepted, perSecond }) => sum + cpuShare * (accepted / perSecond) * 1000,
    0,
  )
  return {
    perSecond: results.reduce((sum, { perSecond }) => sum + perSecond, 0),
    costs: { ...perJob(before, after, count), generator: generator / count },
    busy: share,
  }
}

/** Submissions a second of new keys. */
export function submitting(bench: Bench, apis: number, connections: number): Promise<Point> {
  return withAskonce(bench, 'redis', async (system) =>
    requests(bench, await startApis(system, [], apis), connections, () => ({
      kind: 'submit',
      prefix: bench.fresh('scale'),
    })),
  )
}

/** Replays a second of keys that have their answers. */
export async function replaying(bench: Bench, apis: number, connections: number): Promise<Point> {
  const { system, address, prefix, count } = await startWithAnswers(bench, 500)
  try {
    const all = await startApis(system, [address], apis)
    return await requests(bench, all, connections, () => ({ kind: 'replay', prefix, count }))
  } finally {
    await system.stop()
  }
}

/** Queued jobs a second to stored answers, between the first fifth and the last tenth of them. */
export function working(bench: Bench, workers: number, each: number, latencyMs: number): Promise<Point> {
  return withAskonce(bench, 'redis', async (system) => {
    const count =
      latencyMs === 0 ? bench.pick(24_000, 1_000) : Math.round((workers * each * 1000 * bench.pick(6, 2)) / latencyMs)
    const address = await system.api()
    await system.fill(address, count)
    const janitor = await system.janitor()
    const env = { ASKONCE_CONCURRENCY: String(each), ASKONCE_SIMULATED_LATENCY_MS: String(latencyMs) }
    const started = await Promise.all(Array.from({ length: workers }, () => system.worker(env)))
    const processes = { worker: started.map(({ pid }) => pid), janitor: [janitor.pid] }
    const untilDone = (share: number): Promise<number> =>
      until(
        bench.signal,
        () => system.count('succeeded'),
        (done) => done >= count * share,
        120_000,
      )
    const doneBefore = await untilDone(0.2)
    const startedAt = performance.now()
    const before = cpu(bench, processes)
    const busy = watchCores()
    const done = (await untilDone(0.9)) - doneBefore
    const seconds = (performance.now() - startedAt) / 1000
    const share = busy()
    return { perSecond: done / seconds, costs: perJob(before, cpu(bench, processes), done), busy: share }
  })
}
