import { CompiledQuery, type RawBuilder } from 'kysely'
import { Rows } from './rows.ts'
import type { Db } from './tables.ts'

/** How a part of a statement is written: what it adds to the parameters. */
type Kind = 'value' | 'rows' | 'text' | 'built'

interface Written {
  /** The template that it was written from, which is the same object each time. */
  strings: readonly string[]
  text: string
  kinds: readonly Kind[]
}

/** By name of the statement: its text never changes. */
const written = new Map<string, Written>()

/**
 * Runs a statement whose text is always the same and that runs all the time. It is written once, each connection prepares it once (see
 * client.ts), and Postgres keeps its plan. The plan may be made while the tables are empty, so such a statement reaches large tables only
 * by conditions that an index answers whatever the planner believes their size to be; test/integration/store/plans.test.ts holds it to that.
 *
 * A part is a value, which becomes a parameter, {@link Rows}, or a fragment of `sql`. Fragments without parameters cost nothing after the
 * first time.
 */
export function hot<Row>(
  db: Db,
  name: string,
): (strings: readonly string[], ...parts: readonly unknown[]) => Promise<Row[]> {
  return async (strings, ...parts) => {
    const known = written.get(name) ?? write(db, name, strings, parts)
    // Otherwise one of them would run in the other's place.
    if (known.strings !== strings) throw new Error(`two statements are called ${name}`)
    const parameters: unknown[] = []
    for (const [index, part] of parts.entries()) {
      const kind = known.kinds[index]
      if (kind === 'value') parameters.push(part)
      else if (kind === 'rows') parameters.push(...(part as Rows).arrays)
      else if (kind === 'built') parameters.push(...(part as RawBuilder<unknown>).compile(db).parameters)
    }
    return (await db.executeQuery<Row>(CompiledQuery.raw(known.text, parameters))).rows
  }
}

function write(db: Db, name: string, strings: readonly string[], parts: readonly unknown[]): Written {
  let text = `/* hot: ${name} */`
  let count = 0
  const kinds: Kind[] = []
  const add = (kind: Kind, addition: string, parameters: number): void => {
    kinds.push(kind)
    text += addition.replaceAll(/\$(\d+)/g, (_, number: string) => `$${Number(number) + count}`)
    count += parameters
  }
  for (const [index, between] of strings.entries()) {
    text += between
    if (index === parts.length) break
    const part = parts[index]
    if (part instanceof Rows) add('rows', part.text, part.columnCount)
    else if (isBuilder(part)) {
      const { sql, parameters } = part.compile(db)
      add(parameters.length === 0 ? 'text' : 'built', sql, parameters.length)
    } else add('value', '$1', 1)
  }
  const result = { strings, text, kinds }
  written.set(name, result)
  return result
}

function isBuilder(part: unknown): part is RawBuilder<unknown> {
  return typeof part === 'object' && part !== null && 'toOperationNode' in part
}
