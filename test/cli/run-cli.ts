import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const program = new URL('../../apps/cli/bin/askonce.js', import.meta.url).pathname

export interface Ended {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

export interface RunOptions {
  env?: Record<string, string>
  /** Text for stdin; without it stdin is empty, with null it stays open. */
  input?: string | null
  cwd?: string
}

/** A running `askonce`. */
export interface Running {
  child: ChildProcessWithoutNullStreams
  ended: Promise<Ended>
  /** Output of both streams so far. */
  output(): string
}

/** Starts the real program with nothing of our own environment but PATH and HOME. */
export function startCli(args: readonly string[], options: RunOptions = {}): Running {
  return start(process.execPath, [program, ...args], options)
}

/** Runs it to its end. */
export function runCli(args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  return startCli(args, options).ended
}

/** The same on a terminal of so many columns; what is written to the child's stdin is typed there. What the program writes to either stream comes out of stdout, as a screen gets it. */
export function startInTerminal(columns: number, args: readonly string[], options: RunOptions = {}): Running {
  const words = [process.execPath, program, ...args].map((word) => `'${word.replaceAll("'", `'\\''`)}'`)
  // exec: a signal to the group and the exit code are the program's own.
  const command = `stty cols ${columns} rows 20; exec ${words.join(' ')}`
  return start('script', ['-qec', command, '/dev/null'], { ...options, input: null })
}

/** A shell command line in which `$ASKONCE` is the program. */
export function runShell(command: string, options: RunOptions = {}): Promise<Ended> {
  const env = { ...options.env, ASKONCE: `${process.execPath} ${program}` }
  return start('bash', ['-c', `set -o pipefail; ${command}`], { ...options, env }).ended
}

function start(file: string, args: readonly string[], { env = {}, input = '', cwd }: RunOptions): Running {
  const { PATH = '', HOME = '' } = process.env
  const child = spawn(file, args, { cwd, env: { PATH, HOME, TERM: 'xterm', ...env }, stdio: 'pipe' })
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  // A program that ends without reading its stdin is none of our business.
  child.stdin.on('error', () => undefined)
  if (input !== null) child.stdin.end(input)
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) => resolve({ code, signal, stdout, stderr }))
  })
  return { child, ended, output: () => stdout + stderr }
}

/** Resolves when `holds` does; looks again whenever something may have changed. */
export async function until(holds: () => boolean, what: string, limitMs = 30_000): Promise<void> {
  const giveUpAt = Date.now() + limitMs
  while (!holds()) {
    if (Date.now() > giveUpAt) throw new Error(`waited ${limitMs} ms in vain for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

/** A directory of one's own, removed by {@link Scratch.remove}. */
export interface Scratch {
  path(name: string): string
  remove(): Promise<void>
}

export async function makeScratch(): Promise<Scratch> {
  const directory = await mkdtemp(join(tmpdir(), 'askonce-cli-'))
  return {
    path: (name) => join(directory, name),
    remove: () => rm(directory, { recursive: true, force: true }),
  }
}
