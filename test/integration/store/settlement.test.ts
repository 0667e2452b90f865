import { randomUUID } from 'node:crypto'
import type { Billing, Outcome } from '@askonce/core'
import { endAttempts, type AttemptEndRecord } from '@askonce/store'
import { beforeEach, describe, expect, it } from 'vitest'
import {
  ending,
  insertAttempt,
  insertRunning,
  openTransaction,
  uncertainTtlSeconds,
  untilBlocked,
  useStore,
} from './fixture.ts'

const store = useStore()

beforeEach(() => store.query('truncate tenant_days, tenant_seconds'))

const started = '2026-03-01T23:59:59.9Z'
const second = Math.floor(Date.parse(started) / 1000)

/** A running job whose claim has reserved $0.5 and 100 tokens, unless `given` says otherwise. */
const reserved = (tenant: string, given: Record<string, unknown> = {}): Promise<string> =>
  insertRunning(
    store,
    { tenant_id: tenant },
    { tenant_id: tenant, started_at: started, reserved_usd: 0.5, reserved_tokens: 100, ...given },
  )

/** What a tenant's day and second say before any end. */
async function counted(tenant: string): Promise<void> {
  await store.query('insert into tenant_days (tenant_id, day, spent_usd, reserved_usd) values ($1, $2, 1, 2)', [
    tenant,
    '2026-03-01',
  ])
  await store.query('insert into tenant_seconds (tenant_id, "second", calls, tokens) values ($1, $2, 1, 1000)', [
    tenant,
    second,
  ])
}

async function now(tenant: string): Promise<{ spent: number; reserved: number; tokens: number }> {
  const [row] = await store.query<{ spent: number; reserved: number; tokens: number }>(
    `select d.spent_usd::float8 as spent, d.reserved_usd::float8 as reserved, s.tokens::float8 as tokens
     from tenant_days d join tenant_seconds s using (tenant_id) where tenant_id = $1`,
    [tenant],
  )
  return row as { spent: number; reserved: number; tokens: number }
}

const end = (job: string, billing: Billing, given: Partial<AttemptEndRecord> = {}) => {
  const outcome: Outcome = billing === 'billed' ? 'answered' : billing === 'none' ? 'failed' : 'unknown'
  const action = billing === 'billed' ? 'answer' : billing === 'none' ? 'rerun' : 'unknown'
  return endAttempts(store.db, [ending(job, action, { outcome, billing, ...given })], uncertainTtlSeconds)
}

const untouched = { spent: 1, reserved: 2, tokens: 1000 }
const usage = { inputTokens: 30, outputTokens: 20, costUsd: 0.2 }
const unknown = { inputTokens: null, outputTokens: null, costUsd: null }

describe('what a claim has reserved', () => {
  it.each<[string, Billing, Partial<AttemptEndRecord>, { spent: number; reserved: number; tokens: number }]>([
    ['none: all of it comes back', 'none', unknown, { spent: 1, reserved: 1.5, tokens: 900 }],
    ['billed: what was used takes its place', 'billed', usage, { spent: 1.2, reserved: 1.5, tokens: 950 }],
    [
      'billed for more than that: also',
      'billed',
      { ...usage, inputTokens: 180, costUsd: 0.75 },
      { spent: 1.75, reserved: 1.5, tokens: 1100 },
    ],
    [
      'billed, nobody knows how much: all of it is spent',
      'billed',
      unknown,
      { spent: 1.5, reserved: 1.5, tokens: 1000 },
    ],
    [
      'billed for nothing',
      'billed',
      { inputTokens: 0, outputTokens: 0, costUsd: 0 },
      { spent: 1, reserved: 1.5, tokens: 900 },
    ],
    ['maybe: stays reserved', 'maybe', unknown, untouched],
  ])('%s', async (_, billing, given, after) => {
    const tenant = randomUUID()
    await counted(tenant)
    await end(await reserved(tenant), billing, given)
    expect(await now(tenant)).toEqual(after)
  })

  it.each<[Billing, { spent: number; reserved: number; tokens: number }]>([
    ['none', { spent: 1, reserved: 1.5, tokens: 900 }],
    ['billed', { spent: 1.2, reserved: 1.5, tokens: 950 }],
  ])('is settled by late evidence: maybe, then %s; once, however often it comes', async (billing, after) => {
    const tenant = randomUUID()
    await counted(tenant)
    const job = await reserved(tenant)
    await end(job, 'maybe', unknown)
    for (let round = 0; round < 3; round += 1) await end(job, billing, billing === 'billed' ? usage : unknown)
    await end(job, billing === 'billed' ? 'none' : 'billed', usage)
    expect(await now(tenant)).toEqual(after)
  })

  it('is settled once when two bring the same end at the same time', async () => {
    const tenant = randomUUID()
    await counted(tenant)
    const job = await reserved(tenant)
    const holder = await openTransaction(store, 'select 1 from jobs where id = $1 for update', [job])
    const both = Promise.all([end(job, 'billed', usage), end(job, 'billed', usage)])
    await untilBlocked(store, 2)
    await holder.finish('commit')
    await both
    expect(await now(tenant)).toEqual({ spent: 1.2, reserved: 1.5, tokens: 950 })
  })

  it('is settled when the job is gone', async () => {
    const tenant = randomUUID()
    await counted(tenant)
    const job = randomUUID()
    await insertAttempt(store, job, { tenant_id: tenant, started_at: started, reserved_usd: 0.5, reserved_tokens: 100 })
    await end(job, 'billed', usage)
    expect(await now(tenant)).toEqual({ spent: 1.2, reserved: 1.5, tokens: 950 })
  })

  it('nothing, before there was a budget or a limit: what it cost is spent all the same', async () => {
    const tenant = randomUUID()
    await counted(tenant)
    await end(await reserved(tenant, { reserved_usd: null, reserved_tokens: null }), 'billed', usage)
    expect(await now(tenant)).toEqual({ spent: 1.2, reserved: 2, tokens: 1000 })
  })

  it('of a tenant without rows makes none', async () => {
    await end(await reserved(randomUUID()), 'billed', usage)
    expect(await store.query('select 1 from tenant_days union all select 1 from tenant_seconds')).toEqual([])
  })

  it('of several attempts of several tenants is settled for each, and opposite orders do not deadlock', async () => {
    const tenants = [randomUUID(), randomUUID()].toSorted()
    for (const tenant of tenants) await counted(tenant)
    const rounds = 6
    for (let round = 0; round < rounds; round += 1) {
      const jobs: string[] = []
      for (const tenant of [...tenants, ...tenants]) jobs.push(await reserved(tenant))
      const ends = jobs.map((job) => ending(job, 'answer', usage))
      await Promise.all([
        endAttempts(store.db, ends.slice(0, 2), uncertainTtlSeconds),
        endAttempts(store.db, ends.slice(2).toReversed(), uncertainTtlSeconds),
      ])
    }
    for (const tenant of tenants) {
      const { spent, reserved: left, tokens } = await now(tenant)
      expect(spent).toBeCloseTo(1 + 2 * rounds * 0.2)
      expect([left, tokens]).toEqual([2 - 2 * rounds * 0.5, 1000 - 2 * rounds * 50])
    }
  })
})
