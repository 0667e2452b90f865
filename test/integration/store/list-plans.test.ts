import { listJobs, type ListFilter } from '@askonce/store'
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
