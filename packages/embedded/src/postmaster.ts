import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { closeSync, fstatSync, ftruncateSync, openSync, readSync } from 'node:fs'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ServerFiles } from './binaries.ts'
import { EmbeddedPostgresError, fileError, outputError } from './errors.ts'
import { readPidFile } from './pid-file.ts'
import { type ProcessId, isAlive, processStart, sendSignal, waitUntilGone } from './process.ts'

/** A server that accepts connections on 127.0.0.1. */
export interface Postmaster extends ProcessId {
  readonly port: number
}

export interface LaunchOptions {
  readonly files: ServerFiles
  readonly clusterDir: string
  /** Appended to; emptied first when it has grown over 10 MB. */
  readonly logFile: string
  /** Fixed port; without it a free one is chosen, again when somebody else takes it meanwhile. */
  readonly port?: number
  /** Server settings on top of {@link BASE_SETTINGS}. */
  readonly settings: Readonly<Record<string, string>>
  /** How long it may take until connections are accepted, crash recovery included. */
  readonly deadlineMs: number
  readonly onProgress?: (text: string) => void
}

const BASE_SETTINGS = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  max_connections: '200',
  timezone: 'UTC',
  log_timezone: 'UTC',
  log_checkpoints: 'off',
  logging_collector: 'off',
  log_destination: 'stderr',
}

const LOG_LIMIT_BYTES = 10 * 1024 * 1024
const PORT_TRIES = 5

/**
 * How the cluster's folder is named to a program that runs with it as working directory. Node changes directory before
 * it gives up root, so this way the server needs no right to pass the folders above (a project below /root, a folder
 * made by mktemp); a path would need it. PostgreSQL before 16 leaves its working directory for a moment while it looks
 * for its own program, so there the folder must be reachable.
 */
export function dataArgument(dir: string, files: ServerFiles): string {
  const stays = process.platform === 'linux' && files.major >= 16
  return stays && files.runAs.ids.uid !== undefined ? '/proc/self/cwd' : dir
}

/**
 * Starts a server in a session of its own: a Ctrl-C, which goes to the terminal's whole group, does not reach it, and
 * the death of this process does not end it. Resolves when it accepts connections.
 *
 * Throws EmbeddedPostgresError quoting the log's end. If the server is still recovering at the deadline it is left to it.
 */
export async function launch(options: LaunchOptions): Promise<Postmaster> {
  const log = openLog(options.logFile)
  try {
    for (let tries = 1; ; tries += 1) {
      const port = options.port ?? (await freePort())
      const from = fstatSync(log).size
      const outcome = await tryLaunch(options, port, log)
      if (typeof outcome === 'object') return outcome
      const output = readFrom(log, from)
      if (outcome === 'slow') throw tooSlow(options, output)
      const portTaken = /Address already in use/.test(output)
      if (!portTaken || options.port !== undefined || tries === PORT_TRIES) {
        throw outputError(output, 'starting PostgreSQL in', options.clusterDir)
      }
    }
  } finally {
    closeSync(log)
  }
}

/** Fast shutdown, immediate shutdown (the next start recovers), the end without either. */
export type StopSignal = 'SIGINT' | 'SIGQUIT' | 'SIGKILL'

/** Stops a server, beginning with `first`, which gets `patienceMs`; then by the harder signals. Resolves when it is gone. */
export async function endPostmaster(id: ProcessId, first: StopSignal = 'SIGINT', patienceMs = 30_000): Promise<void> {
  const all = ['SIGINT', 'SIGQUIT', 'SIGKILL'] as const
  for (const signal of all.slice(all.indexOf(first))) {
    if (!isAlive(id)) return
    sendSignal(id.pid, signal)
    // One that was stopped (SIGSTOP) would not notice.
    sendSignal(id.pid, 'SIGCONT')
    if (await waitUntilGone(id, signal === first ? patienceMs : 5_000)) return
  }
  throw new EmbeddedPostgresError(
    'start_failed',
    `the PostgreSQL process ${id.pid} does not end, not even by SIGKILL: it probably waits for a disk that does not answer`,
  )
}

async function tryLaunch(options: LaunchOptions, port: number, log: number): Promise<Postmaster | 'exited' | 'slow'> {
  const { files, clusterDir } = options
  const settings = Object.entries({ ...BASE_SETTINGS, ...options.settings }).flatMap(([key, value]) => [
    '-c',
    `${key}=${value}`,
  ])
  const args = ['-D', dataArgument(clusterDir, files), '-p', String(port), ...settings]
  const child = spawn(files.postgres, args, {
    ...files.runAs.ids,
    cwd: clusterDir,
    env: { LC_ALL: 'C', PATH: '/usr/bin:/bin' },
    stdio: ['ignore', log, log],
    detached: true,
  })
  let failed: Error | undefined
  child.once('error', (error) => (failed = error))
  child.unref()
  const { pid } = child
  const started = performance.now()
  let patient = false
  for (;;) {
    await sleep(15)
    if (failed !== undefined) throw fileError(failed, `starting PostgreSQL as ${files.runAs.name} in`, clusterDir)
    if (pid === undefined || child.exitCode !== null || child.signalCode !== null) return 'exited'
    const file = readPidFile(clusterDir)
    if (file?.pid === pid && file.status === 'ready') return { pid, port, start: processStart(pid) ?? '' }
    const elapsedMs = performance.now() - started
    if (elapsedMs > options.deadlineMs) return 'slow'
    if (elapsedMs > 2_000 && !patient) {
      patient = true
      options.onProgress?.('PostgreSQL is recovering what was committed before it was killed')
    }
  }
}

function tooSlow(options: LaunchOptions, output: string): EmbeddedPostgresError {
  return new EmbeddedPostgresError(
    'start_failed',
    `PostgreSQL in ${options.clusterDir} does not accept connections after ${options.deadlineMs / 1000} s. It goes on in ` +
      `the background; start again later to use it. The end of ${options.logFile}:\n${output.trim().split('\n').slice(-12).join('\n')}`,
  )
}

/**
 * A port of 127.0.0.1 that was free a moment ago. Below the range that outgoing connections are given: while a server is
 * down, one of the clients that keep connecting to its port would otherwise be given that very port and connect to
 * itself, and the server could not come back.
 */
export async function freePort(): Promise<number> {
  for (let tries = 1; tries <= 50; tries += 1) {
    const port = randomInt(20_000, 32_000)
    if (await isFree(port)) return port
  }
  throw new EmbeddedPostgresError('start_failed', 'found no free port on 127.0.0.1 between 20000 and 32000')
}

async function isFree(port: number): Promise<boolean> {
  return await new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}

function openLog(path: string): number {
  try {
    const fd = openSync(path, 'a+', 0o600)
    if (fstatSync(fd).size > LOG_LIMIT_BYTES) ftruncateSync(fd)
    return fd
  } catch (error) {
    throw fileError(error, 'opening', path)
  }
}

function readFrom(fd: number, from: number): string {
  const size = Math.min(fstatSync(fd).size - from, 64 * 1024)
  if (size <= 0) return ''
  const buffer = Buffer.alloc(size)
  readSync(fd, buffer, 0, size, fstatSync(fd).size - size)
  return buffer.toString()
}
