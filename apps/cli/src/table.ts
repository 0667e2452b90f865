import { oneLine, paint, type Style, widthOf } from './terminal.ts'

export interface Column<Row> {
  title: string
  value: (row: Row) => string
  style?: (row: Row) => Style | null
  right?: boolean
  /** Gives way first on a narrow terminal, down to 12 characters. */
  shrinks?: boolean
}

const shortest = 12

/** A table for stdout. Nothing is cut when it does not go to a terminal. */
export function table<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const texts = rows.map((row) => columns.map(({ value }) => oneLine(value(row))))
  const widths = columns.map(({ title }, index) =>
    texts.reduce((widest, row) => Math.max(widest, row[index]?.length ?? 0), title.length),
  )
  const excess = widths.reduce((sum, width) => sum + width + 2, -2) - widthOf(process.stdout)
  const shrinking = columns.findIndex(({ shrinks }) => shrinks)
  if (excess > 0 && shrinking >= 0) widths[shrinking] = Math.max(shortest, (widths[shrinking] ?? 0) - excess)

  const cell = (text: string, index: number): string => {
    const width = widths[index] ?? 0
    const cut = text.length > width ? `${text.slice(0, width - 1)}…` : text
    if (columns[index]?.right) return cut.padStart(width)
    return index === columns.length - 1 ? cut : cut.padEnd(width)
  }
  const header = columns.map(({ title }, index) => paint(process.stdout, 'dim', cell(title, index))).join('  ')
  const lines = rows.map((row, at) =>
    columns
      .map(({ style }, index) => {
        const text = cell(texts[at]?.[index] ?? '', index)
        const chosen = style?.(row) ?? null
        return chosen === null ? text : paint(process.stdout, chosen, text)
      })
      .join('  '),
  )
  return [header, ...lines].join('\n')
}
