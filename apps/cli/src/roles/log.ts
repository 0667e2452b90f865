import { createLog, readableLines, type Log } from '@askonce/telemetry'

/** The log of a server process on stdout: lines of JSON, or on a terminal lines that people read. */
export function openLog(level: string, role: string): Log {
  const { stdout } = process
  return createLog({ level, role, ...(stdout.isTTY ? { destination: readableLines(stdout) } : {}) })
}
