import type { Config } from '@askonce/config'
import type { QueueConnection } from '@askonce/queue'
import type { Db } from '@askonce/store'
import type { Log, Metrics } from '@askonce/telemetry'
import type { BodyDigests } from './body-digests.ts'
import type { CostlyReads } from './costly-reads.ts'
import type { JobReader } from './job-reader.ts'
import type { KeyRing } from './key-ring.ts'
import type { LaneBook } from './lane-book.ts'
import type { Intake } from '@askonce/intake'
import type { Readiness } from './readiness.ts'
import type { Submissions } from './submissions.ts'
import type { StreamHub } from './stream-hub.ts'
import type { WaitHub } from './wait-hub.ts'
import type { WaitReasons } from './waiting.ts'

/** What the API is started with. */
export interface ApiContext {
  config: Config
  /** Of the server itself. */
  databaseUrl: string
  /** Of a pooler in transaction mode for the statements that it can carry; null or absent: none. */
  poolerUrl?: string | null
  queue: QueueConnection
  log: Log
  metrics: Metrics
  /** Why the worker in this process cannot work at this moment; absent: there is none. */
  workerProblems?: () => Promise<string[]>
}

/** What the routes work with. */
export interface Parts {
  config: Config
  log: Log
  metrics: Metrics
  db: Db
  keys: KeyRing
  intake: Intake
  digests: BodyDigests
  submissions: Submissions
  jobs: JobReader
  reads: CostlyReads
  waits: WaitHub
  streams: StreamHub
  lanes: LaneBook
  waiting: WaitReasons
  readiness: Readiness
  /** Reads the lanes from the database now. */
  refreshLanes: () => Promise<void>
  /**
   * Tells every process that these jobs have settled, or were taken from a call that is under way, or that these batches are new. Hints:
   * a lost one costs half a second, that of a batch five.
   */
  announce: (news: 'settled' | 'interrupted' | 'batches', ids: readonly string[]) => void
  /** Tells every process that a lane has changed. */
  announceLane: (name: string) => void
  /** Tells workers that there is work in these lanes. */
  wake: (lanes: readonly string[]) => void
}
