import type { Config } from '@askonce/config'
import type { QueueConnection } from '@askonce/queue'
import type { Log, Metrics } from '@askonce/telemetry'

/** What a worker is built from. */
export interface WorkerContext {
  config: Config
  databaseUrl: string
  queue: QueueConnection
  log: Log
  metrics: Metrics
}
