import { realpathSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { type ServerFiles, locateServer } from './binaries.ts'
import { ensureDatabase, urlOf } from './connect.ts'
import { EmbeddedPostgresError, fileError } from './errors.ts'
import { USER, initCluster, makeFolder, readPassword, requireVersion } from './init.ts'
import { findServer, runningServer } from './leftover.ts'
import { type Owner, acquireOwner, alreadyRunning, readOwner } from './owner.ts'
import { type Postmaster, endPostmaster, launch } from './postmaster.ts'
import { chooseUser } from './run-as.ts'
import { supervise } from './supervise.ts'

export interface EmbeddedOptions {
  /** For instance `.askonce`. Holds `postgres/` (the cluster), `postgres.log` and `owner.json`. */
  readonly dataDir: string
  /** Steps that take a moment, while starting, for people. */
  readonly onProgress?: (text: string) => void
  /** What happens later: a crash of the server and its restart. */
  readonly log?: (text: string) => void
}

/** A running embedded PostgreSQL that belongs to this process. */
export interface Embedded {
  /** `postgres://askonce:…@127.0.0.1:PORT/askonce`; the port stays the same for as long as this process lives. */
  readonly url: string
  /** Pid of the postmaster. */
  readonly pid: number
  /** True when the server had outlived an earlier owner and was taken over. */
  readonly tookOver: boolean
  readonly owner: Owner
  /** Stops the server, fast and then by force, and gives the data directory up. Call it last. Safe to call twice. */
  stop(): Promise<void>
}

// Crash recovery after gigabytes of unflushed changes takes a while; stopping it half-way only starts it over.
const DEADLINE_MS = 120_000

// Durability is the product's first promise, so these are said and not left to a configuration file.
const SETTINGS = { fsync: 'on', synchronous_commit: 'on', full_page_writes: 'on', cluster_name: 'askonce' }

/**
 * Starts the embedded PostgreSQL of a data directory, or takes over the one that a killed process left running, and makes
 * this process the directory's owner. The server runs in a session of its own and is restarted when it crashes.
 *
 * Throws EmbeddedPostgresError; `already_running` when a live process owns the directory, whose server is left alone.
 */
export async function startEmbedded(options: EmbeddedOptions): Promise<Embedded> {
  const { onProgress = () => {}, log = () => {} } = options
  const { dataDir, clusterDir, files } = await prepare(resolve(options.dataDir), onProgress)
  const password = readPassword(clusterDir)
  const mayStop = (): void => {
    const other = readOwner(dataDir)
    if (other && other.pid !== process.pid) throw alreadyRunning(dataDir, other)
  }
  const find = async (): Promise<Postmaster | undefined> =>
    await findServer({ clusterDir, deadlineMs: DEADLINE_MS, onProgress, mayStop })
  const start = async (port?: number): Promise<Postmaster> =>
    await launch({
      files,
      clusterDir,
      logFile: join(dataDir, 'postgres.log'),
      settings: SETTINGS,
      deadlineMs: DEADLINE_MS,
      onProgress,
      ...(port === undefined ? {} : { port }),
    })

  const found = await find()
  const server = found ?? (await startUnlessStarted(start, find))
  let owner: Owner
  try {
    await ensureDatabase(server.port, password, USER)
    owner = await acquireOwner({ dataDir, url: urlOf(server.port, password, USER), log })
  } catch (error) {
    const refused = error instanceof EmbeddedPostgresError && error.code === 'already_running'
    if (!refused && !found) await endPostmaster(server)
    throw fileError(error, 'opening the database in', clusterDir)
  }

  const supervisor = supervise(server, async () => (await find()) ?? (await start(server.port)), log)
  const stop = async (): Promise<void> => {
    const current = await supervisor.stop()
    owner.retire()
    await endPostmaster(current)
    await owner.release()
  }
  let stopping: Promise<void> | undefined
  return {
    url: urlOf(server.port, password, USER),
    get pid() {
      return supervisor.current().pid
    },
    tookOver: found !== undefined,
    owner,
    stop: async () => await (stopping ??= stop()),
  }
}

/** URL of the embedded database that is running on a data directory, for commands beside the server; undefined when none is. */
export function embeddedUrl(dataDir: string): string | undefined {
  const clusterDir = join(resolve(dataDir), 'postgres')
  const server = runningServer(clusterDir)
  return server && urlOf(server.port, readPassword(clusterDir), USER)
}

async function prepare(
  wanted: string,
  onProgress: (text: string) => void,
): Promise<{ dataDir: string; clusterDir: string; files: ServerFiles }> {
  let dataDir = wanted
  try {
    makeFolder(wanted)
    dataDir = realpathSync(wanted)
  } catch (error) {
    throw fileError(error, 'creating the data directory', wanted)
  }
  const clusterDir = join(dataDir, 'postgres')
  const files = await locateServer(chooseUser(clusterDir), dataDir)
  requireVersion(clusterDir, files.major)
  await initCluster(files, clusterDir, { onCreate: () => onProgress('creating the embedded database (first start)') })
  return { dataDir, clusterDir, files }
}

// Two first starts at one moment both find nothing. PostgreSQL lets one server win; the other start then finds that one.
async function startUnlessStarted(
  start: () => Promise<Postmaster>,
  find: () => Promise<Postmaster | undefined>,
): Promise<Postmaster> {
  try {
    return await start()
  } catch (error) {
    const found = await find().catch(() => undefined)
    if (found) return found
    throw error
  }
}
