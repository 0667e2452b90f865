import { readdirSync, readFileSync } from 'node:fs'

/** Ticks a second of /proc, on every Linux that Node runs on. */
const ticksPerSecond = 100

/**
 * CPU milliseconds that a process and all that descend from it have used, with those that have ended and been waited for.
 * @throws where there is no /proc, as on macOS
 */
export function cpuMsOfTree(root: number): number {
  const processes = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => readStat(Number(name)) ?? [])
  let ticks = 0
  const waiting = [root]
  for (let pid = waiting.pop(); pid !== undefined; pid = waiting.pop()) {
    for (const one of processes) {
      if (one.pid === pid) ticks += one.ticks
      if (one.parent === pid) waiting.push(one.pid)
    }
  }
  return (ticks * 1000) / ticksPerSecond
}

/** Undefined: it ended meanwhile. */
function readStat(pid: number): { pid: number; parent: number; ticks: number } | undefined {
  let stat: string
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch {
    return undefined
  }
  // The name in parentheses may hold spaces.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return { pid, parent: Number(fields[1]), ticks: [11, 12, 13, 14].reduce((sum, at) => sum + Number(fields[at]), 0) }
}
