import { describe, expect, test } from 'vitest'
import { Book, check, tally, type Evidence, type Finding, type JobEvidence } from '../chaos/checker.ts'
import { planFaults } from '../chaos/nemesis.ts'
import { percentile } from '../chaos/report.ts'
import type { Entry, Policy } from '../chaos/record.ts'

// The checker of the chaos run must be able to fail: each test doctors the records of a run in which all was well.

const done: JobEvidence = { id: 'id-1', state: 'succeeded', paid: 1, tries: 1, maxAttempts: 5, sha: 'one' }

interface Doctored {
  policy?: Policy
  maxPaid?: number
  entries?: Entry[]
  final?: Partial<Extract<Entry, { type: 'final' }>> | null
  job?: Partial<JobEvidence> | null
  calls?: number
  sent?: number
  consents?: number | null
}

/** One key that was accepted, called once, answered `one`, and says so to everybody; with what the test changes about it. */
function evidence(doctored: Doctored = {}): Evidence {
  const {
    policy = 'rerun',
    maxPaid = 2,
    entries = [],
    final = {},
    job = {},
    calls = 1,
    sent = 1,
    consents = 0,
  } = doctored
  const asked = new Book()
  asked.add([
    { type: 'asked', key: 'k', policy, maxPaid },
    { type: 'accepted', key: 'k', id: 'id-1' },
    { type: 'answer', key: 'k', sha: 'one' },
    ...entries,
  ])
  if (final !== null) asked.add([{ type: 'final', key: 'k', id: 'id-1', state: 'succeeded', sha: 'one', ...final }])
  return {
    asked,
    calls: new Map([['k', calls]]),
    ledger: new Map([['k', { rows: sent, sent }]]),
    consents: consents === null ? null : new Map([['k', consents]]),
    jobs: new Map(job === null ? [] : [['k', { ...done, ...job }]]),
    tenants: [],
  }
}

/** Nobody has seen an answer of the key, and there is none. */
function unanswered(doctored: Doctored): Evidence {
  const built = evidence(doctored)
  built.asked.keys.get('k')?.answers.clear()
  return built
}

function promises(findings: readonly Finding[]): string[] {
  return findings.map(({ promise }) => promise)
}

const found = (doctored: Doctored): string[] => promises(check(evidence(doctored)))

