import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from '@askonce/embedded'
import { prepareLaunch } from './launched.ts'
import { findRedis, track } from './servers.ts'

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

  const launched = prepareLaunch({ name: 'redis-server', program, args, ready: /Ready to accept connections/ })
  const pids = (): number[] => (launched.pid === 0 ? [] : [launched.pid])
  const untrack = track({ what: `Redis in ${folder}`, pids, folder, stop: async () => await stop() })
  const stop = async (): Promise<void> => {
    await launched.down('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
    untrack()
  }

  try {
    await launched.up()
  } catch (error) {
    await stop()
    throw error
  }
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    get pid() {
      return launched.pid
    },
    async restart() {
      await launched.down('SIGTERM')
      await launched.up()
    },
    kill: () => launched.down('SIGKILL'),
    pause: launched.pause,
    resume: launched.resume,
    flushAll: async () => await command(port, 'FLUSHALL'),
    stop,
  }
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
