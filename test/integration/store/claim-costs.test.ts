import { beforeAll, describe, expect, it } from 'vitest'
import { addWorker, openTransaction, useStore } from './fixture.ts'

/** Rows in all; a million with those of the small lanes. */
const ofOneTenant = 700_000
const ofManyTenants = 100_000
const heldBack = 180_000
const among = 20_000
const tenants = 1_000
/** As many jobs as a test claims at most, of each group. */
const real = 110
const places = 100

const store = useStore()
let worker = ''

/** Queued jobs that a claim meets beyond those it takes: the list alone knows them. */
async function list(lane: string, count: number, columns: { tenant?: string; model?: string; run_at?: string } = {}) {
  const { tenant = `'one'`, model = `'m'`, run_at = `now() - n * interval '1 millisecond'` } = columns
  const part = 50_000
  for (let from = 0; from < count; from += part) {
    await store.query(
      `insert into ready (lane, tenant_id, model, priority, run_at, job_id, deadline_at, created_at)
       select $1, ${tenant}, ${model}, 5, ${run_at}, gen_random_uuid(), now() + interval '1 day', now()
       from generate_series($2::integer, $3::integer) n`,
      [lane, from + 1, Math.min(count, from + part)],
    )
  }
}

/** Jobs that are older than what {@link list} makes: a claim finds these. */
async function queue(lane: string, count: number, tenant = `'one'`): Promise<void> {
  await store.query(
    `insert into jobs (id, tenant_id, idempotency_key, fingerprint, operation, model, lane, priority, timeout_ms, ttl_seconds,
       deadline_seconds, state, on_uncertain, max_attempts, max_paid_attempts, run_at, deadline_at)
     select gen_random_uuid(), ${tenant}, gen_random_uuid(), sha256('x'), 'embeddings', 'm', $1, 5, 1000, 60, 60, 'queued', 'rerun', 5,
       2, now() - interval '1 hour', now() + interval '1 day'
     from generate_series(1, $2::integer) n`,
    [lane, count],
  )
}

interface Cost {
  claimed: number
  /** Of 8 KiB, in the tables and indexes of the database. */
  pages: number
}

/** What a claim takes and touches. Nothing of it stays. */
async function cost(lane: string, most = places): Promise<Cost> {
  const call = `claim_jobs('${worker}', 1, '${lane}', ${most}, '', 0, false, '{}', '{}', '{}', '{}')`
  // The first one of a connection reads the catalogue, too.
  const measured = await openTransaction(store, `select count(*) from ${call} where id is not null`)
  await measured.query('rollback')
  await measured.query('begin')
  try {
    const [row = {}] = await measured.query(`explain (analyze, buffers, format json) select * from ${call}`)
    const [{ Plan: plan }] = row['QUERY PLAN'] as [{ Plan: Record<string, number> }]
    const pages = (plan['Shared Hit Blocks'] ?? 0) + (plan['Shared Read Blocks'] ?? 0)
    // The last row is no job; a closed lane has none.
    return { claimed: Math.max(0, (plan['Actual Rows'] ?? 0) - 1), pages }
  } finally {
    await measured.finish('rollback')
  }
}

/**
 * Promise: a claim costs by what it takes and by the groups (tenant, model, priority) that it passes, not by what waits (DESIGN.md §8).
 * Not covered: dead entries that a held snapshot keeps.
 */
describe('the pages that a claim touches, among a million queued rows', () => {
  beforeAll(async () => {
    worker = await addWorker(store)
    await store.query('alter table ready set (autovacuum_enabled = false)')
    await store.query(
      `insert into tenants (id, max_running) select 't' || n, case when n % 2 = 0 then 1000 end from generate_series(1, $1::integer) n`,
      [20 * tenants],
    )
    await store.query(
      `insert into attempts (job_id, attempt, generation, tenant_id, idempotency_key, fingerprint, operation, lane, model, worker_id)
       select gen_random_uuid(), 1, 1, 'other', 'k', '', 'embeddings', 'l', 'm', gen_random_uuid() from generate_series(1, 10000)`,
    )
    await queue('small', real)
    await queue('one', real)
    await list('one', ofOneTenant)
    // A visit of a tenant takes up to six: jobs that are there, and not only rows that stand for some.
    await queue('many', 7 * tenants, `'t' || (n % ${tenants} + 1)`)
    await list('many', ofManyTenants, { tenant: `'t' || (n % ${tenants} + 1)` })
    await queue('few', 20, `'t' || n`)
    // Nine of ten wait: for tomorrow, and for a model that is paused.
    await queue('mixed', real)
    await list('mixed', among)
    await list('mixed', heldBack / 2, { model: `'paused'` })
    await list('mixed', heldBack / 2, {
      model: `'later'`,
      run_at: `now() + interval '1 day' + n * interval '1 millisecond'`,
    })
    await list('stuck', among, { model: `'paused'`, tenant: `'t' || (n % ${tenants} + 1)` })
    await list('closed', among)
    await store.query(
      `insert into lanes (name, model, state, reason, until) values
         ('mixed', 'paused', 'paused', 'limit', now() + interval '1 day'), ('stuck', 'paused', 'paused', 'limit', now() + interval '1 day'),
         ('closed', '', 'stopped', 'money', null)`,
    )
    await store.query('analyze ready, jobs, attempts')
  }, 240_000)

  it.each(['one', 'mixed'])(
    'of one tenant (%s): as many as where nothing else waits, for one and for a hundred',
    async (lane) => {
      for (const most of [1, places]) {
        const small = await cost('small', most)
        const large = await cost(lane, most)
        expect([small.claimed, large.claimed]).toEqual([most, most])
        // A level or two more in the trees, for each row.
        expect(large.pages).toBeLessThan(1.5 * small.pages + 50)
      }
    },
  )

  it('of a thousand tenants: about as many as of twenty, for each call', async () => {
    const [few, many] = [await cost('few', 20), await cost('many', places)]
    expect([few.claimed, many.claimed]).toEqual([20, places])
    // The trees are deeper, and more rounds pass more tenants.
    expect(many.pages / many.claimed).toBeLessThan(3 * (few.pages / few.claimed))
    // Its rows and entries, and its tenant's; not those of all tenants, nor of all that runs.
    expect(many.pages / many.claimed).toBeLessThan(150)
  })

  it('of a lane that is closed: next to none', async () => {
    const { claimed, pages } = await cost('closed')
    expect(claimed).toBe(0)
    expect(pages).toBeLessThan(50)
  })

  it('of a thousand tenants whose model is paused: a few for each of them, whatever they have', async () => {
    const { claimed, pages } = await cost('stuck')
    expect(claimed).toBe(0)
    expect(pages).toBeLessThan(12 * tenants)
  })
})
