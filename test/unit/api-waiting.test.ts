import type { Db, JobRow } from '@askonce/store'
import {
  DummyDriver,
  Kysely,
  PostgresAdapter,
  PostgresIntrospector,
  PostgresQueryCompiler,
  type QueryResult,
} from 'kysely'
import { expect, it } from 'vitest'
import type { LaneBook } from '../../apps/api/src/lane-book.ts'
import { WaitReasons } from '../../apps/api/src/waiting.ts'

/** A database whose every statement ends like this. */
function dbOf(execute: () => Promise<QueryResult<unknown>>): Db {
  class Driver extends DummyDriver {
    override acquireConnection() {
      return Promise.resolve({
        executeQuery: <Row>() => execute() as Promise<QueryResult<Row>>,
        streamQuery: () => {
          throw new Error('not here')
        },
      })
    }
  }
  return new Kysely({
    dialect: {
      createAdapter: () => new PostgresAdapter(),
      createDriver: () => new Driver(),
      createIntrospector: (db) => new PostgresIntrospector(db),
      createQueryCompiler: () => new PostgresQueryCompiler(),
    },
  })
}

const open = { closing: () => null } as unknown as LaneBook
const job = (tenantId: string, given: Partial<JobRow> = {}): JobRow =>
  ({
    tenant_id: tenantId,
    state: 'queued',
    run_at: new Date(0),
    error: null,
    reserve_usd: null,
    reserve_tokens: null,
    ...given,
  }) as JobRow

/** The answer of a database whose clock is so far from ours. */
const useOf = (tenantId: string, aheadMs = 0) => ({
  tenant_id: tenantId,
  now: new Date(Date.now() + aheadMs),
  max_running: 1,
  running: 1,
  calls_per_minute: null,
  tokens_per_minute: null,
  budget_day_usd: null,
  budget_month_usd: null,
})

it('reads the use of a tenant once for many jobs, of several tenants in one statement, and not for jobs that are not queued', async () => {
  let statements = 0
  const reasons = new WaitReasons(
    dbOf(() => {
      statements += 1
      return Promise.resolve({ rows: ['a', 'b', 'c'].map((id) => useOf(id)) })
    }),
    open,
  )
  expect(await reasons.of(job('a', { state: 'running' }))).toBeNull()
  expect(statements).toBe(0)
  const jobs = ['a', 'b', 'c', 'a', 'b', 'none'].map((id) => reasons.of(job(id)))
  const waits = await Promise.all(jobs)
  expect(waits.map((one) => one?.name ?? null)).toEqual([...Array<string>(5).fill('max_running'), null])
  for (let count = 0; count < 100; count += 1) await reasons.of(job('a'))
  expect(statements).toBe(1)
})

it('says without the database what it knows without it, and does not wait long for it', async () => {
  const later = new Date(Date.now() + 60_000)
  const away = new WaitReasons(
    dbOf(() => Promise.reject(new Error('away'))),
    open,
  )
  expect(await away.of(job('a'))).toBeNull()
  expect(await away.of(job('a', { run_at: later }))).toMatchObject({ kind: 'schedule', until: later })

  const silent = new WaitReasons(
    dbOf(() => new Promise(() => undefined)),
    open,
  )
  const startedMs = performance.now()
  await Promise.all(['a', 'b', 'a'].map((id) => silent.of(job(id))))
  expect(performance.now() - startedMs).toBeLessThan(3_000)
})

it.each([
  ['ten minutes ahead', 600_000, 590_000],
  ['ten minutes behind', -600_000, -610_000],
])('goes by the clock of the database, which is %s', async (_, aheadMs, dueMs) => {
  const reasons = new WaitReasons(
    dbOf(() => Promise.resolve({ rows: [{ ...useOf('a', aheadMs), running: 0 }] })),
    open,
  )
  expect(await reasons.of(job('a', { run_at: new Date(Date.now() + dueMs) }))).toBeNull()
  const notDue = new Date(Date.now() + dueMs + 60_000)
  expect(await reasons.of(job('a', { run_at: notDue }))).toMatchObject({ kind: 'schedule' })
})
