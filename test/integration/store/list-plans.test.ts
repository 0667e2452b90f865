import { countWaiting, listJobs, listWaiting, maxLookedAt, readLimitUses, type ListFilter } from '@askonce/store'
import { beforeAll, describe, expect, it } from 'vitest'
import { useStore } from './fixture.ts'

const store = useStore({ poolSize: 1 })
const many = 20_000

// Most jobs of the tenant fit nothing that is looked for, and neighbours have jobs with the same metadata and keys.
beforeAll(async () => {
  await store.query(
    `insert into jobs (
       id, tenant_id, idempotency_key, fingerprint, operation, model, lane, metadata, priority, timeout_ms, ttl_seconds,
       deadline_seconds, state, attempt, on_uncertain, max_attempts, max_paid_attempts, tries, paid, billed, run_at, deadline_at,
       response_status, answer_attempt, created_at, completed_at, expires_at
     )
     select
       gen_random_uuid(), case when n % 2 = 0 then 'default' else 'other' end, case when n % 1000 = 0 then 'rare/' else 'often/' end || n,
       sha256(n::text::bytea), 'embeddings', 'm', 'openai',
       jsonb_build_object('run', case when n % 2000 < 2 then 'rare' else 'often' end), 5, 1000, 3600, 3600, 'succeeded', 1, 'rerun', 5, 2,
       1, case when n % 2000 < 2 then 2 else 1 end, 1, now(), now() + interval '1 day', 200, 1, now() - n * interval '1 second', now(),
       now() + interval '1 day'
     from generate_series(1, ${many}) n`,
  )
  await store.query('vacuum analyze jobs')
})

const read = async (): Promise<number> => {
  await store.ownQuery('select pg_stat_force_next_flush()')
  const [row] = await store.query<{ n: number }>(
    `select (select sum(idx_tup_read) from pg_stat_user_indexes where relname = 'jobs')::float8
       + (select seq_tup_read from pg_stat_user_tables where relname = 'jobs')::float8 as n`,
  )
  return row?.n ?? 0
}

describe('listJobs reads little more than it finds', () => {
  it.each<[string, Omit<ListFilter, 'tenantId' | 'limit'>, number]>([
    ['rare metadata', { metadata: '{"run":"rare"}' }, 10],
    ['a rare beginning of keys', { keyPrefix: 'rare/' }, 20],
    ['a page in the middle of keys', { keyPrefix: 'often/', after: { key: 'often/5' } }, 50],
    ['what may have been paid', { paid: 'maybe' }, 10],
    ['what may have been paid twice', { paid: 'twice' }, 10],
  ])('%s', async (_, filter, found) => {
    const before = await read()
    expect(await listJobs(store.db, { tenantId: 'default', limit: 50, ...filter })).toHaveLength(found)
    expect((await read()) - before).toBeLessThan(10 * found)
  })
})

describe('what waits', () => {
  const queued = 100_000

  // Of a tenant that has a hundred thousand queued, nearly all of them due; beside a thousand others.
  beforeAll(async () => {
    await store.query(
      `insert into ready (lane, tenant_id, model, priority, run_at, job_id, deadline_at, created_at)
       select 'openai', case when n % 10 = 0 then 't' || n % 10000 else 'large' end, 'm' || n % 3, 5,
         now() + case when n > ${queued} - 100 then interval '1 day' else interval '-1 second' end, gen_random_uuid(), now(),
         now() + n * interval '1 millisecond'
       from generate_series(1, ${queued}) n`,
    )
    await store.query(`insert into tenants (id, max_running) values ('large', 0)`)
    await store.query('vacuum analyze ready')
  })

  const readOf = async (table: string): Promise<number> => {
    await store.ownQuery('select pg_stat_force_next_flush()')
    const [row] = await store.query<{ n: number }>(
      `select (select sum(idx_tup_read) from pg_stat_user_indexes where relname = '${table}')::float8
         + (select seq_tup_read from pg_stat_user_tables where relname = '${table}')::float8 as n`,
    )
    return row?.n ?? 0
  }
  const costOf = async (table: string, statement: () => Promise<unknown>): Promise<number> => {
    const before = await readOf(table)
    await statement()
    return (await readOf(table)) - before
  }

  it('a page ends where it is full', async () => {
    const cost = await costOf('ready', () => listWaiting(store.db, { tenantId: 'large', kind: 'schedule', limit: 50 }))
    expect(cost).toBeLessThan(200)
  })

  it('a page of what nothing waits for ends, however much is queued', async () => {
    const page = await listWaiting(store.db, { tenantId: 'large', kind: 'budget', limit: 50 })
    expect([page.jobs, page.next === null]).toEqual([[], false])
    const cost = await costOf('ready', () => listWaiting(store.db, { tenantId: 'large', kind: 'budget', limit: 50 }))
    expect(cost).toBeLessThan(maxLookedAt * 1.1)
  })

  it('is counted by skipping from tenant to tenant', async () => {
    const cost = await costOf('ready', () => countWaiting(store.db))
    // 10,000 of the one, 10 each of a thousand others, and the skips.
    expect(cost).toBeLessThan(25_000)
  })

  it('what a tenant has used is read by its own rows alone', async () => {
    await store.query(
      `insert into tenant_seconds (tenant_id, second, calls)
       select 't' || n % 100, extract(epoch from now())::bigint - n / 100, 1 from generate_series(0, 19999) n`,
    )
    await store.query(`insert into tenants (id, calls_per_minute) values ('t7', 5)`)
    await store.query('vacuum analyze tenant_seconds')
    const cost = await costOf('tenant_seconds', () => readLimitUses(store.db, ['t7']))
    expect(cost).toBeGreaterThan(50)
    expect(cost).toBeLessThan(70)
    expect(await costOf('tenant_seconds', () => readLimitUses(store.db, ['large']))).toBe(0)
  })
})
