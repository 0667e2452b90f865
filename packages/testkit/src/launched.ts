import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { retrack } from './servers.ts'

export interface LaunchedOptions {
  readonly name: string
  readonly program: string
  readonly args: readonly string[]
  /** What it prints, on either stream, once it serves. */
  readonly ready: RegExp
  /** User to run as, for root. */
  readonly ids?: Pick<SpawnOptions, 'uid' | 'gid'>
}

/** A server process that can be brought down and up again with the same arguments. */
export interface Launched {
  /** 0 while it is down. */
  readonly pid: number
  up(): Promise<void>
  /** Ends it, also when it is frozen, and waits for the end. */
  down(signal: NodeJS.Signals): Promise<void>
  pause(): void
  resume(): void
}

const startMs = 10_000

/** A server that is not started yet. */
export function prepareLaunch(options: LaunchedOptions): Launched {
  let server: ChildProcess | undefined
  return {
    get pid() {
      return server?.pid ?? 0
    },
    async up() {
      server = await launch(options)
      retrack()
    },
    async down(signal) {
      const child = server
      server = undefined
      if (child?.exitCode === null && child.signalCode === null) {
        const ended = new Promise((resolve) => child.once('exit', resolve))
        child.kill(signal)
        child.kill('SIGCONT')
        await ended
      }
      retrack()
    },
    pause: () => void server?.kill('SIGSTOP'),
    resume: () => void server?.kill('SIGCONT'),
  }
}

async function launch({ name, program, args, ready, ids = {} }: LaunchedOptions): Promise<ChildProcess> {
  const child = spawn(program, args, { ...ids, stdio: ['ignore', 'pipe', 'pipe'] })
  return await new Promise((resolve, reject) => {
    let output = ''
    const fail = (why: string): void => {
      child.kill('SIGKILL')
      reject(new Error(`${name} ${why}. Its output:\n${output}`))
    }
    const timer = setTimeout(() => fail(`is not ready after ${startMs} ms`), startMs)
    child.once('exit', (code) => {
      clearTimeout(timer)
      fail(`ended (code ${code})`)
    })
    child.once('error', reject)
    const read = (bytes: Buffer): void => {
      if (output.length < 64 * 1024) output += bytes.toString()
      if (!ready.test(output)) return
      clearTimeout(timer)
      resolve(child)
    }
    child.stdout.on('data', read)
    child.stderr.on('data', read)
  })
}
