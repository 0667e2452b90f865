import { stripVTControlCharacters } from 'node:util'

const styles = { bold: [1, 22], dim: [2, 22], red: [31, 39], green: [32, 39], yellow: [33, 39] } as const
export type Style = keyof typeof styles

type Stream = NodeJS.WriteStream

/** Coloured on a terminal that shows colours; Node itself honours NO_COLOR and TERM=dumb. */
export function paint(stream: Stream, style: Style, text: string): string {
  if (!stream.isTTY || !stream.hasColors()) return text
  const [on, off] = styles[style]
  return `\u001b[${on}m${text}\u001b[${off}m`
}

/** Text from elsewhere without what a terminal would obey: escape sequences and control characters, line ends kept. */
export function printable(text: string): string {
  return stripVTControlCharacters(text).replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '')
}

/** The same on one line. */
export function oneLine(text: string): string {
  return printable(text.replaceAll(/\s+/g, ' ')).trim()
}

/** A line of what was asked for. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** The one document that `--json` prints. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2))
}

/** A line about it: to stderr, so that a pipe gets data only. */
export function remark(text: string): void {
  process.stderr.write(`${wrapped(text, widthOf(process.stderr))}\n`)
}

/** Lines that are broken between words, behind the indentation of their beginning. A word that is too long stays whole. */
export function wrapped(text: string, width: number): string {
  return text
    .split('\n')
    .map((line) => (lengthOf(line) <= width ? line : wrapLine(line, width)))
    .join('\n')
}

function wrapLine(line: string, width: number): string {
  const [indent = ''] = /^ */.exec(line) ?? []
  const lines: string[] = []
  let current = ''
  for (const word of line.slice(indent.length).split(' ')) {
    const longer = current === '' ? indent + word : `${current} ${word}`
    if (current === '' || lengthOf(longer) <= width) current = longer
    else {
      lines.push(current)
      current = indent + word
    }
  }
  return [...lines, current].join('\n')
}

/** As it stands on stdout: broken between words where that is a terminal. */
export function onTerminal(text: string, indent = 0): string {
  return wrapped(text, widthOf(process.stdout) - indent)
}

/** Columns that it takes. */
function lengthOf(text: string): number {
  return stripVTControlCharacters(text).length
}

/** Columns that a line may take; a pipe has no width. */
export function widthOf(stream: Stream): number {
  return stream.isTTY && stream.columns > 0 ? stream.columns : Number.POSITIVE_INFINITY
}
