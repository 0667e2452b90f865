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

/** The version that workers write beside their heartbeat. */
export const version = '0.1.0'
