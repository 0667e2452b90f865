import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  findRedis,
  leakCheck,
  reapAll,
  spawnNode,
  startTestPostgres,
  startTestRedis,
  type Child,
  type ChildOptions,
  type TestDatabase,
  type TestPostgres,
  type TestRedis,
} from '@askonce/testkit'
import type { BenchOptions } from './options.ts'
import { query } from './query.ts'
import { forgetCommands, statementSettings, watchStatements } from './server-costs.ts'

/** The servers that every contender of a run uses, and how processes are started beside them. */
export interface Bench {
  options: BenchOptions
  postgres: TestPostgres
  redis: TestRedis
  /** Temporary; gone after the run. */
  directory: string
  /** Aborted by Ctrl-C. */
  signal: AbortSignal
  /** The size of a measurement: the first in a real run, the second in a smoke run. */
  pick(usual: number, smoke: number): number
  /** A name that no key or database has had. */
  fresh(what: string): string
  /** An empty database on a server that has nothing left to write of what was before, and an empty Redis. */
  cleanDatabase(): Promise<TestDatabase>
  /** Starts a process whose standard output goes to a file. */
  spawn(script: string, options: ChildOptions): Logged
  /** Writes what is too long for an argument to a file, and says where. */
  file(content: unknown): Promise<string>
  stop(): Promise<void>
}

/** A process and what it has written. */
export interface Logged {
  child: Child
  /** The first line that matches, once it is there. Rejects, quoting the output, at the process's end or the timeout. */
  line(pattern: RegExp, timeoutMs: number): Promise<string>
}

/** Not the defaults, for everybody alike: no checkpoint falls into a measurement of a few seconds. */
export const postgresSettings = { max_connections: '200', shared_buffers: '512MB', max_wal_size: '8GB' }

/** Starts PostgreSQL with fsync and Redis with AOF. @throws in plain words when one of them cannot be had */
export async function startBench(options: BenchOptions, signal: AbortSignal): Promise<Bench> {
  // Before anything is started: a machine without Redis is told at once.
  findRedis()
  const directory = await mkdtemp(join(tmpdir(), 'askonce-bench-'))
  let postgres: TestPostgres | undefined
  let redis: TestRedis | undefined
  let names = 0
  const stop = async (): Promise<void> => {
    await reapAll()
    await redis?.stop()
    await postgres?.stop()
    await rm(directory, { recursive: true, force: true })
    await leakCheck()
  }
  try {
    const settings = { ...postgresSettings, ...(options.profile === null ? {} : statementSettings) }
    postgres = await startTestPostgres({ fsync: true, settings })
    if (options.profile !== null) await watchStatements(postgres.url)
    redis = await startTestRedis({ appendonly: true })
  } catch (error) {
    await stop()
    throw new Error(`the servers of the benchmark did not start: ${(error as Error).message}`, { cause: error })
  }
  // Whatever is being waited for ends then: nobody waits for a measurement to be over.
  signal.addEventListener('abort', () => void reapAll(), { once: true })
  const servers = { postgres, redis }
  const fresh = (what: string): string => {
    names += 1
    return `${what}-${names}`
  }
  const bench: Bench = {
    options,
    ...servers,
    directory,
    signal,
    pick: (usual, smoke) => (options.smoke ? smoke : usual),
    fresh,
    async cleanDatabase() {
      signal.throwIfAborted()
      await servers.redis.flushAll()
      if (options.profile !== null) await forgetCommands(servers.redis.port)
      const database = await servers.postgres.createDatabase()
      await query(servers.postgres.url, 'checkpoint')
      return database
    },
    spawn(script, given) {
      const stdoutFile = join(directory, `${fresh('output')}.log`)
      const child = spawnNode(script, { ...given, stdoutFile })
      return { child, line: (pattern, timeoutMs) => lineOf(child, stdoutFile, pattern, timeoutMs) }
    },
    async file(content) {
      const path = join(directory, `${fresh('spec')}.json`)
      await writeFile(path, JSON.stringify(content))
      return path
    },
    stop,
  }
  return bench
}

async function lineOf(child: Child, file: string, pattern: RegExp, timeoutMs: number): Promise<string> {
  const deadline = performance.now() + timeoutMs
  let ended = false
  const watch = async (): Promise<void> => {
    await child.exited
    ended = true
  }
  void watch()
  for (;;) {
    const last = ended
    const text = await readFile(file, 'utf8')
    const found = text.split('\n').find((line) => pattern.test(line))
    if (found !== undefined) return found
    if (last || performance.now() > deadline) {
      const tail = [...text.split('\n').slice(-10), ...child.stderr.slice(-20)].join('\n').trim()
      throw new Error(`a process ${last ? 'ended' : `ran for ${timeoutMs} ms`} without ${String(pattern)}:\n${tail}`)
    }
    await sleep(20)
  }
}

/** Asks again and again until `done` holds. @throws after `timeoutMs`, with what was seen last */
export async function until<T>(
  signal: AbortSignal,
  read: () => Promise<T>,
  done: (value: T) => boolean,
  timeoutMs: number,
): Promise<T> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    signal.throwIfAborted()
    const value = await read()
    if (done(value)) return value
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms; last seen: ${JSON.stringify(value)}`)
    await sleep(50)
  }
}
