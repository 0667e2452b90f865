import { connectionsWithin, filesOfApi, filesOfWorker, openFilesLimit, type Config } from '@askonce/config'
import type { Log } from '@askonce/telemetry'

/** Says at the start of a process when it may open fewer files and connections than its work can need. */
export function warnOfOpenFiles(role: 'start' | 'api' | 'worker' | 'janitor', config: Config, log: Log): void {
  const limit = openFilesLimit()
  if (limit === null) return
  const works = role === 'start' || role === 'worker'
  const serves = role === 'start' || role === 'api'
  const needed = (serves ? filesOfApi(config) : 0) + (works ? filesOfWorker(config) : 0)
  if (limit >= needed) return
  const what = serves
    ? `${needed} are needed for all connections that an API takes; with this limit it takes ${connectionsWithin(limit, config)}`
    : `${needed} are needed for the calls of ASKONCE_CONCURRENCY and their answers`
  log.event('process.open_files_low', { count: limit, reason: what })
}
