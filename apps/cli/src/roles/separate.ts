import { startApi } from '@askonce/api'
import { startJanitor } from '@askonce/janitor'
import { createLog, createMetrics } from '@askonce/telemetry'
import { startWorker } from '@askonce/worker'
import { databaseUrlOf, queueOf, readConfig } from './environment.ts'
import { startHealthServer } from './health.ts'
import { requireSchema } from './schema.ts'
import { catchSignals, untilAborted } from './signals.ts'

export type SeparateRole = 'api' | 'worker' | 'janitor'

interface Running {
  problems?: () => Promise<string[]> | string[]
  stop: () => Promise<void>
  hurry?: () => void
}

/** Runs one role as this process until a signal ends it. Servers that are away are waited for; the schema is never changed. */
export async function runSeparate(role: SeparateRole): Promise<void> {
  const config = readConfig()
  const databaseUrl = databaseUrlOf(config)
  const queue = queueOf(config, databaseUrl)
  const log = createLog({ level: config.log.level, role })
  const metrics = createMetrics()
  const signals = catchSignals()
  await requireSchema(databaseUrl, queue.kind === 'postgres', log, signals.first)
  const context = { config, databaseUrl, queue, log, metrics }

  const running = await startRole(role, context)
  const port = config.http.healthPort
  const health =
    running.problems === undefined || port === null
      ? null
      : await startHealthServer({ host: config.http.host, port, metrics, problems: running.problems })
  await untilAborted(signals.first)
  void untilAborted(signals.second).then(() => running.hurry?.())
  await running.stop()
  await health?.close()
}

async function startRole(role: SeparateRole, context: Parameters<typeof startApi>[0]): Promise<Running> {
  if (role === 'api') {
    const api = await startApi(context)
    return { stop: () => api.close() }
  }
  return role === 'worker' ? startWorker(context) : startJanitor(context)
}
