import type { DestinationStream } from 'pino'

/** Where people's lines go: a terminal. */
export interface Screen {
  write(text: string): unknown
  hasColors?: () => boolean
}

const colours: Readonly<Record<string, number>> = { fatal: 31, error: 31, warn: 33, info: 32, debug: 2, trace: 2 }

/** Takes the log's JSON lines and writes what a person reads on a terminal: `12:03:44 WARN  lane.stopped lane=openai reason=…`. */
export function readableLines(screen: Screen): DestinationStream {
  const coloured = screen.hasColors?.() ?? false
  return { write: (line) => void screen.write(`${readableLine(line, coloured)}\n`) }
}

function readableLine(line: string, coloured: boolean): string {
  const { time, level, event, role: _role, ...fields } = JSON.parse(line) as Record<string, unknown>
  const word = String(level)
  const shown = word.toUpperCase().padEnd(5)
  const painted = coloured ? `\u001b[${colours[word] ?? 0}m${shown}\u001b[0m` : shown
  const rest = Object.entries(fields).flatMap(([name, value]) => (value === null ? [] : [`${name}=${readable(value)}`]))
  return [clockOf(String(time)), painted, String(event), ...rest].join(' ')
}

/** The day is known to whoever looks at a terminal. */
function clockOf(time: string): string {
  return new Date(time).toTimeString().slice(0, 8)
}

/** Quoted where it holds a blank, and without anything that a terminal would obey. */
function readable(value: unknown): string {
  const text = String(value)
  if (/^[\x21\x23-\x7e]+$/.test(text)) return text
  return JSON.stringify(text).replaceAll(/[\u007f-\u009f\u2028\u2029]/g, '?')
}
