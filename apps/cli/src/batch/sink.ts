import type { Writable } from 'node:stream'
import { CliError, exitCodes, reasonOf } from '../errors.ts'
import { answerLine } from './answer-line.ts'
import type { BatchInput, InputLine } from './input.ts'

/** Where answers go. */
export interface Sink {
  /** Questions whose answers were there before this run. */
  readonly kept: ReadonlySet<number>
  /** Writes the answer of every line that asks this. */
  write(ask: number, tail: string): Promise<void>
  /** All answers are written. */
  finish(): Promise<void>
  close(): Promise<void>
}

/** The output lines of one question. */
export function linesOf(input: BatchInput, ask: number, tail: string): string {
  const entry = input.asks[ask]
  if (entry === undefined) return ''
  return entry.lines.map((line) => answerLine(input.lines[line] as InputLine, entry, tail)).join('')
}

/** Answers in the order in which they come, to something that cannot be read back: stdout, a pipe, a device. */
export function streamSink(input: BatchInput, stream: Writable, name: string): Sink {
  // What goes wrong is told to the write that met it.
  stream.on('error', () => undefined)
  return {
    kept: new Set(),
    write: (ask, tail) =>
      new Promise((resolve, reject) => {
        stream.write(linesOf(input, ask, tail), (error) => {
          if (error) reject(new CliError(exitCodes.failed, `cannot write ${name}: ${reasonOf(error)}`))
          else resolve()
        })
      }),
    finish: () => Promise.resolve(),
    close: () => new Promise((resolve) => (stream === process.stdout ? resolve() : stream.end(() => resolve()))),
  }
}
