import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** What PostgreSQL wrote into postmaster.pid, as far as it got. */
export interface PidFile {
  readonly pid: number
  readonly dataDir: string
  readonly port: number | undefined
  /** `starting`, `ready`, `stopping` or `standby`; undefined before the server has written it. */
  readonly status: string | undefined
}

/** Reads postmaster.pid of a cluster; undefined when there is none, or none that is complete up to the pid. */
export function readPidFile(clusterDir: string): PidFile | undefined {
  let lines: string[]
  try {
    lines = readFileSync(join(clusterDir, 'postmaster.pid'), 'utf8').split('\n')
  } catch {
    return undefined
  }
  const pid = Number(lines[0])
  if (!Number.isInteger(pid) || pid <= 1) return undefined
  const port = Number(lines[3])
  return {
    pid,
    dataDir: lines[1] ?? '',
    port: Number.isInteger(port) && port > 0 ? port : undefined,
    status: lines[7]?.trim() || undefined,
  }
}
