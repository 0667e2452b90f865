import { noLimits, tenantBounds } from '@askonce/core'
import {
  createTenant,
  openDatabase,
  readSubmissionRules,
  readTenantUse,
  setTenant,
  submitBatch,
  submitLimited,
  type Db,
  type NewJob,
  type RefusedSubmission,
  type SubmitResult,
  type TenantSettings,
} from '@askonce/store'
import { describe, expect, it } from 'vitest'
import { newJob, useStore } from './fixture.ts'

const store = useStore({ poolSize: 12 })

let number = 0
async function tenant(settings: TenantSettings): Promise<string> {
  const name = `limited-${(number += 1)}`
  await createTenant(store.db, name, settings)
  return name
}

type Result = SubmitResult | RefusedSubmission
const kindsOf = (results: readonly Result[]): Record<string, number> => {
  const counts: Record<string, number> = {}
  for (const result of results) {
    const name = result.kind === 'refused' ? result.code : result.kind
    counts[name] = (counts[name] ?? 0) + 1
  }
  return counts
}
const ofTenant = (tenantId: string, key: string, given: Parameters<typeof newJob>[1] = {}): NewJob =>
  newJob(key, { tenantId, reserveUsd: 0.01, reserveTokens: 100, ...given })

/** Many groups at once over connections of several pools, as several processes send them. */
async function atOnce(tenantId: string, jobs: readonly NewJob[], groupSize: number): Promise<Result[]> {
  const pools = [1, 2, 3].map(() => openDatabase({ url: store.url, name: 'test', poolSize: 4 }))
  try {
    const groups: NewJob[][] = []
    for (let start = 0; start < jobs.length; start += groupSize) groups.push(jobs.slice(start, start + groupSize))
    const results = await Promise.all(
      groups.map((group, index) => submitLimited((pools[index % pools.length] as { db: Db }).db, tenantId, group)),
    )
    return results.flat()
  } finally {
    for (const pool of pools) await pool.close()
  }
}

const queued = async (tenantId: string): Promise<number> =>
  (
    await store.query<{ n: number }>(`select count(*)::int as n from jobs where tenant_id = $1 and state = 'queued'`, [
      tenantId,
    ])
  )[0]?.n ?? -1

describe('max_queued', () => {
  it('holds to the unit under a thousand submissions at once', async () => {
    const name = await tenant({ maxQueued: 137 })
    const jobs = Array.from({ length: 1_000 }, (_, index) => ofTenant(name, `k${index}`))
    expect(kindsOf(await atOnce(name, jobs, 7))).toEqual({ created: 137, backlog_full: 863 })
    expect(await queued(name)).toBe(137)
  })

  it('never refuses what attaches or is replayed, and takes no lock for it', async () => {
    const name = await tenant({ maxQueued: 1, submissionsPerSecond: 1 })
    const [first] = await submitLimited(store.db, name, [ofTenant(name, 'a')])
    expect(first?.kind).toBe('created')
    await store.db.transaction().execute(async (holder) => {
      await submitLimitedLock(holder, name)
      const again = await submitLimited(store.db, name, [ofTenant(name, 'a'), ofTenant(name, 'a')])
      expect(kindsOf(again)).toEqual({ attached: 2 })
    })
    await store.query(
      `update jobs set state = 'succeeded', attempt = 1, paid = 1, billed = 1, tries = 1, started_at = now(),
         response_status = 200, answer_attempt = 1, completed_at = now(), expires_at = now() + interval '1 hour'
       where tenant_id = $1`,
      [name],
    )
    await store.query(
      `insert into answers (job_id, tenant_id, attempt, response, findable) select id, tenant_id, 1, 'x', false from jobs where tenant_id = $1`,
      [name],
    )
    await setTenant(store.db, name, { maxQueued: 0 })
    const mixed = await submitLimited(store.db, name, [
      ofTenant(name, 'a'),
      ofTenant(name, 'a', { body: 'other' }),
      ofTenant(name, 'b'),
    ])
    expect(mixed.map((result) => (result.kind === 'refused' ? result.code : result.kind))).toEqual([
      'replayed',
      'mismatch',
      'backlog_full',
    ])
  })

  it('counts a failed job that runs again, and an expired key', async () => {
    const name = await tenant({ maxQueued: 2 })
    await submitLimited(store.db, name, [ofTenant(name, 'failed'), ofTenant(name, 'gone')])
    await store.query(
      `update jobs set state = 'failed', error = '{"code":"not_sent"}', completed_at = now(),
         expires_at = case when idempotency_key = 'gone' then now() - interval '1 second' else now() + interval '1 hour' end
       where tenant_id = $1`,
      [name],
    )
    await setTenant(store.db, name, { maxQueued: 1 })
    const results = await submitLimited(store.db, name, [ofTenant(name, 'gone'), ofTenant(name, 'failed')])
    expect(kindsOf(results)).toEqual({ created: 1, backlog_full: 1 })
    await setTenant(store.db, name, { maxQueued: 2 })
    const later = await submitLimited(store.db, name, [ofTenant(name, 'gone'), ofTenant(name, 'failed')])
    expect(later.map(({ kind }) => kind)).toEqual(['attached', 'rerun'])
  })

  it('gives the same submission its job after a reply that was lost, also at the limit', async () => {
    const name = await tenant({ maxQueued: 1, submissionsPerSecond: 1 })
    const job = ofTenant(name, 'a')
    expect((await submitLimited(store.db, name, [job]))[0]?.kind).toBe('created')
    expect((await submitLimited(store.db, name, [job]))[0]?.kind).toBe('created')
    expect(await queued(name)).toBe(1)
  })
})

