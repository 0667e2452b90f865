import { Kysely, PostgresDialect, sql } from 'kysely'
import { expect, it } from 'vitest'
import { hot } from '../../packages/store/src/hot.ts'
import { Rows, type ColumnMap } from '../../packages/store/src/rows.ts'
import type { Db } from '../../packages/store/src/tables.ts'

interface Item {
  id: string
  n?: number
}

/** A database that only notes what it is asked. */
function noting(): { db: Db; asked: [text: string, values: unknown[]][] } {
  const asked: [string, unknown[]][] = []
  const query = (text: string, values: unknown[]): Promise<object> => {
    asked.push([text, values])
    return Promise.resolve({ rows: [], command: 'SELECT', rowCount: 0 })
  }
  const pool = { connect: () => Promise.resolve({ query, release: () => undefined }), end: () => Promise.resolve() }
  return { db: new Kysely({ dialect: new PostgresDialect({ pool: pool as never }) }), asked }
}

it('numbers values, rows and fragments in the order of the template, and gathers them anew each time', async () => {
  const { db, asked } = noting()
  const columns: ColumnMap<Item> = { id: ['uuid', ({ id }) => id], n: ['integer', ({ n }) => n] }
  const run = (first: string, items: readonly Item[], limit: number): Promise<unknown[]> =>
    hot(
      db,
      'numbered',
    )`select ${first} from ${new Rows(items, columns, 'i')} where ${sql`a = b`} and ${sql`c < ${limit}`} and ${first}`
  await run('x', [{ id: 'a', n: 1 }, { id: 'b' }], 7)
  await run('y', [], 8)
  const text =
    '/* hot: numbered */select $1 from unnest($2::uuid[], $3::integer[]) as i ("id", "n") where a = b and c < $4 and $5'
  expect(asked).toEqual([
    [text, ['x', ['a', 'b'], [1, null], 7, 'x']],
    [text, ['y', [], [], 8, 'y']],
  ])
})

it('refuses a second statement of the same name: it would run the first one', async () => {
  const { db, asked } = noting()
  await hot(db, 'twice')`select 1 where ${1}`
  await expect(hot(db, 'twice')`select 2 where ${1}`).rejects.toThrow('two statements are called twice')
  expect(asked).toHaveLength(1)
})
