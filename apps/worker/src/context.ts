import type { Config } from '@askonce/config'
import type { QueueConnection } from '@askonce/queue'
import type { Log, Metrics } from '@askonce/telemetry'

/** What a worker is built from. */
export interface WorkerContext {
  config: Config
  /** Of the server itself. */
  databaseUrl: string
  /** Of a pooler in transaction mode for the statements that it can carry; null or absent: none. */
  poolerUrl?: string | null
  queue: QueueConnection
  log: Log
  metrics: Metrics
}
