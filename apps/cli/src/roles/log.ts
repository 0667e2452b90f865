import { createLog, readableLines, type Log } from '@askonce/telemetry'
import { catchLibraryLines } from './library-lines.ts'

/** The log of a server process on stdout: lines of JSON, or on a terminal lines that people read. What libraries say is in it, too. */
export function openLog(level: string, role: string): Log {
  const { stdout } = process
  const log = createLog({ level, role, ...(stdout.isTTY ? { destination: readableLines(stdout) } : {}) })
  catchLibraryLines(log)
  return log
}