describe('submissions_per_second', () => {
  it('holds to the unit in each second of the database clock', async () => {
    const name = await tenant({ submissionsPerSecond: 50 })
    // Every count that was ever committed.
    await sqlOn(
      store.adminDb,
      `create table counted (second bigint, submissions integer);
       create function keep_count() returns trigger language plpgsql security definer as $$
         begin insert into counted values (new.second, new.submissions); return null; end $$;
       create trigger keep_count after insert or update on tenant_submissions for each row
         when (new.tenant_id = '${name}') execute function keep_count()`,
    )
    const created = { all: 0, tried: 0 }
    for (const started = performance.now(); performance.now() - started < 2_500;) {
      const jobs = Array.from({ length: 200 }, () => ofTenant(name, `k${(created.tried += 1)}`))
      created.all += kindsOf(await atOnce(name, jobs, 9))['created'] ?? 0
    }
    const seconds = await store.query<{ most: number }>(
      'select max(submissions)::int as most from counted group by second order by second',
    )
    expect(seconds.length).toBeGreaterThan(1)
    expect(Math.max(...seconds.map(({ most }) => most))).toBe(50)
    expect(seconds.reduce((sum, { most }) => sum + most, 0)).toBe(created.all)
    expect(await queued(name)).toBe(created.all)
    await sqlOn(
      store.adminDb,
      'drop trigger keep_count on tenant_submissions; drop function keep_count; drop table counted',
    )
  })

  it('counts only what made a job run', async () => {
    const name = await tenant({ submissionsPerSecond: 1_000 })
    await submitLimited(store.db, name, [ofTenant(name, 'a')])
    await Promise.all(Array.from({ length: 20 }, () => submitLimited(store.db, name, [ofTenant(name, 'a')])))
    const rows = await store.query<{ submissions: number }>(
      'select submissions from tenant_submissions where tenant_id = $1',
      [name],
    )
    expect(rows).toEqual([{ submissions: 1 }])
  })

  it('a process that dies in the middle leaves nothing: neither jobs, nor counts, nor a lock', async () => {
    const name = await tenant({ submissionsPerSecond: 5, maxQueued: 5 })
    const dying = openDatabase({ url: store.url, name: 'dying', poolSize: 1 })
    const [{ pid }] = (await sqlOn(dying.db, 'select pg_backend_pid() as pid')) as [{ pid: number }]
    // Holds it up at its insert, under the lock.
    await store.adminDb.transaction().execute(async (holder) => {
      await sqlOn(holder, 'lock table ready in access exclusive mode')
      const submitted = submitLimited(dying.db, name, [ofTenant(name, 'a')]).catch((error: unknown) => error)
      await expect
        .poll(() => store.ownQuery(`select from pg_locks where pid = ${pid} and locktype = 'advisory' and granted`))
        .toHaveLength(1)
      await sqlOn(holder, `select pg_terminate_backend(${pid})`)
      expect(await submitted).toBeInstanceOf(Error)
    })
    await dying.close()
    expect(await queued(name)).toBe(0)
    expect(
      kindsOf(
        await atOnce(
          name,
          Array.from({ length: 20 }, (_, n) => ofTenant(name, `b${n}`)),
          3,
        ),
      ),
    ).toMatchObject({
      created: 5,
    })
  })
})

