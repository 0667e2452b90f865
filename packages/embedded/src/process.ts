import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

/** A process that cannot be confused with a later one of the same pid. */
export interface ProcessId {
  readonly pid: number
  /** What {@link processStart} said when the process was seen. */
  readonly start: string
}

interface Stat {
  readonly command: string
  readonly state: string
  readonly startTicks: string
}

function readStat(pid: number): Stat | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    // The command stands in parentheses and may itself hold spaces and parentheses.
    const end = text.lastIndexOf(')')
    const fields = text.slice(end + 2).split(' ')
    const [state, startTicks] = [fields[0], fields[19]]
    if (state === undefined || startTicks === undefined) return undefined
    return { command: text.slice(text.indexOf('(') + 1, end), state, startTicks }
  } catch {
    return undefined
  }
}

function ps(pid: number, column: 'lstart' | 'comm'): string | undefined {
  try {
    return execFileSync('ps', ['-o', `${column}=`, '-p', String(pid)], { encoding: 'utf8' }).trim() || undefined
  } catch {
    return undefined
  }
}

/**
 * A token for when a process began, or undefined when there is no live process `pid` (a zombie is not alive: in a
 * container whose first process reaps nobody, a dead server stays one for ever). With the pid it names one process: a
 * re-used pid has another token, after a reboot too.
 */
export function processStart(pid: number): string | undefined {
  if (process.platform !== 'linux') return ps(pid, 'lstart')
  const stat = readStat(pid)
  if (!stat || stat.state === 'Z' || stat.state === 'X') return undefined
  return `${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()}:${stat.startTicks}`
}

/** This very process. */
export function ownProcess(): ProcessId {
  return { pid: process.pid, start: processStart(process.pid) ?? '' }
}

export function isAlive(id: ProcessId): boolean {
  return processStart(id.pid) === id.start
}

function worksIn(pid: number, dir: string): boolean {
  try {
    const [there, here] = [statSync(`/proc/${pid}/cwd/`), statSync(dir)]
    return there.dev === here.dev && there.ino === here.ino
  } catch {
    return false
  }
}

/**
 * True when `pid` is a live postgres process of the cluster in `dir`. On Linux its working directory decides (every
 * process of a server has chdir'ed there), so that neither a re-used pid nor the server of a *copy* of the directory
 * passes. Elsewhere the command's name must do; `recordedDir`, from postmaster.pid, then tells a copy.
 */
export function isServerOf(pid: number, dir: string, recordedDir: string): boolean {
  if (process.platform !== 'linux') return (ps(pid, 'comm') ?? '').includes('postgres') && recordedDir === dir
  return readStat(pid)?.command === 'postgres' && worksIn(pid, dir)
}

/** Pids of all live postgres processes of the cluster in `dir`, the postmaster included. Empty where there is no /proc. */
export function serverProcesses(dir: string): number[] {
  if (process.platform !== 'linux') return []
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => isServerOf(pid, dir, dir))
}

/** Sends a signal; false when the process is gone. */
export function sendSignal(pid: number, signal: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, signal)
  } catch {
    return false
  }
}

/** Waits until the process has ended; false when it still lives after `timeoutMs`. */
export async function waitUntilGone(id: ProcessId, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs
  while (isAlive(id)) {
    if (performance.now() > deadline) return false
    await sleep(20)
  }
  return true
}
