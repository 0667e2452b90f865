import { setTimeout as sleep } from 'node:timers/promises'
import { openaiError } from '@askonce/testkit'
import { callTimeoutSeconds, leaseMs, type Fleet } from './fleet.ts'
import type { EmbeddedFleet } from './embedded-fleet.ts'
import type { ServerFleet } from './server-fleet.ts'
import type { Supervised } from './supervised.ts'

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

const none: Aftermath = {}

function between(shortestMs: number, longestMs: number, { length }: Planned): Promise<void> {
  return sleep(shortestMs + length * (longestMs - shortestMs))
}

function chosen<T>(list: readonly T[], { target }: Planned): T {
  const one = list[target % list.length]
  if (one === undefined) throw new Error('nothing to choose from')
  return one
}

/** Long enough that the janitors see the whole lease pass. */
const beyondLease = [leaseMs + 1_500, leaseMs + 3_000] as const

async function frozen(processes: readonly Supervised[], [low, high]: readonly [number, number], planned: Planned) {
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

const commonFaults: readonly Fault<Fleet>[] = [
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
  upstream('hangs', 1, callTimeoutSeconds * 500, [{ kind: 'hang', times: 10 }]),
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

/** A fault that ends at once: a signal to one process of a role. */
function signalled(
  role: 'api' | 'worker' | 'janitor',
  signal: 'SIGKILL' | 'SIGTERM',
  weight: number,
): Fault<ServerFleet> {
  return {
    kind: `${role}: ${signal === 'SIGKILL' ? 'kill -9' : signal}`,
    weight,
    touches: ({ target }) => [`${role} ${target % (role === 'worker' ? 3 : 2)}`],
    run(fleet, planned) {
      const list = { api: fleet.apis, worker: fleet.workers, janitor: fleet.janitors }[role]
      const victim = chosen(list, planned)
      const { pid } = victim
      victim.end(signal)
      if (role === 'worker') return Promise.resolve({ lostPids: [pid] })
      return Promise.resolve(role === 'api' ? { address: chosen(fleet.addresses, planned) } : none)
    },
  }
}

const everyWorker = ['worker 0', 'worker 1', 'worker 2']
const everyProcess = [...everyWorker, 'api 0', 'api 1', 'janitor 0', 'janitor 1']

/** Something is done to the connections of a proxy for a while; then they are all cut, for bytes may be missing in them. */
function stalled(
  name: 'postgres' | 'redis',
  what: 'hold' | 'stallReplies' | 'refuse',
  kind: string,
): Fault<ServerFleet> {
  return {
    kind: `${name}: ${kind}`,
    weight: 1,
    touches: () => [name],
    async run(fleet, planned) {
      const proxy = name === 'postgres' ? fleet.postgresProxy : fleet.redisProxy
      proxy[what]()
      if (what === 'refuse') proxy.cutAll()
      await between(1_000, 4_000, planned)
      proxy.accept()
      proxy.cutAll()
      return none
    },
  }
}

function cut(name: 'postgres' | 'redis'): Fault<ServerFleet> {
  return {
    kind: `${name}: every connection cut`,
    weight: 1,
    touches: () => [name],
    run(fleet) {
      const proxy = name === 'postgres' ? fleet.postgresProxy : fleet.redisProxy
      proxy.cutAll()
      return Promise.resolve(none)
    },
  }
}

export const serverFaults: readonly Fault<ServerFleet>[] = [
  ...commonFaults,
  signalled('worker', 'SIGKILL', 3),
  signalled('worker', 'SIGTERM', 1),
  signalled('api', 'SIGKILL', 3),
  signalled('api', 'SIGTERM', 1),
  signalled('janitor', 'SIGKILL', 1),
  {
    kind: 'worker: all killed',
    weight: 1,
    touches: () => everyWorker,
    run(fleet) {
      const lostPids = fleet.workers.map(({ pid }) => pid)
      for (const worker of fleet.workers) worker.end('SIGKILL')
      return Promise.resolve({ lostPids })
    },
  },
  {
    kind: 'janitor: all killed',
    weight: 1,
    touches: () => ['janitor 0', 'janitor 1'],
    run(fleet) {
      for (const janitor of fleet.janitors) janitor.end('SIGKILL')
      return Promise.resolve(none)
    },
  },
  {
    kind: 'worker: frozen beyond the lease',
    weight: 1,
    touches: ({ target }) => [`worker ${target % 3}`],
    async run(fleet, planned) {
      const victim = chosen(fleet.workers, planned)
      const { pid } = victim
      await frozen([victim], beyondLease, planned)
      return { lostPids: [pid] }
    },
  },
  {
    kind: 'api: frozen',
    weight: 1,
    touches: ({ target }) => [`api ${target % 2}`],
    async run(fleet, planned) {
      await frozen([chosen(fleet.apis, planned)], [1_000, 5_000], planned)
      return { address: chosen(fleet.addresses, planned) }
    },
  },
  {
    kind: 'janitor: frozen beyond the lease',
    weight: 1,
    touches: ({ target }) => [`janitor ${target % 2}`],
    async run(fleet, planned) {
      await frozen([chosen(fleet.janitors, planned)], beyondLease, planned)
      return none
    },
  },
  {
    kind: 'whole program frozen beyond the lease',
    weight: 1,
    touches: () => everyProcess,
    async run(fleet, planned) {
      await frozen([...fleet.apis, ...fleet.workers, ...fleet.janitors], beyondLease, planned)
      return none
    },
  },
  {
    kind: 'postgres: frozen beyond the lease, all beats stale',
    weight: 1,
    touches: () => ['postgres'],
    async run(fleet, planned) {
      fleet.postgres.pause()
      await between(...beyondLease, planned)
      fleet.postgres.resume()
      return none
    },
  },
  {
    kind: 'postgres: restart, fast',
    weight: 1,
    touches: () => ['postgres'],
    async run(fleet) {
      await fleet.postgres.restart({ mode: 'fast' })
      return none
    },
  },
  {
    kind: 'postgres: killed, and recovers',
    weight: 2,
    touches: () => ['postgres'],
    async run(fleet, planned) {
      await fleet.postgres.kill()
      await between(0, 2_000, planned)
      await fleet.postgres.restart()
      return none
    },
  },
  cut('postgres'),
  stalled('postgres', 'hold', 'silence on every connection'),
  stalled('postgres', 'stallReplies', 'replies swallowed, commits happen'),
  stalled('postgres', 'refuse', 'connections refused'),
  {
    kind: 'redis: restart',
    weight: 1,
    touches: () => ['redis'],
    async run(fleet) {
      await fleet.redis.restart()
      return none
    },
  },
  {
    kind: 'redis: kill -9, away for a while',
    weight: 1,
    touches: () => ['redis'],
    async run(fleet, planned) {
      await fleet.redis.kill()
      await between(500, 4_000, planned)
      await fleet.redis.restart()
      return none
    },
  },
  {
    kind: 'redis: FLUSHALL',
    weight: 2,
    touches: () => ['redis'],
    async run(fleet) {
      await fleet.redis.flushAll()
      return none
    },
  },
  cut('redis'),
  stalled('redis', 'hold', 'silence on every connection'),
]

function killPostgres(fleet: EmbeddedFleet): void {
  for (const pid of fleet.postgresPids()) sendSignal(pid, 'SIGKILL')
}

function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch {
    // It has ended meanwhile.
  }
}

const program = (): readonly string[] => ['program', 'postgres']

export const embeddedFaults: readonly Fault<EmbeddedFleet>[] = [
  ...commonFaults,
  {
    kind: 'program: kill -9, its Postgres lives on',
    weight: 4,
    touches: program,
    run(fleet) {
      const lostPids = [fleet.program.pid]
      fleet.program.end('SIGKILL')
      return Promise.resolve({ lostPids })
    },
  },
  {
    kind: 'program: kill -9 together with its Postgres',
    weight: 4,
    touches: program,
    run(fleet) {
      const lostPids = [fleet.program.pid]
      fleet.program.end('SIGKILL')
      killPostgres(fleet)
      return Promise.resolve({ lostPids })
    },
  },
  {
    kind: 'program: SIGTERM',
    weight: 2,
    touches: program,
    run(fleet) {
      const lostPids = [fleet.program.pid]
      fleet.program.end('SIGTERM')
      return Promise.resolve({ lostPids })
    },
  },
  {
    kind: 'program: frozen beyond the lease',
    weight: 2,
    touches: program,
    async run(fleet, planned) {
      await frozen([fleet.program], beyondLease, planned)
      return none
    },
  },
  {
    kind: 'postgres: kill -9',
    weight: 3,
    touches: program,
    run(fleet) {
      killPostgres(fleet)
      return Promise.resolve(none)
    },
  },
  {
    kind: 'postgres: frozen beyond the lease, all beats stale',
    weight: 2,
    touches: program,
    async run(fleet, planned) {
      const pids = fleet.postgresPids()
      for (const pid of pids) sendSignal(pid, 'SIGSTOP')
      await between(...beyondLease, planned)
      for (const pid of pids) sendSignal(pid, 'SIGCONT')
      return none
    },
  },
]
