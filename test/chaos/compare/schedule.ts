import { seededRandom } from '../random.ts'
import type { UpstreamProcess } from '../fleet.ts'
import type { Contender } from './contender.ts'

/** A fault at a time that is the same for all systems. */
export interface Scheduled {
  /** From the start of the load. */
  atMs: number
  kind: keyof typeof acts
  /** Chooses the worker. */
  target: number
}

/** What is done. A system that has no such part is spared; the report says so. */
const acts = {
  'worker: kill -9': (contender: Contender, _upstream: UpstreamProcess, target: number) => {
    contender.workers[target % contender.workers.length]?.end('SIGKILL')
  },
  'producer side: kill -9': ({ producerSide }: Contender) => {
    for (const process of producerSide) process.end('SIGKILL')
  },
  'redis: kill -9 and restart': async ({ redis }: Contender) => {
    await redis?.kill()
    await redis?.restart()
  },
  'redis: FLUSHALL': async ({ redis }: Contender) => await redis?.flushAll(),
  'postgres: kill -9 and restart': async ({ postgres }: Contender) => await postgres?.restart({ mode: 'kill' }),
  'upstream: a proxy says 504 while the call runs': async (_contender: Contender, upstream: UpstreamProcess) => {
    const step = { kind: 'refuse', status: 504, body: '<html>gateway time-out</html>', billed: true, times: 5 }
    await upstream.script([step])
  },
  'upstream: cut in the middle of the answer': async (_contender: Contender, upstream: UpstreamProcess) => {
    await upstream.script([{ kind: 'cut', after: 'half', times: 5 }])
  },
}

/** How often each comes; twelve faults. */
const times: Record<keyof typeof acts, number> = {
  'worker: kill -9': 4,
  'producer side: kill -9': 2,
  'redis: kill -9 and restart': 1,
  'redis: FLUSHALL': 1,
  'postgres: kill -9 and restart': 2,
  'upstream: a proxy says 504 while the call runs': 1,
  'upstream: cut in the middle of the answer': 1,
}

/**
 * The faults of a seed, spread over the time of the load: the seed decides their order, the worker, and where in its part of
 * the time each one comes. `flush` false leaves FLUSHALL out.
 */
export function schedule(seed: number, loadMs: number, flush: boolean): Scheduled[] {
  const random = seededRandom(seed)
  const kinds = (Object.keys(times) as Scheduled['kind'][])
    .filter((kind) => flush || kind !== 'redis: FLUSHALL')
    .flatMap((kind) => Array.from({ length: times[kind] }, () => ({ kind, order: random.next() })))
    .toSorted((a, b) => a.order - b.order)
  // The first second is quiet, and the last tenth: what is lost then must not pass for what is not yet done.
  const part = (loadMs * 0.9 - 1_000) / kinds.length
  return kinds.map(({ kind }, index) => ({
    kind,
    atMs: Math.round(1_000 + (index + random.next() * 0.8) * part),
    target: random.integer(0, 1_000),
  }))
}

/** Whether the system has what the fault breaks. */
export function concerns({ kind }: Scheduled, { redis, postgres }: Contender): boolean {
  if (kind.startsWith('redis')) return redis !== null
  return kind.startsWith('postgres') ? postgres !== null : true
}

export async function act({ kind, target }: Scheduled, contender: Contender, upstream: UpstreamProcess): Promise<void> {
  await acts[kind](contender, upstream, target)
}
