import { ConfigError } from '@askonce/config'
import { CommanderError } from 'commander'
import { CliError, exitCodes, reasonOf } from './errors.ts'
import { buildProgram } from './program.ts'
import { oneLine, paint, remark } from './terminal.ts'
import { refuseTypos } from './typo.ts'

/**
 * Runs one command line (without node and program name) and sets the exit code. Resolves when the command has ended.
 *
 * @public The bin imports it by a path that it computes.
 */
export async function main(argv: string[]): Promise<void> {
  if (isServer(argv)) outliveReaders()
  else endQuietlyOnBrokenPipe()
  try {
    const program = buildProgram()
    refuseTypos(program, argv)
    await program.parseAsync(argv, { from: 'user' })
  } catch (error) {
    process.exitCode = report(error)
  }
  // It keeps nothing alive: with nothing left open it never fires.
  if (isServer(argv)) setTimeout(endOpen, lingerMs).unref()
}

/** What a server has left open may take so long to close. */
const lingerMs = 3_000

/**
 * Ends the process although something is left open, which it names: a connection that a library was still making, say, and that nobody
 * knows to close. A process that is done must not wait for its supervisor to kill it.
 */
function endOpen(): void {
  const open = [...new Set(process.getActiveResourcesInfo())].join(', ')
  remark(`askonce: stopped, with something left open: ${open}`)
  process.exit()
}

function isServer([command]: string[]): boolean {
  return command !== undefined && ['start', 'api', 'worker', 'janitor'].includes(command)
}

/** A server goes on when the reader of its log goes away. */
function outliveReaders(): void {
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined)
}

/** `askonce list | head`: the reader has what it wanted. Ends as a program killed by SIGPIPE does. */
function endQuietlyOnBrokenPipe(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      process.exit(error.code === 'EPIPE' ? exitCodes.brokenPipe : exitCodes.failed)
    })
  }
}

function report(error: unknown): number {
  if (error instanceof CommanderError) {
    // Commander has said it. Its own codes are 0 for help and version asked for, and 1 for everything else.
    return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage
  }
  if (error instanceof ConfigError) {
    complain(error.message, null)
    return exitCodes.usage
  }
  if (error instanceof CliError) {
    complain(error.message, error.hint)
    return error.exitCode
  }
  complain(oneLine(reasonOf(error)), null)
  return exitCodes.failed
}

function complain(message: string, hint: string | null): void {
  remark(`${paint(process.stderr, 'red', 'askonce:')} ${message}`)
  if (hint !== null) remark(hint)
}
