import { tenantWaitCause, type WaitCause, type WaitKind } from '@askonce/core'
import { countWaiting, listWaiting, maxLookedAt, readLimitUses } from '@askonce/store'
import { beforeEach, describe, expect, it } from 'vitest'
import { inSeconds, insertAttempt, insertJob, useStore } from './fixture.ts'

const store = useStore({ poolSize: 1 })
const tenant = 'team-a'

const noLimits = {
  max_running: null,
  calls_per_minute: null,
  tokens_per_minute: null,
  budget_day_usd: null,
  budget_month_usd: null,
}

async function limit(limits: Partial<Record<keyof typeof noLimits, number | null>>): Promise<void> {
  const all = Object.entries({ ...noLimits, ...limits })
  const set = all.map(([name, value]) => `${name} = ${value ?? 'null'}`).join(', ')
  await store.query(`update tenants set ${set} where id = '${tenant}'`)
}

const second = (ago: number): string => `floor(extract(epoch from now()))::bigint - ${ago}`
const useSecond = (ago: number, calls: number, tokens: number): Promise<unknown> =>
  store.query(
    `insert into tenant_seconds (tenant_id, second, calls, tokens) values ('${tenant}', ${second(ago)}, ${calls}, ${tokens})`,
  )
const useDay = (ago: number, spent: number, reserved: number): Promise<unknown> =>
  store.query(
    `insert into tenant_days (tenant_id, day, spent_usd, reserved_usd)
     values ('${tenant}', (now() at time zone 'utc')::date - ${ago}, ${spent}, ${reserved})`,
  )
const job = (given: Record<string, unknown> = {}): Promise<string> => insertJob(store, { tenant_id: tenant, ...given })
const list = (kind: WaitKind, more: object = {}) =>
  listWaiting(store.db, { tenantId: tenant, kind, limit: 50, ...more })

beforeEach(async () => {
  for (const table of ['jobs', 'ready', 'attempts', 'tenant_days', 'tenant_seconds', 'lanes'])
    await store.query(`delete from ${table}`)
  await store.query(`insert into tenants (id) values ('${tenant}') on conflict do nothing`)
  await limit({})
})

describe('readLimitUses', () => {
  it('counts open attempts, the seconds that the claim counts, and what was spent or is reserved of the day and the month', async () => {
    await limit({
      max_running: 3,
      calls_per_minute: 10,
      tokens_per_minute: 1000,
      budget_day_usd: 5,
      budget_month_usd: 50,
    })
    await insertAttempt(store, await job(), { tenant_id: tenant })
    await insertAttempt(store, await job(), { tenant_id: tenant, billing: 'billed' })
    await insertAttempt(store, await job(), { tenant_id: 'other' })
    await useSecond(70, 100, 100_000)
    await useSecond(30, 2, 0)
    await useSecond(10, 1, 200)
    await useDay(0, 1.5, 0.25)
    const firstOfMonth = await store.query<{ first: boolean }>(
      `select extract(day from now() at time zone 'utc') = 1 as first`,
    )
    await useDay(1, 4, 1)
    const [use] = await readLimitUses(store.db, [tenant])
    expect(use).toMatchObject({
      tenant_id: tenant,
      max_running: 3,
      running: 1,
      calls_per_minute: 10,
      calls: 3,
      tokens_per_minute: 1000,
      tokens: 200,
      budget_day_usd: 5,
      used_day_usd: 1.75,
      budget_month_usd: 50,
      // Yesterday is of this month, but on its first day.
      used_month_usd: firstOfMonth[0]?.first === true ? 1.75 : 6.75,
    })
    const seconds = (time: Date | null | undefined): number =>
      ((time?.getTime() ?? 0) - (use?.now.getTime() ?? 0)) / 1000
    expect(Math.abs(seconds(use?.calls_until) - 31)).toBeLessThan(1.5)
    expect(Math.abs(seconds(use?.tokens_until) - 51)).toBeLessThan(1.5)
    expect(use?.day_until.toISOString()).toMatch(/T00:00:00\.000Z$/)
    expect(seconds(use?.day_until)).toBeGreaterThan(0)
    expect(use?.month_until.toISOString()).toMatch(/-01T00:00:00\.000Z$/)
  })

  it('counts the second that is a minute ago and not the one before, as the claim does', async () => {
    await limit({ calls_per_minute: 10 })
    for (const ago of [59, 60, 61, 62, 63]) await useSecond(ago, 1, 0)
    const [{ calls } = { calls: 0 }] = await readLimitUses(store.db, [tenant])
    const counted = await store.query<{ n: number }>(
      `select count(*) as n from tenant_seconds where second >= ${second(60)}`,
    )
    // A second may have passed between the two.
    expect([counted[0]?.n ?? 0, (counted[0]?.n ?? 0) + 1]).toContain(calls)
  })

  it('tells the clock of tenants without limits too, and reads nothing else for them', async () => {
    await insertAttempt(store, await job(), { tenant_id: tenant })
    await useSecond(1, 5, 5)
    const [use, none] = await readLimitUses(store.db, [tenant, 'nobody'])
    expect(use).toMatchObject({ ...noLimits, running: 0, calls: 0, tokens: 0, used_day_usd: 0, used_month_usd: 0 })
    expect(use?.now).toBeInstanceOf(Date)
    expect(none).toBeUndefined()
  })
})

