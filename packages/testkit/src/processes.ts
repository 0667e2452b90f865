import { spawn } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename } from 'node:path'
import { createInterface } from 'node:readline'
import { track } from './servers.ts'

export interface ChildOptions {
  readonly args?: readonly string[]
  /** All that the child sees, besides PATH, HOME and TMPDIR. */
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  /** In a process group of its own, as a terminal would start it; then {@link Child.signalGroup} works. */
  readonly ownGroup?: boolean
  /** Largest file that it may write, in blocks of 512 bytes: a full disk for one process. */
  readonly fileBlocks?: number
  /** How many files and connections it may have open. */
  readonly openFiles?: number
  /** File that its standard output goes to, for one that writes much: {@link Child.stdout} stays empty. */
  readonly stdoutFile?: string
}

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A real Node process that runs one of our scripts. */
export interface Child {
  readonly pid: number
  /** Lines so far. */
  readonly stdout: readonly string[]
  readonly stderr: readonly string[]
  /** The first line of either stream, past or future, that matches. Rejects, quoting the output, at the child's end or the timeout. */
  waitForLine(pattern: RegExp, timeoutMs: number): Promise<RegExpExecArray>
  /** False when it has ended. */
  signal(signal: NodeJS.Signals): boolean
  /** As Ctrl-C does: to the whole group. */
  signalGroup(signal: NodeJS.Signals): void
  /** SIGKILL, and waits for the end. */
  kill(): Promise<Ended>
  /** Resolves when the process has ended and all its output is here. */
  readonly exited: Promise<Ended>
}

const env = process.env
const running = new Set<Child>()
// By path: the child's working directory may be anywhere.
const loader = createRequire(import.meta.url).resolve('tsx')

/**
 * Runs `node <script>`, with `--import tsx` if it is TypeScript: the process is the program itself, so that a SIGKILL hits
 * it (`tsx <script>` would leave the real one alive). It is tracked: what is left of it at the end of the test file is a leak.
 */
export function spawnNode(script: string, options: ChildOptions = {}): Child {
  const kept: Record<string, string> = {}
  for (const name of ['PATH', 'HOME', 'TMPDIR']) {
    const value = env[name]
    if (value !== undefined) kept[name] = value
  }
  const loading = script.endsWith('.ts') ? ['--import', loader] : []
  const command = [process.execPath, ...loading, script, ...(options.args ?? [])]
  // The shell becomes the program: no process between.
  const limits = [
    ...(options.fileBlocks === undefined ? [] : [`ulimit -f ${options.fileBlocks} && `]),
    ...(options.openFiles === undefined ? [] : [`ulimit -n ${options.openFiles} && `]),
  ]
  const limited = ['/bin/sh', '-c', `${limits.join('')}exec "$@"`, 'sh', ...command]
  const [program = '', ...args] = limits.length === 0 ? command : limited
  const file = options.stdoutFile === undefined ? null : openSync(options.stdoutFile, 'a')
  const child = spawn(program, args, {
    cwd: options.cwd,
    env: { ...kept, ...options.env },
    stdio: ['ignore', file ?? 'pipe', 'pipe'],
    detached: options.ownGroup ?? false,
  })
  if (file !== null) closeSync(file)
  const { pid } = child
  if (pid === undefined) throw new Error(`cannot start ${process.execPath}`)

  const stdout: string[] = []
  const stderr: string[] = []
  const listeners = new Set<(line: string) => void>()
  for (const [stream, lines] of [
    [child.stdout, stdout],
    [child.stderr, stderr],
  ] as const) {
    if (stream === null) continue
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line)
      for (const listener of listeners) listener(line)
    })
  }

  let ended: Ended | undefined
  const exited = new Promise<Ended>((resolve) => {
    child.once('close', (code, signal) => {
      ended = { code, signal }
      resolve(ended)
    })
  })
  const signal = (name: NodeJS.Signals): boolean => child.kill(name)
  const handle: Child = {
    pid,
    stdout,
    stderr,
    exited,
    signal,
    signalGroup: (name) => void process.kill(-pid, name),
    async kill() {
      signal('SIGKILL')
      return await exited
    },
    async waitForLine(pattern, timeoutMs) {
      return await new Promise((resolve, reject) => {
        const finish = (): void => {
          clearTimeout(timer)
          listeners.delete(look)
        }
        const fail = (why: string): void => {
          finish()
          const tail = [...stdout, ...stderr].slice(-30).join('\n')
          reject(new Error(`${basename(script)} ${why} without a line like ${String(pattern)}. Its output:\n${tail}`))
        }
        const look = (line: string): void => {
          const match = pattern.exec(line)
          if (!match) return
          finish()
          resolve(match)
        }
        const timer = setTimeout(() => fail(`ran for ${timeoutMs} ms`), timeoutMs)
        listeners.add(look)
        for (const line of [...stdout, ...stderr]) look(line)
        void exited.then((end) => listeners.has(look) && fail(`ended (code ${end.code}, signal ${end.signal})`))
      })
    },
  }

  running.add(handle)
  const untrack = track({
    what: `node ${basename(script)} (process ${pid})`,
    pids: () => (ended ? [] : [pid]),
    stop: async () => void (await handle.kill()),
  })
  child.once('close', () => {
    running.delete(handle)
    untrack()
  })
  return handle
}

/** Kills, by pid, every child that is still running; for `afterEach`. */
export async function reapAll(): Promise<void> {
  await Promise.all([...running].map(async (child) => await child.kill()))
}
