import { randomUUID } from 'node:crypto'
import type { Billing, Outcome } from '@askonce/core'
import { readKeyLedger, readLedger, readSpend, type LedgerTotals, type SpendRow } from '@askonce/store'
import { beforeEach, describe, expect, it } from 'vitest'
import { insertAttempt, useStore } from './fixture.ts'

const store = useStore()

const nothing: LedgerTotals = {
  calls: 0,
  billed: 0,
  maybe: 0,
  none: 0,
  open: 0,
  unpriced: 0,
  input_tokens: 0,
  output_tokens: 0,
  cost_usd: '0',
  duplicates: 0,
  duplicate_cost_usd: '0',
  possible_duplicates: 0,
  possible_duplicate_cost_usd: '0',
}

/** An attempt of a test: what it cost, in units of 10^-10 dollars; null: unknown. */
interface Given {
  billing: Billing | null
  outcome?: Outcome
  cost?: number | null
  /** Noon of this day, UTC, unless it says a time. */
  at?: string
  model?: string
}

const asDollars = (units: number): string => {
  const text = String(units).padStart(11, '0')
  return `${text.slice(0, -10)}.${text.slice(-10)}`.replace(/\.?0+$/, '')
}

async function insertLedger(attempts: readonly Given[], tenant = 'default'): Promise<string> {
  const id = randomUUID()
  for (const [index, { billing, outcome, cost = null, at = '2026-03-10', model = 'm' }] of attempts.entries()) {
    const started = at.length > 10 ? at : `${at}T12:00:00Z`
    await insertAttempt(store, id, {
      tenant_id: tenant,
      attempt: index + 1,
      lane: 'openai',
      model,
      started_at: started,
      ...(cost === null ? {} : { cost_usd: asDollars(cost) }),
      ...(billing === null
        ? {}
        : { billing, finished_at: started, outcome: outcome ?? (billing === 'none' ? 'failed' : 'unknown') }),
    })
  }
  return id
}

const totalsOf = async (id: string): Promise<LedgerTotals> => (await readLedger(store.db, 'default', id)).totals

beforeEach(async () => {
  await store.query('truncate attempts, open_attempts')
})

describe('readLedger', () => {
  it('reads the ledger of a job in order, also when the job is gone, and to its tenant only', async () => {
    const id = randomUUID()
    await insertAttempt(store, id, { attempt: 10 })
    await insertAttempt(store, id, {
      attempt: 2,
      billing: 'billed',
      cost_usd: 0.000_001_5,
      input_tokens: 5_000_000_000,
    })
    const { attempts, totals } = await readLedger(store.db, 'default', id)
    expect(attempts.map(({ attempt, billing }) => [attempt, billing])).toEqual([
      [2, 'billed'],
      [10, null],
    ])
    expect(attempts[0]).toMatchObject({ cost_usd: 0.000_001_5, input_tokens: 5_000_000_000 })
    expect(totals).toMatchObject({ calls: 2, billed: 1, open: 1, input_tokens: 5_000_000_000, cost_usd: '0.0000015' })
    expect(await readLedger(store.db, 'other', id)).toEqual({ attempts: [], totals: nothing })
  })

  it.each<[string, Given[], number, number]>([
    ['one that is open', [{ billing: null }], 0, 0],
    ['one that was billed', [{ billing: 'billed' }], 0, 0],
    [
      'one billed after others that cost nothing',
      [{ billing: 'none' }, { billing: 'none' }, { billing: 'billed' }],
      0,
      0,
    ],
    ['a maybe and then an answer', [{ billing: 'maybe' }, { billing: 'billed', outcome: 'answered' }], 0, 1],
    ['a maybe and one under way', [{ billing: 'maybe' }, { billing: null }], 0, 1],
    ['two maybes', [{ billing: 'maybe' }, { billing: 'maybe' }], 0, 1],
    [
      'an answer and a surplus',
      [
        { billing: 'billed', outcome: 'surplus' },
        { billing: 'billed', outcome: 'answered' },
      ],
      1,
      0,
    ],
    ['an answer that could not be stored, twice', [{ billing: 'billed' }, { billing: 'billed' }], 1, 0],
    [
      'of each',
      [{ billing: 'billed' }, { billing: 'maybe' }, { billing: null }, { billing: 'billed' }, { billing: 'none' }],
      1,
      2,
    ],
  ])('duplicates: %s', async (_, attempts, duplicates, possible) => {
    expect(await totalsOf(await insertLedger(attempts))).toMatchObject({ duplicates, possible_duplicates: possible })
  })

  it('adds dollars exactly, counts unknown prices, and prices what is possible like the kept attempt', async () => {
    const id = await insertLedger([
      { billing: 'billed', outcome: 'surplus', cost: 1_000_000_001 },
      { billing: 'maybe' },
      { billing: 'billed', outcome: 'answered', cost: 2_000_000_002 },
      { billing: 'billed', outcome: 'surplus', cost: null },
      { billing: 'none' },
    ])
    expect(await totalsOf(id)).toMatchObject({
      calls: 5,
      cost_usd: '0.3000000003',
      unpriced: 1,
      duplicates: 2,
      duplicate_cost_usd: '0.1000000001',
      possible_duplicates: 1,
      possible_duplicate_cost_usd: '0.2000000002',
    })
  })
})

