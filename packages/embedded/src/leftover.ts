import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { probe } from './connect.ts'
import { EmbeddedPostgresError } from './errors.ts'
import { readPassword } from './init.ts'
import { type PidFile, readPidFile } from './pid-file.ts'
import { type Postmaster, endPostmaster } from './postmaster.ts'
import { isServerOf, processStart, sendSignal, serverProcesses } from './process.ts'

export interface LeftoverOptions {
  /** Real path of the cluster. */
  readonly clusterDir: string
  readonly deadlineMs: number
  readonly onProgress: (text: string) => void
  /** Throws when the server must not be stopped because somebody alive is using it. */
  readonly mayStop: () => void
}

// A live server answers at once, if only that it is starting up. Silence for so long means that it never will.
const SILENT_MS = 8_000
// Processes without a postmaster end by themselves unless they are stopped or busy; a server that is just being started
// by somebody else looks the same until it has written its pid.
const ORPHAN_MS = 5_000

/**
 * Finds the server that is already running on a cluster, left by a killed process or shared with a live one, and waits
 * until it can be used. Undefined: nothing is running any more and a new server may be started; what could have been in
 * its way (a server that does not answer, backends whose postmaster died, a pid file naming another program) is gone.
 */
export async function findServer(options: LeftoverOptions): Promise<Postmaster | undefined> {
  const { clusterDir, deadlineMs } = options
  const began = performance.now()
  let silentSince: number | undefined
  let orphansSince: number | undefined
  for (;;) {
    const now = performance.now()
    const overdue = now - began > deadlineMs
    const file = readPidFile(clusterDir)
    const server = runningServer(clusterDir)
    if (server) {
      const state = await probe(server.port, readPassword(clusterDir), 3_000)
      if (state === 'ready') return server
      if (state === 'wrong_password') throw wrongPassword(clusterDir)
      orphansSince = undefined
      silentSince = state === 'silent' ? (silentSince ?? now) : undefined
      const lost = silentSince !== undefined && performance.now() - silentSince > SILENT_MS
      if (lost || (state === 'stopping' && overdue)) await replace(server, options)
      else if (overdue) throw stillStarting(server, options)
    } else {
      const orphans = serverProcesses(clusterDir)
      if (orphans.length === 0) return removeStale(clusterDir, file)
      if (overdue) throw undying(orphans, clusterDir)
      orphansSince ??= now
      if (now - orphansSince > ORPHAN_MS) {
        options.mayStop()
        for (const pid of orphans) sendSignal(pid, 'SIGKILL')
      }
    }
    await sleep(50)
  }
}

async function replace(server: Postmaster, { mayStop, onProgress }: LeftoverOptions): Promise<void> {
  mayStop()
  onProgress(`the database left by an earlier start (process ${server.pid}) does not answer; stopping it`)
  await endPostmaster(server, 'SIGINT', 5_000)
}

/** The server as the pid file shows it right now, without asking it; undefined when none is alive. */
export function runningServer(clusterDir: string): Postmaster | undefined {
  const file = readPidFile(clusterDir)
  if (file?.port === undefined || !isServerOf(file.pid, clusterDir, file.dataDir)) return undefined
  const start = processStart(file.pid)
  return start === undefined ? undefined : { pid: file.pid, port: file.port, start }
}

// The pid of a dead server is left to PostgreSQL, which also checks for its shared memory. But when that pid now belongs
// to another program (or to a zombie), PostgreSQL takes the file for a live server's and refuses to start.
function removeStale(clusterDir: string, file: PidFile | undefined): undefined {
  if (!file || isServerOf(file.pid, clusterDir, file.dataDir)) return
  try {
    process.kill(file.pid, 0)
  } catch {
    return
  }
  rmSync(join(clusterDir, 'postmaster.pid'), { force: true })
}

function stillStarting(server: Postmaster, { clusterDir, deadlineMs }: LeftoverOptions): EmbeddedPostgresError {
  return new EmbeddedPostgresError(
    'start_failed',
    `the database in ${clusterDir} (process ${server.pid}) is still starting up after ${deadlineMs / 1000} s; it goes on ` +
      'in the background. Start again later, and look at postgres.log beside it',
  )
}

function undying(pids: readonly number[], clusterDir: string): EmbeddedPostgresError {
  return new EmbeddedPostgresError(
    'start_failed',
    `processes of an earlier database in ${clusterDir} do not end: ${pids.join(', ')}. They probably wait for a disk that ` +
      'does not answer; nothing can be started before they are gone',
  )
}

function wrongPassword(clusterDir: string): EmbeddedPostgresError {
  return new EmbeddedPostgresError(
    'wrong_password',
    `the database in ${clusterDir} refuses the password in ${join(clusterDir, 'askonce.password')}: one of the two was ` +
      'changed. Put back the file that belongs to it',
  )
}
