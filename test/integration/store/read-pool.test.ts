import { setTimeout as sleep } from 'node:timers/promises'
import { ReadPool } from '@askonce/store'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { useStore } from './fixture.ts'

const store = useStore()
let reads: ReadPool

beforeAll(() => {
  reads = new ReadPool({ url: store.url, name: 'costly reads', poolSize: 2 })
})
afterAll(() => reads.close())

const running = async (): Promise<number> => {
  const [row] = await store.query<{ n: number }>(
    // Not the statements that a new connection begins with: the caller has not asked for anything yet.
    `select count(*) as n from pg_stat_activity
     where application_name = 'costly reads' and state = 'active' and query like '%pg_sleep%'`,
  )
  return row?.n ?? -1
}

it('ends the statement of a caller who has gone in Postgres, and its place is free for the next one', async () => {
  const gone = new AbortController()
  const sleeping = reads.run(gone.signal, (db) => sql`select pg_sleep(60)`.execute(db))
  await expect.poll(running).toBe(1)
  gone.abort()
  await expect(sleeping).rejects.toMatchObject({ code: '57014' })
  expect(await running()).toBe(0)
  const next = Array.from({ length: 4 }, () =>
    reads.run(new AbortController().signal, (db) => sql<{ one: number }>`select 1 as one`.execute(db)),
  )
  expect((await Promise.all(next)).map(({ rows }) => rows)).toEqual(Array.from({ length: 4 }, () => [{ one: 1 }]))
})

it('runs nothing for a caller who has gone before', async () => {
  await expect(reads.run(AbortSignal.abort(), (db) => sql`select pg_sleep(60)`.execute(db))).rejects.toThrow('aborted')
  await sleep(0)
  expect(await running()).toBe(0)
})
