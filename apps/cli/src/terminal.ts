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
  process.stderr.write(`${text}\n`)
}

/** Columns that a line may take; a pipe has no width. */
export function widthOf(stream: Stream): number {
  return stream.isTTY && stream.columns > 0 ? stream.columns : Number.POSITIVE_INFINITY
}