describe('the cause', () => {
  const limits = [
    {},
    { max_running: 0 },
    { max_running: 1 },
    { max_running: 2 },
    { calls_per_minute: 3 },
    { calls_per_minute: 4 },
    { tokens_per_minute: 199 },
    { tokens_per_minute: 200 },
    { tokens_per_minute: 300 },
    { budget_day_usd: 0 },
    { budget_day_usd: 0.3 },
    { budget_day_usd: 0.29 },
    { budget_month_usd: 0.3 },
    { budget_day_usd: 1, budget_month_usd: 0.2 },
    { budget_day_usd: 0.2, budget_month_usd: 0.2 },
    { max_running: 9, calls_per_minute: 9, tokens_per_minute: 900, budget_day_usd: 9, budget_month_usd: 9 },
    { tokens_per_minute: 200, budget_day_usd: 0.2 },
  ]
  const reserves = [
    { reserve_usd: null, reserve_tokens: null },
    { reserve_usd: 0, reserve_tokens: 0 },
    { reserve_usd: 0.2, reserve_tokens: 100 },
    { reserve_usd: 0.2, reserve_tokens: 101 },
    { reserve_usd: 20, reserve_tokens: 10_000 },
  ]

  it.each([
    ['with use', true],
    ['without', false],
  ])('is the same here and in the database, %s', async (_, used) => {
    if (used) {
      await insertAttempt(store, '00000000-0000-4000-8000-000000000001', { tenant_id: tenant })
      await useSecond(2, 3, 200)
      await useDay(0, 0.1, 0)
    }
    const expected = new Map<string, WaitCause | null>()
    const ids: { id: string; reserve: (typeof reserves)[number] }[] = []
    for (const reserve of reserves) ids.push({ id: await job(reserve), reserve })
    for (const given of limits) {
      await limit(given)
      const [use] = await readLimitUses(store.db, [tenant])
      if (use === undefined) throw new Error('no use')
      const found = new Map<string, WaitCause>()
      for (const kind of ['tenant_limit', 'budget', 'lane', 'schedule'] as const)
        for (const row of (await list(kind)).jobs) found.set(row.id, row.cause)
      for (const { id, reserve } of ids) {
        const cause = tenantWaitCause(reserve, use)
        expected.set(JSON.stringify([given, reserve]), cause)
        expect([given, reserve, found.get(id) ?? null]).toEqual([given, reserve, cause])
      }
    }
    const causes = new Set(expected.values())
    expect(causes).toEqual(
      new Set(
        used
          ? [null, 'max_running', 'calls_per_minute', 'tokens_per_minute', 'day', 'month']
          : [null, 'max_running', 'day', 'month'],
      ),
    )
  })
})