describe('readKeyLedger', () => {
  const [first, second] = ['0199c0de-0000-7000-8000-000000000001', '0199c0de-0000-7000-8000-000000000002']
  type After = Parameters<typeof readKeyLedger>[1]['after']
  const ask = (given: { tenantId?: string; key?: string; limit?: number; after?: After } = {}) =>
    readKeyLedger(store.db, { tenantId: 'default', key: 'key', limit: 50, after: null, ...given })
  const gist = (rows: readonly { job_id: string; attempt: number }[]): unknown[] =>
    rows.map(({ job_id: id, attempt }) => [id, attempt])

  beforeEach(async () => {
    // Two jobs that the key has named one after the other, the second of them twice in the same microsecond, and what is not meant.
    const at = (minute: number): string => `2026-03-10T12:0${minute}:00.000001Z`
    const billed = { billing: 'billed', cost_usd: '0.1' }
    await insertAttempt(store, first, { started_at: at(1), ...billed, outcome: 'answered' })
    await insertAttempt(store, second, { started_at: at(2), billing: 'maybe' })
    await insertAttempt(store, second, { started_at: at(2), attempt: 2, ...billed, outcome: 'answered' })
    await insertAttempt(store, randomUUID(), { started_at: at(1), tenant_id: 'other', ...billed })
    await insertAttempt(store, randomUUID(), { started_at: at(1), idempotency_key: 'key2', ...billed })
  })

  it('reads the attempts of every job that the key has named, oldest first, of one tenant, and their sums', async () => {
    const { attempts, totals } = await ask()
    expect(gist(attempts)).toEqual([
      [first, 1],
      [second, 1],
      [second, 2],
    ])
    // Another id is another answer that was asked for: only the maybe beside the answer of its own job may be a duplicate.
    expect(totals).toEqual({
      ...nothing,
      calls: 3,
      billed: 2,
      maybe: 1,
      cost_usd: '0.2',
      possible_duplicates: 1,
      possible_duplicate_cost_usd: '0.1',
    })
  })

  it('goes on behind any position, and the sums stay those of all', async () => {
    const all = (await ask()).attempts
    for (const [index, { cursor_at: startedAt, job_id: jobId, attempt }] of all.entries()) {
      const { attempts, totals } = await ask({ after: { startedAt, jobId, attempt } })
      expect(gist(attempts)).toEqual(gist(all.slice(index + 1)))
      expect(totals.calls).toBe(3)
    }
    expect(gist((await ask({ limit: 2 })).attempts)).toEqual(gist(all.slice(0, 2)))
  })

  it('is empty, and comes to nothing, where the tenant has no attempt under the key', async () => {
    expect(await ask({ key: 'KEY' })).toEqual({ attempts: [], totals: nothing })
    expect(await ask({ tenantId: 'nobody' })).toEqual({ attempts: [], totals: nothing })
  })

  it('finds them by an index', async () => {
    await store.query(`insert into attempts (job_id, attempt, generation, tenant_id, idempotency_key, fingerprint, operation,
        lane, model, worker_id)
      select gen_random_uuid(), 1, 1, 'default', 'other-' || n, 'f', 'embeddings', 'simulated', 'm', gen_random_uuid()
      from generate_series(1, 5000) n`)
    await store.query('analyze attempts')
    const plan = await store.query(
      'explain select * from attempts a where a.tenant_id = $1 and a.idempotency_key = $2',
      ['default', 'key'],
    )
    expect(JSON.stringify(plan)).toContain('attempts_by_key')
  })
})

