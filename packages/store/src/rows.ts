import { sql, type RawBuilder } from 'kysely'

/** Row types of `unnest`, by column: the SQL type and the value of an item. */
export type ColumnMap<Item> = Record<string, [type: string, value: (item: Item) => unknown]>

/**
 * `unnest($1::uuid[], …) as alias (id, …)`: one array parameter per column instead of one parameter per value, so the text of a
 * statement does not depend on the number of rows and the 65,535 parameter limit is out of reach.
 */
export class Rows<Item = never> {
  private readonly items: readonly Item[]
  private readonly columns: ColumnMap<Item>
  private readonly alias: string

  constructor(items: readonly Item[], columns: ColumnMap<Item>, alias: string) {
    this.items = items
    this.columns = columns
    this.alias = alias
  }

  get columnCount(): number {
    return Object.keys(this.columns).length
  }

  get text(): string {
    const arrays = Object.values(this.columns).map(([type], index) => `$${index + 1}::${type}[]`)
    const names = Object.keys(this.columns).map((name) => `"${name}"`)
    return `unnest(${arrays.join(', ')}) as ${this.alias} (${names.join(', ')})`
  }

  /** The parameters, in the order of the columns. */
  get arrays(): unknown[][] {
    return Object.values(this.columns).map(([, value]) => this.items.map((item) => value(item) ?? null))
  }
}

/** {@link Rows} in a statement of Kysely. */
export function unnest<Item>(items: readonly Item[], columns: ColumnMap<Item>, alias: string): RawBuilder<unknown> {
  const rows = new Rows(items, columns, alias)
  const { arrays } = rows
  const parts = rows.text.split(/\$\d+/)
  return sql.join(
    parts.map((part, index) => (index < arrays.length ? sql`${sql.raw(part)}${arrays[index]}` : sql.raw(part))),
    sql``,
  )
}