describe('listWaiting', () => {
  it('lists by kind: the time comes before the lane, the lane before the limit, the limit before the budget', async () => {
    await store.query(
      `insert into lanes (name, model, state, reason, until) values
         ('stopped', '', 'stopped', 'x', null), ('breaker', '', 'breaker', 'x', now() - interval '1 minute'),
         ('paused', '', 'paused', 'x', now() + interval '1 minute'), ('over', '', 'paused', 'x', now() - interval '1 minute'),
         ('simulated', 'paused-model', 'paused', 'x', now() + interval '1 minute')`,
    )
    await limit({ tokens_per_minute: 1000, budget_day_usd: 1 })
    await useSecond(1, 1, 900)
    const priced = { reserve_usd: 0.5, reserve_tokens: 10 }
    const made: Record<string, string> = {
      later: await job({ lane: 'stopped', run_at: inSeconds(600) }),
      stopped: await job({ lane: 'stopped', reserve_usd: 5 }),
      breaker: await job({ lane: 'breaker', ...priced }),
      paused: await job({ lane: 'paused', ...priced }),
      model: await job({ model: 'paused-model', ...priced }),
      over: await job({ lane: 'over', ...priced }),
      tokens: await job({ reserve_tokens: 200 }),
      dear: await job({ reserve_usd: 1.5, reserve_tokens: 1 }),
      unknown: await job({ reserve_tokens: 1 }),
      free: await job(priced),
      running: await job({ state: 'running', ...priced }),
    }
    await insertJob(store, { lane: 'stopped' })
    const names = async (kind: WaitKind): Promise<string[]> => {
      const { jobs, next } = await list(kind)
      expect(next).toBeNull()
      const times = jobs.map(({ cursor_at: time }) => time)
      expect(times).toEqual(times.toSorted().toReversed())
      return jobs.map(({ id }) => Object.keys(made).find((name) => made[name] === id) ?? id).toSorted()
    }
    expect(await names('schedule')).toEqual(['later'])
    expect(await names('lane')).toEqual(['breaker', 'model', 'paused', 'stopped'])
    expect(await names('tenant_limit')).toEqual(['tokens'])
    expect(await names('budget')).toEqual(['dear', 'unknown'])

    const count = async (): Promise<string[]> =>
      (await countWaiting(store.db))
        .map(({ tenant_id: of, lane, cause, count: n }) => `${of} ${lane} ${cause} ${n}`)
        .toSorted()
    expect(await count()).toEqual(
      [
        'default stopped lane 1',
        'team-a breaker lane 1',
        'team-a over null 1',
        'team-a paused lane 1',
        'team-a simulated day 2',
        'team-a simulated lane 1',
        'team-a simulated null 1',
        'team-a simulated tokens_per_minute 1',
        'team-a stopped lane 1',
        'team-a stopped schedule 1',
      ].toSorted(),
    )
  })

  it('goes page by page without gaps or repeats, also where it stops looking', async () => {
    const many = 2 * maxLookedAt + 100
    // Every 1,250th waits: five in all of the newest 5,000 and five of the rest, among them the last one that a page looks at.
    await store.query(
      `insert into jobs (
         id, tenant_id, idempotency_key, fingerprint, operation, model, lane, priority, timeout_ms, ttl_seconds,
         deadline_seconds, state, on_uncertain, max_attempts, max_paid_attempts, run_at, deadline_at, created_at
       )
       select
         gen_random_uuid(), '${tenant}', 'many/' || n, sha256(n::text::bytea), 'embeddings', 'm', 'simulated', 5, 1000, 3600, 3600,
         'queued', 'rerun', 5, 2, case when n % 1250 = 0 then now() + interval '1 hour' else now() end, now() + interval '1 day',
         now() - n * interval '1 millisecond'
       from generate_series(1, ${many}) n`,
    )
    for (const limitOf of [3, 4, 50]) {
      const keys: string[] = []
      const sizes: number[] = []
      let after: { createdAt: string; id: string } | undefined
      do {
        const { jobs, next } = await list('schedule', { limit: limitOf, after })
        keys.push(...jobs.map(({ idempotency_key: key }) => key))
        sizes.push(jobs.length)
        after = next ?? undefined
      } while (after !== undefined)
      expect(keys).toEqual([1250, 2500, 3750, 5000, 6250, 7500, 8750, 10_000].map((n) => `many/${n}`))
      expect(sizes.length).toBeGreaterThan(2)
    }
    // Nothing at all fits, and it says how far it has looked.
    const nothing = await list('budget')
    expect(nothing.jobs).toEqual([])
    expect(nothing.next).not.toBeNull()
  })

  it('starts from a time of creation', async () => {
    const old = await job({ run_at: inSeconds(600), created_at: inSeconds(-3_600) })
    const young = await job({ run_at: inSeconds(600) })
    const { jobs } = await list('schedule', { createdAfter: new Date(Date.now() - 600_000).toISOString() })
    expect(jobs.map(({ id }) => id)).toEqual([young])
    expect((await list('schedule')).jobs.map(({ id }) => id)).toEqual([young, old])
  })
})

describe('countWaiting', () => {
  it('is empty where nothing is queued', async () => {
    expect(await countWaiting(store.db)).toEqual([])
  })

  it('counts at most 10,000 of a tenant in a lane, and goes on to the others', async () => {
    await store.query(
      `insert into ready (lane, tenant_id, model, priority, run_at, job_id, deadline_at, created_at)
       select 'simulated', case when n <= 10100 then 'a' else 'b' || n % 50 end, 'm' || n % 7, 5, now() + (n % 2) * interval '1 hour',
         gen_random_uuid(), now(), now()
       from generate_series(1, 10200) n`,
    )
    const groups = await countWaiting(store.db)
    const of = (tenantId: string): number =>
      groups.filter(({ tenant_id: id }) => id === tenantId).reduce((sum, { count }) => sum + count, 0)
    expect(of('a')).toBe(10_000)
    expect(new Set(groups.map(({ tenant_id: id }) => id)).size).toBe(51)
    expect(of('b7')).toBe(2)
  })
})