/** Days of a time zone, both included. */
const scope = (from: string, to: string, timeZone = 'UTC') => ({
  tenantId: 'default',
  since: { text: from, isLocal: true },
  until: { text: new Date(Date.parse(to) + 86_400_000).toISOString().slice(0, 10), isLocal: true },
  timeZone,
  simulated: false,
})

describe('readSpend', () => {
  const ask = (from: string, to: string, given: { byModel?: boolean; tenantId?: string; limit?: number } = {}) =>
    readSpend(store.db, { ...scope(from, to), byModel: false, limit: 100, ...given })
  const gist = (rows: readonly SpendRow[] = []): unknown[] => rows.map(({ date, calls }) => [date, calls])

  it('is empty, and comes to nothing, where nothing was started', async () => {
    await insertLedger([{ billing: 'billed', cost: 5 }], 'other')
    expect(await ask('2026-01-01', '2026-12-31')).toEqual({
      rows: [],
      totals: { ...nothing, date: null, lane: null, model: null },
    })
  })

  it('puts an attempt on the UTC day on which it started, bounds included', async () => {
    for (const at of [
      '2026-03-09T23:59:59.999999Z',
      '2026-03-10T00:00:00Z',
      '2026-03-10T23:59:59.999999Z',
      '2026-03-11T00:00:00Z',
      '2026-03-12T01:00:00+02:00',
    ]) {
      await insertLedger([{ billing: 'billed', at }])
    }
    expect(gist((await ask('2026-03-10', '2026-03-10'))?.rows)).toEqual([['2026-03-10', 2]])
    expect(gist((await ask('2026-03-09', '2026-03-12'))?.rows)).toEqual([
      ['2026-03-09', 1],
      ['2026-03-10', 2],
      ['2026-03-11', 2],
    ])
  })

  it('the session’s time zone does not move days', async () => {
    await insertLedger([{ billing: 'billed', at: '2026-03-10T23:30:00Z' }])
    await store.query(`alter database ${store.database.name} set timezone = 'Pacific/Auckland'`)
    const { openDatabase } = await import('@askonce/store')
    const elsewhere = openDatabase({ url: store.url, name: 'test', poolSize: 1 })
    const found = await readSpend(elsewhere.db, {
      ...scope('2026-03-10', '2026-03-10'),
      byModel: false,
      limit: 9,
    })
    await elsewhere.close()
    await store.query(`alter database ${store.database.name} reset timezone`)
    expect(gist(found?.rows)).toEqual([['2026-03-10', 1]])
  })

  it('divides days by lane and model', async () => {
    await insertLedger([{ billing: 'billed', cost: 30, model: 'b' }])
    await insertLedger([
      { billing: 'billed', cost: 10, model: 'a' },
      { billing: 'none', model: 'a' },
    ])
    const found = await ask('2026-03-10', '2026-03-10', { byModel: true })
    expect(found?.rows.map(({ date, lane, model, calls, cost_usd }) => [date, lane, model, calls, cost_usd])).toEqual([
      ['2026-03-10', 'openai', 'a', 2, '0.000000001'],
      ['2026-03-10', 'openai', 'b', 1, '0.000000003'],
    ])
    expect(found?.totals).toMatchObject({ calls: 3, cost_usd: '0.000000004' })
  })

  it('a duplicate belongs to its own day, whichever side of the range the kept attempt lies on', async () => {
    await insertLedger([
      { billing: 'billed', outcome: 'surplus', cost: 7, at: '2026-03-10' },
      { billing: 'billed', outcome: 'answered', cost: 5, at: '2026-03-11' },
    ])
    await insertLedger([
      { billing: 'billed', outcome: 'answered', cost: 3, at: '2026-03-10' },
      { billing: 'maybe', at: '2026-03-11' },
    ])
    const duplicates = async (day: string): Promise<unknown[]> => {
      const totals = (await ask(day, day))?.totals
      return [
        totals?.duplicate_cost_usd,
        totals?.duplicates,
        totals?.possible_duplicates,
        totals?.possible_duplicate_cost_usd,
      ]
    }
    expect(await duplicates('2026-03-10')).toEqual(['0.0000000007', 1, 0, '0'])
    expect(await duplicates('2026-03-11')).toEqual(['0', 0, 1, '0.0000000003'])
  })

  it('gives up on more rows than asked for', async () => {
    for (const model of ['a', 'b', 'c']) await insertLedger([{ billing: 'billed', model }])
    expect(await ask('2026-03-10', '2026-03-10', { byModel: true, limit: 2 })).toBeNull()
    expect((await ask('2026-03-10', '2026-03-10', { byModel: true, limit: 3 }))?.rows).toHaveLength(3)
    expect((await ask('2026-03-10', '2026-03-10', { limit: 1 }))?.rows).toHaveLength(1)
  })

  it('agrees with a plain recount over random ledgers, by job and by day', async () => {
    let seed = 20_260_310
    const random = (below: number): number => {
      seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31
      return Math.floor((seed / 2 ** 31) * below)
    }
    const days = ['2026-03-10', '2026-03-11', '2026-03-12']
    const ledgers = Array.from({ length: 120 }, () => {
      const answered = random(6)
      return Array.from({ length: 1 + random(5) }, (_, index): Given => {
        const at = days[random(3)] ?? ''
        if (index === answered) return { billing: 'billed', outcome: 'answered', cost: random(1_000_000), at }
        const billing = ([null, 'none', 'maybe', 'billed', 'billed'] as const)[random(5)] ?? null
        return { billing, cost: billing === 'billed' && random(4) > 0 ? random(1_000_000) : null, at }
      })
    })
    for (const attempts of ledgers) {
      expect(await totalsOf(await insertLedger(attempts))).toEqual(recount([attempts], () => true))
    }
    const found = await ask('2026-03-10', '2026-03-12')
    expect(found?.rows).toHaveLength(days.length)
    expect(found?.rows).toMatchObject(days.map((date) => ({ date, ...recount(ledgers, ({ at }) => at === date) })))
    expect(found?.totals).toMatchObject(recount(ledgers, () => true))
    const [first, second] = days as [string, string]
    expect((await ask(first, second))?.totals).toMatchObject(
      recount(ledgers, ({ at }) => at === first || at === second),
    )
  })
})

