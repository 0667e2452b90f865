import { listStoredCompletions } from '@askonce/store'
import { beforeAll, expect, it } from 'vitest'
import { useStore } from './fixture.ts'

/** One connection: what it reads can be asked of it. */
const store = useStore({ poolSize: 1 })
const stored = 5_000

beforeAll(async () => {
  await store.query(
    `with made as (insert into jobs (id, tenant_id, idempotency_key, fingerprint, operation, model, lane, priority, timeout_ms, ttl_seconds,
       deadline_seconds, state, on_uncertain, max_attempts, max_paid_attempts, run_at, deadline_at, metadata, response_status,
       answer_attempt, attempt, completed_at, expires_at, created_at)
     select gen_random_uuid(), case when n % 2 = 0 then 'default' else 'other' end, 'key ' || n, sha256('x'), 'chat.completions', 'm', 'l',
        5, 1000, 1000, 1000, 'succeeded', 'rerun', 5, 2, now(), now() + interval '1 hour', '{"run":"1"}', 200,
       1, 1, now(), now() + interval '1 hour', now()
     from generate_series(1, ${stored * 2}) n
     returning *
     ),
     asked as (insert into requests (job_id, request) select id, '{"store":true}' from made)
     insert into answers (job_id, tenant_id, attempt, response, answer_id, findable) select id, tenant_id, 1, '{}', id, true from made`,
  )
  await store.query('analyze jobs')
})

async function entriesRead(): Promise<number> {
  await store.ownQuery('select pg_stat_force_next_flush()')
  const [row] = await store.query<{ entries: number }>(
    `select (select sum(idx_tup_read) from pg_stat_user_indexes where relname = 'jobs')
      + (select sum(seq_tup_read) from pg_stat_user_tables where relname = 'jobs') as entries`,
  )
  return row?.entries ?? Number.NaN
}

it.each(['asc', 'desc'] as const)(
  'a page of stored completions reads what it shows, however many there are: %s',
  async (order) => {
    const filter = { tenantId: 'default', metadata: '{}', order, limit: 51, maxBytes: 1_000_000 }
    const before = await entriesRead()
    const page = await listStoredCompletions(store.db, filter)
    expect((await entriesRead()) - before).toBeLessThan(300)
    const after = page.at(-1)?.id
    const behind = await entriesRead()
    expect(await listStoredCompletions(store.db, { ...filter, after })).toHaveLength(51)
    expect((await entriesRead()) - behind).toBeLessThan(300)
  },
)