describe('a budget', () => {
  it('refuses what nobody can price and what is more than the whole of it, but no replay', async () => {
    const name = await tenant({ budgetDayUsd: 5, budgetMonthUsd: 2 })
    const known = ofTenant(name, 'known', { reserveUsd: null })
    await submitBatch(store.db, [known])
    const results = await submitLimited(store.db, name, [
      ofTenant(name, 'known', { reserveUsd: null }),
      ofTenant(name, 'fits', { reserveUsd: 2 }),
      ofTenant(name, 'too much', { reserveUsd: 2.5 }),
      ofTenant(name, 'unpriced', { reserveUsd: null }),
    ])
    const codes = results.map((result) => (result.kind === 'refused' ? result.code : result.kind))
    expect(codes).toEqual(['attached', 'created', 'invalid_request', 'no_price'])
    expect(results[3]).toMatchObject({ detail: expect.stringMatching(/"prices".*ASKONCE_CONFIG/s) as string })
    const rows = await store.query(
      `select reserve_usd, reserve_tokens from ready where tenant_id = $1 and reserve_usd is not null`,
      [name],
    )
    expect(rows).toEqual([{ reserve_usd: 2, reserve_tokens: 100 }])
  })
})

describe('the table', () => {
  it('has the bounds that the code has', async () => {
    const name = await tenant({})
    for (const [member, { column, min, max }] of Object.entries(tenantBounds)) {
      for (const value of [min, max]) {
        expect(await setTenant(store.db, name, { [member]: value })).toMatchObject({ [member]: value })
      }
      for (const value of [min - 1, max + 1]) {
        await expect(setTenant(store.db, name, { [member]: value }), `${column} ${value}`).rejects.toThrow(/check/)
      }
      await setTenant(store.db, name, { [member]: null })
    }
    expect(await readSubmissionRules(store.db, name)).toMatchObject({ limits: { maxQueued: null, budgetDayUsd: null } })
    expect((await store.query('select weight from tenants where id = $1', [name]))[0]).toEqual({ weight: 1 })
    expect(noLimits.weight).toBe(1)
  })
})

describe('the use of a tenant', () => {
  it('comes from its days where they are kept, and from the ledger for the others', async () => {
    const name = await tenant({})
    const month = `date_trunc('month', now() at time zone 'utc')`
    const attempt = (job: string, at: string, cost: number, billing: string): Promise<unknown> =>
      store.query(
        `insert into attempts (job_id, attempt, generation, tenant_id, idempotency_key, fingerprint, operation, lane, model, worker_id,
           started_at, finished_at, outcome, billing, cost_usd)
         values ('${job}', 1, 1, $1, 'k', sha256('x'), 'responses', 'openai', 'm', gen_random_uuid(), ${at}, now(), 'answered',
           $2, ${cost})`,
        [name, billing],
      )
    const id = (n: number): string => `00000000-0000-7000-8000-00000000000${n}`
    await attempt(id(1), 'now()', 0.25, 'billed')
    await attempt(id(2), 'now()', 9, 'maybe')
    await attempt(id(3), `(${month} at time zone 'utc') - interval '1 second'`, 100, 'billed')
    expect(await readTenantUse(store.db, name)).toMatchObject({
      running: 0,
      queued: 0,
      usdDay: 0.25,
      usdMonth: 0.25,
      reservedUsd: 0,
    })
    await store.query(
      `insert into tenant_days (tenant_id, day, spent_usd, reserved_usd) values ($1, (now() at time zone 'utc')::date, 0.75, 0.5)`,
      [name],
    )
    await submitLimited(store.db, name, [ofTenant(name, 'one')])
    expect(await readTenantUse(store.db, name)).toMatchObject({
      queued: 1,
      usdDay: 0.75,
      usdMonth: 0.75,
      reservedUsd: 0.5,
      reservedUsdDay: 0.5,
    })
  })
})

async function sqlOn(db: Db, text: string): Promise<unknown[]> {
  const { sql } = await import('kysely')
  return (await sql.raw(text).execute(db)).rows
}

/** What the submissions of a tenant hold. */
async function submitLimitedLock(db: Db, name: string): Promise<void> {
  await sqlOn(db, `select pg_advisory_xact_lock(1634431603, hashtext('${name}'))`)
}
