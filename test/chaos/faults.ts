import { setTimeout as sleep } from 'node:timers/promises'
import { openaiError } from '@askonce/testkit'
import type { Fleet } from './fleet.ts'
import type { Supervised } from './supervised.ts'
import { leaseMs } from './timing.ts'

/** One fault as the seed decided it. */
export interface Planned {
  kind: string
  /** Chooses among equals: the fault takes it modulo their number. */
  target: number
  /** Between 0 and 1: how long it lasts, between the shortest and the longest that the fault allows. */
  length: number
  /** Pause before the next one. */
  gapMs: number
  /** The next one does not wait for this one's end and recovery. */
  overlaps: boolean
}

/** What a fault leaves to be watched. */
export interface Aftermath {
  /** Processes whose open attempts have to be taken over. */
  lostPids?: readonly number[]
  /** The API that has to work again; without it, any. */
  address?: string
}

export interface Fault<F> {
  kind: string
  weight: number
  /** Two faults that touch the same thing never overlap. */
  touches: (planned: Planned) => readonly string[]
  /** Resolves when the fault is over and recovery begins. */
  run: (fleet: F, planned: Planned) => Promise<Aftermath>
}

export const none: Aftermath = {}

export function between(shortestMs: number, longestMs: number, { length }: Planned): Promise<void> {
  return sleep(shortestMs + length * (longestMs - shortestMs))
}

export function chosen<T>(list: readonly T[], { target }: Planned): T {
  const one = list[target % list.length]
  if (one === undefined) throw new Error('nothing to choose from')
  return one
}

/** Long enough that the janitors see the whole lease pass, and successors bring their answers before the thaw. */
export const beyondLease = [leaseMs + 2_000, leaseMs + 4_000] as const

export async function frozen(
  processes: readonly Supervised[],
  [low, high]: readonly [number, number],
  planned: Planned,
) {
  for (const process of processes) process.freeze()
  await between(low, high, planned)
  for (const process of processes) process.thaw()
}

/** The upstream behaves so for the next requests, until the fault is over. */
function upstream(kind: string, weight: number, longestMs: number, steps: readonly object[]): Fault<Fleet> {
  return {
    kind: `upstream: ${kind}`,
    weight,
    touches: () => ['upstream'],
    async run(fleet, planned) {
      await fleet.upstream.script(steps)
      await between(1_000, longestMs, planned)
      await fleet.upstream.script([])
      return none
    },
  }
}

export const commonFaults: readonly Fault<Fleet>[] = [
  upstream('429 with Retry-After', 1, 2_000, [
    {
      kind: 'refuse',
      status: 429,
      body: openaiError('rate_limit_exceeded', 'rate_limit_exceeded'),
      headers: { 'retry-after': '1' },
      times: 10,
    },
  ]),
  upstream('500 of its own', 1, 2_500, [{ kind: 'refuse', status: 500, body: openaiError('server_error'), times: 40 }]),
  upstream('a proxy says 504 while the call runs', 1, 2_000, [
    { kind: 'refuse', status: 504, body: '<html>gateway time-out</html>', billed: true, times: 15 },
  ]),
  upstream('cut in the middle of the answer', 1, 2_000, [{ kind: 'cut', after: 'half', times: 15 }]),
  upstream('connection reset', 1, 2_000, [{ kind: 'reset', times: 15 }]),
  upstream('hangs', 1, 4_000, [{ kind: 'hang', times: 10 }]),
  upstream('slow', 1, 3_000, [{ kind: 'answer', delayMs: 3_000, times: 80 }]),
  upstream('garbage with status 200', 1, 2_000, [{ kind: 'garbage', times: 15 }]),
  {
    kind: 'producer: kill -9',
    weight: 2,
    touches: () => ['producers'],
    run(fleet, planned) {
      chosen(fleet.producers, planned).end('SIGKILL')
      return Promise.resolve(none)
    },
  },
]