/** What the docs say, without SQL. */
function recount(ledgers: readonly (readonly Given[])[], counts: (attempt: Given) => boolean): LedgerTotals {
  const sums = { ...nothing, cost: 0, duplicate: 0, possible: 0 }
  // How many of those that a sum is over have a price.
  const priced = { cost: 0, duplicate: 0, possible: 0 }
  const known = (value: number | null | undefined): number => (value === null || value === undefined ? 0 : 1)
  for (const attempts of ledgers) {
    const paid = attempts.filter(({ billing }) => billing !== 'none')
    const kept =
      paid.find(({ outcome }) => outcome === 'answered') ?? paid.find(({ billing }) => billing === 'billed') ?? paid[0]
    for (const attempt of attempts.filter(counts)) {
      const { billing, cost = null } = attempt
      sums.calls += 1
      sums[billing ?? 'open'] += 1
      sums.cost += cost ?? 0
      priced.cost += known(cost)
      if (billing === 'billed' && cost === null) sums.unpriced += 1
      if (attempt === kept || billing === 'none') continue
      if (billing === 'billed') {
        sums.duplicates += 1
        sums.duplicate += cost ?? 0
        priced.duplicate += known(cost)
      } else {
        sums.possible_duplicates += 1
        sums.possible += kept?.cost ?? 0
        priced.possible += known(kept?.cost)
      }
    }
  }
  const { cost, duplicate, possible, ...counted } = sums
  return {
    ...counted,
    cost_usd: sums.billed + sums.maybe > 0 && priced.cost === 0 ? null : asDollars(cost),
    duplicate_cost_usd: sums.duplicates > 0 && priced.duplicate === 0 ? null : asDollars(duplicate),
    possible_duplicate_cost_usd: sums.possible_duplicates > 0 && priced.possible === 0 ? null : asDollars(possible),
  }
}
