import { execFileSync } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type Postmaster,
  type ServerFiles,
  chooseUser,
  endPostmaster,
  freePort,
  initCluster,
  launch,
  locateServer,
  readPassword,
  serverProcesses,
  sqlState,
  urlOf,
  withClient,
} from '@askonce/embedded'
import { findPostgres, retrack, track } from './servers.ts'

export interface TestPostgresOptions {
  /**
   * `embedded`: what `askonce start` uses. `system`: the PostgreSQL of the machine, 15 or later, see {@link findPostgres}.
   * Where the test does not care: ASKONCE_TEST_POSTGRES, else embedded.
   */
  readonly flavour?: 'embedded' | 'system'
  /** On for fault tests, where committed must mean on disk. Off by default: faster, and safe while the machine stays up. */
  readonly fsync?: boolean
  /** Server settings, for instance `{ max_connections: '20' }`. */
  readonly settings?: Readonly<Record<string, string>>
}

export interface TestDatabase {
  readonly name: string
  readonly url: string
  /** Drops it, cutting whoever is connected. */
  drop(): Promise<void>
}

/** How a server is brought down: `fast` as by its service manager, `immediate` without a checkpoint, `kill` by SIGKILL. */
export type DownMode = 'fast' | 'immediate' | 'kill'

/** A private PostgreSQL server in a temporary folder, on a port that it keeps. */
export interface TestPostgres {
  /** Of the database `postgres`. Superuser. */
  readonly url: string
  readonly port: number
  /** Of the postmaster. */
  readonly pid: number
  readonly major: number
  /** Its data directory, owned by the user that the server runs as. */
  readonly dataDirectory: string
  /** Makes an empty database, or a clone of `template`, which nobody may be connected to. */
  createDatabase(template?: { readonly name: string }): Promise<TestDatabase>
  /** Down by `mode` (default fast) unless it is down, and up again on the same port with the same data. */
  restart(options?: { readonly mode?: DownMode }): Promise<void>
  /** SIGKILL of the postmaster; resolves when all its processes are gone. Bring it back with `restart`. */
  kill(): Promise<void>
  /** Freezes the whole server: connections stay open and nothing answers. */
  pause(): void
  resume(): void
  /** Stops it and removes its folder. Safe to call twice. */
  stop(): Promise<void>
}

const env = process.env
const signalOf = { fast: 'SIGINT', immediate: 'SIGQUIT', kill: 'SIGKILL' } as const

/** Folder of a cluster that is copied instead of making a new one each time. */
const preparedVariable = 'ASKONCE_TEST_CLUSTER'

/** Makes a cluster that the embedded servers of this process and its children start from. Returns what removes it. */
export async function prepareCluster(): Promise<() => Promise<void>> {
  const folder = mkdtempSync(join(tmpdir(), 'askonce-cluster-'))
  const remove = (): Promise<void> => {
    rmSync(folder, { recursive: true, force: true })
    untrack()
    return Promise.resolve()
  }
  const untrack = track({ what: `cluster in ${folder}`, pids: () => [], folder, stop: remove })
  chmodSync(folder, 0o711)
  const clusterDir = join(folder, 'postgres')
  await initCluster(await locateServer(chooseUser(clusterDir), folder), clusterDir, { sync: false })
  env[preparedVariable] = clusterDir
  return remove
}

