import type { EmbeddedFleet } from './embedded-fleet.ts'
import { beyondLease, between, commonFaults, frozen, none, type Fault } from './faults.ts'

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
