import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from '@askonce/embedded'
import { findRedis, retrack, track } from './servers.ts'

export interface TestRedisOptions {
  /** Append-only file, flushed every second, as in production. Without it nothing survives a restart. */
  readonly appendonly?: boolean
  /** For instance `64mb`; with it a full server refuses writes (noeviction). */
  readonly maxmemory?: string
}

/** A private redis-server on a port that it keeps. */
export interface TestRedis {
  readonly url: string
  readonly port: number
  readonly pid: number
  /** SIGTERM unless it is down, and up again on the same port; the data comes back only with `appendonly`. */
  restart(): Promise<void>
  /** SIGKILL, and waits for the end. Bring it back with `restart`. */
  kill(): Promise<void>
  /** Freezes it: connections stay open and nothing answers. */
  pause(): void
  resume(): void
  flushAll(): Promise<void>
  /** Stops it and removes its folder. Safe to call twice. */
  stop(): Promise<void>
}

const START_MS = 10_000

/** Starts a private Redis, 7.0 or later. It must be stopped by the end of the test file, see leakCheck. */
export async function startTestRedis(options: TestRedisOptions = {}): Promise<TestRedis> {
  const program = findRedis()
  const version = /v=(\d+)/.exec(execFileSync(program, ['--version'], { encoding: 'utf8' }))?.[1] ?? '0'
  if (Number(version) < 7) throw new Error(`${program} is Redis ${version}; the tests need 7.0 or later`)
  const folder = mkdtempSync(join(tmpdir(), 'askonce-redis-'))
  const port = await freePort()
  const persistence = options.appendonly ? ['--appendonly', 'yes', '--appendfsync', 'everysec'] : ['--appendonly', 'no']
  const memory = ['--maxmemory', options.maxmemory ?? '0', '--maxmemory-policy', 'noeviction']
  const network = ['--bind', '127.0.0.1', '--port', String(port), '--dir', folder]
  const args = [...network, '--save', '', ...persistence, ...memory]

  let server: ChildProcess | undefined
  const untrack = track({
    what: `Redis in ${folder}`,
    pids: () => (server?.pid === undefined || server.exitCode !== null ? [] : [server.pid]),
    folder,
    stop: async () => await stop(),
  })
  const up = async (): Promise<void> => {
    server = await launch(program, args)
    retrack()
  }
  const down = async (signal: NodeJS.Signals): Promise<void> => {
    const child = server
    server = undefined
    if (child?.exitCode === null && child.signalCode === null) {
      const ended = new Promise((resolve) => child.once('exit', resolve))
      child.kill(signal)
      child.kill('SIGCONT')
      await ended
    }
    retrack()
  }
  const stop = async (): Promise<void> => {
    await down('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
    untrack()
  }

  try {
    await up()
  } catch (error) {
    await stop()
    throw error
  }
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    get pid() {
      return server?.pid ?? 0
    },
    async restart() {
      await down('SIGTERM')
      await up()
    },
    kill: async () => await down('SIGKILL'),
    pause: () => void server?.kill('SIGSTOP'),
    resume: () => void server?.kill('SIGCONT'),
    flushAll: async () => await command(port, 'FLUSHALL'),
    stop,
  }
}

async function launch(program: string, args: readonly string[]): Promise<ChildProcess> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  return await new Promise((resolve, reject) => {
    let output = ''
    const fail = (why: string): void => {
      child.kill('SIGKILL')
      reject(new Error(`redis-server ${why}. Its output:\n${output}`))
    }
    const timer = setTimeout(() => fail(`is not ready after ${START_MS} ms`), START_MS)
    child.once('exit', (code) => {
      clearTimeout(timer)
      fail(`ended (code ${code})`)
    })
    child.once('error', reject)
    child.stderr.resume()
    child.stdout.on('data', (bytes: Buffer) => {
      if (output.length < 64 * 1024) output += bytes.toString()
      if (!/Ready to accept connections/.test(output)) return
      clearTimeout(timer)
      resolve(child)
    })
  })
}

// Redis takes a line of text as a command, so that no client library is needed for one.
async function command(port: number, line: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(`${line}\r\n`))
    socket.once('error', reject)
    socket.once('data', (bytes) => {
      socket.destroy()
      const answer = bytes.toString().trim()
      if (answer === '+OK') resolve()
      else reject(new Error(`Redis answered ${line} with ${answer}`))
    })
  })
}
