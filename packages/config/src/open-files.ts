import type { Config } from './config.ts'

/** Connections of clients that an API holds at most. */
const mostConnections = 10_000

/** What a process has open besides what is counted here: programs, threads, log, Redis, listeners. */
const base = 100

/** How many files and connections this process may have open at once (RLIMIT_NOFILE, `ulimit -n`); null: no limit, or none that can be found out. */
export function openFilesLimit(): number | null {
  // Otherwise it would look up the names of all that the process is connected to.
  Object.assign(process.report, { excludeNetwork: true })
  const { userLimits } = process.report.getReport() as { userLimits?: { open_files?: { soft: unknown } } }
  const limit = userLimits?.open_files?.soft
  return typeof limit === 'number' ? limit : null
}

/** What a worker may have open: for each call a connection, and a file of the spool should its answer not be stored. */
export function filesOfWorker({ worker, database }: Config): number {
  return base + database.poolSize + 2 * worker.concurrency
}

/** What an API may have open. */
export function filesOfApi({ database }: Config): number {
  return base + database.poolSize + mostConnections
}

/**
 * Connections of clients that an API may take: what is left beside its own, and beside a worker in the same process. At the limit itself
 * nothing could be opened any more, neither a connection to Postgres nor a file of the spool.
 */
export function connectionsWithin(limit: number | null, config: Config): number {
  if (limit === null) return mostConnections
  const left = limit - (filesOfApi(config) - mostConnections) - filesOfWorker(config)
  return Math.min(mostConnections, Math.max(Math.floor(limit / 2), left))
}
