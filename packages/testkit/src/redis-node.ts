import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from '@askonce/embedded'
import { prepareLaunch } from './launched.ts'
import { findRedis, track } from './servers.ts'

export interface RedisNodeOptions {
  /** Lines of its configuration file, which it rewrites itself: a role that it was given survives a restart. */
  readonly settings: readonly string[]
  readonly sentinel?: boolean
}

/** One private redis-server process on a port that it keeps. */
export interface RedisNode {
  readonly port: number
  /** 0 while it is down. */
  readonly pid: number
  /** Neither down nor frozen. */
  readonly answers: boolean
  /** SIGTERM unless it is down, and up again on the same port; the data comes back only with `appendonly`. */
  restart(): Promise<void>
  /** SIGKILL, and waits for the end. Bring it back with `restart`. */
  kill(): Promise<void>
  /** Freezes it: connections stay open and nothing answers. */
  pause(): void
  resume(): void
  /** Its reply to one command without line breaks, as text. Rejects for an error. */
  command(line: string): Promise<string>
  /** Stops it and removes its folder. Safe to call twice. */
  stop(): Promise<void>
}

/** Starts a Redis, 7.0 or later, or a sentinel. It must be stopped by the end of the test file, see leakCheck. */
export async function startRedisNode({ settings, sentinel = false }: RedisNodeOptions): Promise<RedisNode> {
  const program = findRedis()
  const version = /v=(\d+)/.exec(execFileSync(program, ['--version'], { encoding: 'utf8' }))?.[1] ?? '0'
  if (Number(version) < 7) throw new Error(`${program} is Redis ${version}; the tests need 7.0 or later`)
  const folder = mkdtempSync(join(tmpdir(), 'askonce-redis-'))
  const port = await freePort()
  const file = join(folder, 'redis.conf')
  writeFileSync(file, [`bind 127.0.0.1`, `port ${port}`, `dir ${folder}`, ...settings, ''].join('\n'))
  const launched = prepareLaunch({
    name: 'redis-server',
    program,
    args: [file, ...(sentinel ? ['--sentinel'] : [])],
    ready: sentinel ? /Sentinel ID is/ : /Ready to accept connections/,
  })
  const stop = async (): Promise<void> => {
    await launched.down('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
    untrack()
  }
  const pids = (): number[] => (launched.pid === 0 ? [] : [launched.pid])
  const untrack = track({ what: `Redis in ${folder}`, pids, folder, stop })
  try {
    await launched.up()
  } catch (error) {
    await stop()
    throw error
  }
  let frozen = false
  return {
    port,
    get pid() {
      return launched.pid
    },
    get answers() {
      return launched.pid !== 0 && !frozen
    },
    async restart() {
      await launched.down('SIGTERM')
      frozen = false
      await launched.up()
    },
    kill: () => launched.down('SIGKILL'),
    pause() {
      frozen = true
      launched.pause()
    },
    resume() {
      frozen = false
      launched.resume()
    },
    command: (line) => command(port, line),
    stop,
  }
}

// Redis takes a line of text as a command, so that no client library is needed for one.
function command(port: number, line: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let reply = ''
    // It answers what it has read before it looks at the end of the connection.
    const socket = connect(port, '127.0.0.1', () => socket.end(`${line}\r\n`))
    socket.setTimeout(5_000, () => socket.destroy(new Error(`Redis on port ${port} does not answer ${line}`)))
    socket.once('error', reject)
    socket.on('data', (bytes) => (reply += bytes.toString()))
    socket.once('close', () => {
      const answer = reply.trimEnd()
      if (answer === '' || answer.startsWith('-')) reject(new Error(`Redis answered ${line} with ${answer}`))
      else resolve(answer)
    })
  })
}
