import { beyondLease, between, chosen, commonFaults, frozen, none, type Fault } from './faults.ts'
import type { ServerFleet } from './server-fleet.ts'

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
