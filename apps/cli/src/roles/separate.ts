import type { Config } from '@askonce/config'
import { apiDrainMs } from '@askonce/core'
import type { QueueConnection } from '@askonce/queue'
import { createMetrics, type Log, type Metrics } from '@askonce/telemetry'
import { databaseUrlOf, poolerUrlOf, queueOf, readConfig } from './environment.ts'
import { startHealthServer } from './health.ts'
import { openLog } from './log.ts'
import { refuseToLose } from './lost.ts'
import { warnOfOpenFiles } from './open-files.ts'
import { requirePooler, requireSchema } from './schema.ts'
import { catchSignals, openLastResort, untilAborted } from './signals.ts'

export type SeparateRole = 'api' | 'worker' | 'janitor'

interface Context {
  config: Config
  databaseUrl: string
  poolerUrl: string | null
  queue: QueueConnection
  log: Log
  metrics: Metrics
}

interface Running {
  problems?: () => Promise<string[]> | string[]
  stop: () => Promise<void>
  hurry?: () => void
  lost?: () => string[]
}

/** Runs one role as this process until a signal ends it. Servers that are away are waited for; the schema is never changed. */
export async function runSeparate(role: SeparateRole): Promise<void> {
  const config = readConfig()
  const databaseUrl = databaseUrlOf(config)
  const poolerUrl = poolerUrlOf(config)
  const queue = queueOf(config, databaseUrl)
  const log = openLog(config.log.level, role)
  const metrics = createMetrics()
  const signals = catchSignals()
  warnOfOpenFiles(role, config, log)
  const lastResort = openLastResort(signals, drainOf(role, config), log)
  await requireSchema(databaseUrl, queue.kind === 'postgres', log, signals.first)
  if (poolerUrl !== null) await requirePooler(poolerUrl, databaseUrl, log, signals.first)
  const context = { config, databaseUrl, poolerUrl, queue, log, metrics }

  const running = await startRole(role, context)
  const port = config.http.healthPort
  const health =
    running.problems === undefined || port === null
      ? null
      : await startHealthServer({ host: config.http.host, port, metrics, problems: running.problems })
  await untilAborted(signals.first)
  void untilAborted(signals.second).then(() => running.hurry?.())
  await lastResort.during(`the ${role}`, running.stop())
  await health?.close()
  refuseToLose(running.lost?.() ?? [])
}

/** How long what is under way may go on after the first signal. */
function drainOf(role: SeparateRole, { worker }: Config): number {
  return { api: apiDrainMs, worker: worker.drainMs, janitor: 0 }[role]
}

// Imported where they are needed: a worker does not wait for the HTTP server's code to load.
async function startRole(role: SeparateRole, context: Context): Promise<Running> {
  switch (role) {
    case 'api': {
      const api = await (await import('@askonce/api')).startApi(context)
      return { stop: () => api.close() }
    }
    case 'worker':
      return (await import('@askonce/worker')).startWorker(context)
    case 'janitor':
      return (await import('@askonce/janitor')).startJanitor(context)
  }
}
