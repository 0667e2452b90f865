import { readdirSync, readFileSync } from 'node:fs'
import type { Child } from '@askonce/testkit'
import type { Bench } from './bench.ts'
import type { Measured } from './case.ts'

/** Ticks a second of /proc, on every Linux that Node runs on. */
const ticksPerSecond = 100

/**
 * CPU milliseconds that a process has used, with those children that have ended and been waited for.
 * @throws when there is no such process, and where there is no /proc
 */
export function cpuMsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // The name in parentheses may hold spaces.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const ticks = [11, 12, 13, 14].reduce((sum, index) => sum + Number(fields[index]), 0)
  return (ticks * 1000) / ticksPerSecond
}

/** The same of a server with a process for each connection. */
export function cpuMsOfTree(pid: number): number {
  const children = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => parentOf(name) === pid)
  return [pid, ...children.map(Number)].reduce((sum, one) => sum + cpuMsOrNone(one), 0)
}

/** CPU of one unit of work, in microseconds: of Askonce's processes together, and of the servers. Where it comes from, a rate is explained. */
export const cpuFigures = ['own cpu', 'postgres cpu', 'redis cpu'].map((name) => ({ name, unit: 'µs' }))

/** Runs a load; what it cost for each of the units that it counted, warm-up included, is added to the figures it measured. */
export async function withCpu(
  bench: Bench,
  processes: readonly Child[],
  run: () => Promise<{ measured: Measured; units: number }>,
): Promise<Measured> {
  const now = (): number[] => [
    processes.reduce((sum, { pid }) => sum + cpuMsOf(pid), 0),
    cpuMsOfTree(bench.postgres.pid),
    cpuMsOf(bench.redis.pid),
  ]
  const before = now()
  const { measured, units } = await run()
  const after = now()
  const costs = cpuFigures.map(({ name }, index) => {
    const ms = (after[index] ?? Number.NaN) - (before[index] ?? Number.NaN)
    return [name, (ms * 1000) / units] as const
  })
  return { ...measured, ...Object.fromEntries(costs) }
}

/** Most memory that a process has had, in MB of 10^6 bytes. */
export function peakMemoryMb(pid: number): number {
  const kib = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return (Number(kib) * 1024) / 1e6
}

function parentOf(name: string): number {
  try {
    const stat = readFileSync(`/proc/${name}/stat`, 'utf8')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
  } catch {
    return 0
  }
}

/** 0 for a process that has just ended: then it is in its parent's sum. */
function cpuMsOrNone(pid: number): number {
  try {
    return cpuMsOf(pid)
  } catch {
    return 0
  }
}