describe('the checker of the chaos run', () => {
  test('finds nothing where every promise was kept', () => {
    expect(check(evidence())).toEqual([])
    expect(evidence().asked.accepted()).toBe(1)
  })

  test('lost: an accepted key without a job', () => {
    expect(found({ job: null })).toEqual(['lost'])
  })

  test('lost: another job stands under the key, or the key was accepted as two jobs', () => {
    expect(found({ job: { id: 'id-2' } })).toEqual(['lost'])
    expect(found({ entries: [{ type: 'accepted', key: 'k', id: 'id-2' }] })).toEqual(['lost'])
  })

  test.each(['queued', 'running'])('lost: a job that is still %s when all is over', (state) => {
    const final = { state, sha: null }
    expect(promises(check(unanswered({ job: { state, sha: null }, final })))).toEqual(['lost'])
  })

  test('lost: an answer that was shown is gone', () => {
    expect(found({ job: { state: 'failed', sha: null }, final: { state: 'failed', sha: null } })).toEqual(['lost'])
  })

  test('lost: the API knows nothing of it, names another job, or contradicts the row', () => {
    expect(found({ final: null })).toEqual(['lost'])
    expect(found({ final: { id: 'id-2' } })).toEqual(['lost'])
    expect(found({ final: { state: 'cancelled', sha: null } })).toEqual(['lost'])
  })

  test('not lost: an answer that came after the API was asked, and a key that was never accepted', () => {
    expect(found({ final: { state: 'uncertain', sha: null } })).toEqual([])
    const asked = new Book()
    asked.add([{ type: 'asked', key: 'k', policy: 'hold', maxPaid: 1 }])
    expect(
      check({ asked, calls: new Map(), ledger: new Map(), consents: new Map(), jobs: new Map(), tenants: [] }),
    ).toEqual([])
  })

  test('two answers: shown twice, shown and stored, shown and told at the end', () => {
    expect(found({ entries: [{ type: 'answer', key: 'k', sha: 'two' }] })).toEqual(['two answers'])
    expect(found({ job: { sha: 'two' } })).toEqual(['two answers'])
    expect(found({ final: { sha: 'two' } })).toEqual(['two answers'])
  })

  test('missing in the ledger: more calls than attempts that may be them, counted by key and not in the sum', () => {
    expect(found({ calls: 2 })).toEqual(['missing in the ledger'])
    const built = evidence({ calls: 2 })
    const ledger = new Map([...built.ledger, ['other', { rows: 9, sent: 9 }]])
    const findings = check({ ...built, ledger })
    expect(tally(findings, 'missing in the ledger')).toEqual({ keys: 1, count: 1 })
  })

  test('missing in the ledger: an attempt that says it was never billed is no proof of a call', () => {
    const built = evidence()
    const ledger = new Map([['k', { rows: 1, sent: 0 }]])
    expect(promises(check({ ...built, ledger }))).toEqual(['missing in the ledger'])
  })

  test.each<[Policy, number, number]>([
    ['rerun', 1, 1],
    ['rerun', 2, 2],
    ['hold', 2, 1],
    ['fail', 2, 1],
  ])('beyond the budget: policy %s with max_paid_attempts %i allows %i, and one more for each consent', (...row) => {
    const [policy, maxPaid, allowed] = row
    const consent: Entry = { type: 'consent', key: 'k' }
    const over = (calls: number, entries: Entry[]): string[] =>
      found({ policy, maxPaid, entries, calls, sent: calls, consents: entries.length })
    expect(over(allowed, [])).toEqual([])
    expect(over(allowed + 1, [])).toEqual(['beyond the budget'])
    expect(over(allowed + 1, [consent])).toEqual([])
    expect(over(allowed + 2, [consent])).toEqual(['beyond the budget'])
  })

  test('beyond the budget: a consent counts when somebody gave it and it was carried out', () => {
    const asked: Entry[] = [1, 2].map(() => ({ type: 'consent', key: 'k' }))
    const second = (entries: Entry[], consents: number | null): string[] =>
      found({ policy: 'hold', entries, consents, calls: 2, sent: 2 })
    // Refused, or it never arrived.
    expect(second(asked, 0)).toEqual(['beyond the budget'])
    expect(second(asked, 1)).toEqual([])
    // The database says that somebody did, and nobody did.
    expect(second([], 1)).toEqual(['beyond the budget'])
    // Postgres is away: what was asked for may have been done.
    expect(second(asked, null)).toEqual([])
    expect(found({ policy: 'hold', entries: asked, consents: 1, calls: 3, sent: 3 })).toEqual(['beyond the budget'])
  })

  test('beyond the budget: a call for a key that nobody asked for', () => {
    const built = evidence()
    const calls = new Map([...built.calls, ['stranger', 1]])
    const ledger = new Map([...built.ledger, ['stranger', { rows: 1, sent: 1 }]])
    expect(check({ ...built, calls, ledger })).toMatchObject([{ promise: 'beyond the budget', key: 'stranger' }])
  })

  test('beyond what a tenant may have, in calls and in dollars', () => {
    const line = { marker: 'team-0', arrivedAt: 43_200_000, endedAt: null, inputTokens: 0, outputTokens: 1_000_000 }
    const rules = { maxRunning: 1, callsPerMinute: null, budgets: [{ fromMs: 0, usd: 1.5 }], liftedAtMs: null }
    const tenant = { tenant: 'team', rules, price: { inputUsd: 0, outputUsd: 1 }, log: [line, line] }
    const findings = check({ ...evidence(), tenants: [tenant] })
    expect(tally(findings, 'beyond a limit')).toEqual({ keys: 1, count: 1 })
    expect(tally(findings, 'beyond a budget of dollars')).toEqual({ keys: 1, count: 0.5 })
  })

  test('held without cause: nothing paid, policy fail, or a rerun that was still allowed', () => {
    const held = (policy: Policy, job: Partial<JobEvidence>): string[] => {
      const final = { state: 'uncertain', sha: null }
      return promises(check(unanswered({ policy, final, job: { state: 'uncertain', sha: null, ...job } })))
    }
    expect(held('hold', { paid: 1 })).toEqual([])
    expect(held('rerun', { paid: 2 })).toEqual([])
    expect(held('rerun', { paid: 1, tries: 5 })).toEqual([])
    expect(held('hold', { paid: 0 })).toEqual(['held without cause'])
    expect(held('fail', { paid: 1 })).toEqual(['held without cause'])
    expect(held('rerun', { paid: 1 })).toEqual(['held without cause'])
  })

  test('meanwhile, without the jobs, it still sees answers, calls and budgets', () => {
    const built = evidence({ calls: 3, entries: [{ type: 'answer', key: 'k', sha: 'two' }] })
    expect(promises(check({ ...built, jobs: null }))).toEqual([
      'two answers',
      'missing in the ledger',
      'beyond the budget',
    ])
  })
})

describe('the faults of a seed', () => {
  const kinds = Array.from({ length: 9 }, (_, index) => ({ kind: `kind ${index}`, weight: 1 + (index % 3) }))
  const take = (seed: number, count: number) => {
    const plan = planFaults(seed, kinds)
    return Array.from({ length: count }, () => plan.next().value)
  }

  test('are the same for the same seed, and others for another', () => {
    expect(take(7, 50)).toEqual(take(7, 50))
    expect(take(7, 50)).not.toEqual(take(8, 50))
  })

  test('begin with every kind once', () => {
    expect(new Set(take(3, 9).map(({ kind }) => kind)).size).toBe(9)
  })
})

test('percentiles are values that occurred', () => {
  expect(percentile([5, 1, 3, 2, 4], 0.5)).toBe(3)
  expect(percentile([1, 2], 0.95)).toBe(2)
  expect(percentile([], 0.5)).toBe(0)
})
