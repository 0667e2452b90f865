import { oneLine, paint, type Style, widthOf } from './terminal.ts'

export interface Column<Row> {
  title: string
  value: (row: Row) => string
  style?: (row: Row) => Style | null
  right?: boolean
  /** Gives way first on a narrow terminal, down to 12 characters. */
  shrinks?: boolean
  /** Left out where a terminal has no room for it, the lowest number first. */
  drops?: number
}

const shortest = 12

/** A table for stdout. Nothing is cut when it does not go to a terminal. */
export function table<Row>(all: readonly Column<Row>[], rows: readonly Row[]): string {
  const columns = fitting(all, rows)
  const texts = rows.map((row) => columns.map(({ value }) => oneLine(value(row))))
  const widths = columns.map((column) => widthOfColumn(column, rows))
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

function widthOfColumn<Row>({ title, value }: Column<Row>, rows: readonly Row[]): number {
  return rows.reduce((widest, row) => Math.max(widest, oneLine(value(row)).length), title.length)
}

/** The columns that the terminal has room for: a line that wraps is harder to read than one that says less. */
function fitting<Row>(all: readonly Column<Row>[], rows: readonly Row[]): Column<Row>[] {
  const most = widthOf(process.stdout)
  const sizes = all.map((column) => {
    const width = widthOfColumn(column, rows)
    return { column, least: column.shrinks ? Math.min(width, shortest) : width }
  })
  const kept = [...sizes]
  const dropping = sizes
    .filter(({ column }) => column.drops !== undefined)
    .toSorted((a, b) => (a.column.drops ?? 0) - (b.column.drops ?? 0))
  const isTooWide = (): boolean => kept.reduce((sum, { least }) => sum + least + 2, -2) > most
  for (const one of dropping) if (isTooWide()) kept.splice(kept.indexOf(one), 1)
  return kept.map(({ column }) => column)
}