/** Starts a private server; takes one to two seconds. It must be stopped by the end of the test file, see leakCheck. */
export async function startTestPostgres(options: TestPostgresOptions = {}): Promise<TestPostgres> {
  const { flavour = env['ASKONCE_TEST_POSTGRES'] === 'system' ? 'system' : 'embedded', fsync = false } = options
  const folder = mkdtempSync(join(tmpdir(), 'askonce-postgres-'))
  // An older server of the system, which for root runs as somebody else, must be able to pass it.
  chmodSync(folder, 0o711)
  const clusterDir = join(folder, 'postgres')
  const files = flavour === 'embedded' ? await locateServer(chooseUser(clusterDir), folder) : systemFiles(clusterDir)
  const onOff = fsync ? 'on' : 'off'
  const port = await freePort()
  const start = async (): Promise<Postmaster> =>
    await launch({
      files,
      clusterDir,
      logFile: join(folder, 'postgres.log'),
      port,
      settings: { fsync: onOff, full_page_writes: onOff, ...options.settings },
      deadlineMs: 60_000,
    })

  let server: Postmaster | undefined
  let paused: number[] = []
  let databases = 0
  const untrack = track({
    what: `PostgreSQL in ${folder}`,
    pids: () => (server ? [server.pid, ...paused] : []),
    folder,
    stop: async () => await stop(),
  })

  const resume = (): void => {
    for (const pid of paused) signal(pid, 'SIGCONT')
    paused = []
    retrack()
  }
  const down = async (mode: DownMode): Promise<void> => {
    resume()
    if (server) await endPostmaster(server, signalOf[mode])
    await endOrphans(clusterDir)
    if (server) await untilReaped(server.pid)
    server = undefined
    retrack()
  }
  const up = async (): Promise<void> => {
    server = await start()
    retrack()
  }
  const stop = async (): Promise<void> => {
    await down('immediate')
    rmSync(folder, { recursive: true, force: true })
    untrack()
  }

  try {
    const prepared = env[preparedVariable]
    // With owner and modes, which the server insists on. What a kill can undo is written by the server itself, after this.
    if (prepared !== undefined && flavour === 'embedded') execFileSync('cp', ['-a', prepared, clusterDir])
    else await initCluster(files, clusterDir, { sync: fsync })
    await up()
  } catch (error) {
    await stop()
    throw error
  }
  const password = readPassword(clusterDir)
  const url = urlOf(port, password, 'postgres')
  return {
    url,
    port,
    major: files.major,
    dataDirectory: clusterDir,
    get pid() {
      return server?.pid ?? 0
    },
    async createDatabase(template) {
      databases += 1
      const name = `test_${databases}`
      await clone(url, name, template?.name ?? 'template1')
      return {
        name,
        url: urlOf(port, password, name),
        drop: async () => await run(url, `drop database if exists ${name} with (force)`),
      }
    },
    async restart({ mode = 'fast' } = {}) {
      await down(mode)
      await up()
    },
    kill: async () => await down('kill'),
    pause() {
      if (!server) throw new Error('the server is down')
      // The postmaster first, or it would start more.
      paused = [server.pid]
      signal(server.pid, 'SIGSTOP')
      for (const pid of serverProcesses(clusterDir).filter((other) => other !== server?.pid)) {
        paused.push(pid)
        signal(pid, 'SIGSTOP')
      }
      retrack()
    },
    resume,
    stop,
  }
}

function systemFiles(clusterDir: string): ServerFiles {
  const { bin, major } = findPostgres()
  return { initdb: join(bin, 'initdb'), postgres: join(bin, 'postgres'), major, runAs: chooseUser(clusterDir) }
}

async function clone(url: string, name: string, template: string): Promise<void> {
  for (let left = 50; ; left -= 1) {
    try {
      return await run(url, `create database ${name} template ${template}`)
    } catch (error) {
      // 55006: a connection to the template that its client has closed is still ending.
      if (sqlState(error) !== '55006' || left === 0) throw error
      await sleep(100)
    }
  }
}

async function run(url: string, statement: string): Promise<void> {
  await withClient(url, 10_000, async (client) => void (await client.query(statement)))
}

// Without their postmaster the others end by themselves, save one that is busy.
/** A dead child that Node has not reaped yet still has its pid, and the next server would take its folder for in use. */
async function untilReaped(pid: number): Promise<void> {
  const began = performance.now()
  while (exists(pid) && performance.now() - began < 3_000) await sleep(5)
}

function exists(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

async function endOrphans(clusterDir: string): Promise<void> {
  const began = performance.now()
  for (;;) {
    const left = serverProcesses(clusterDir)
    if (left.length === 0) return
    if (performance.now() - began > 3_000) for (const pid of left) signal(pid, 'SIGKILL')
    await sleep(10)
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch {
    // It has ended.
  }
}
