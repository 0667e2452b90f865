import { decideEnd, transitions, type OnUncertain } from '@askonce/core'
import { describe, expect, it } from 'vitest'
import { explore } from './explore.ts'
import { arrowName } from './properties.ts'
import { productRules, type Rules, type Settings } from './state.ts'

// DESIGN.md §1 over every order of events, not only over those that the fault tests happen to produce.
//
// One key. Every attempt has a worker of its own, so that any number of workers is covered; each may lose the reply of its claim or
// of its end, die at any step, be declared dead rightly or wrongly, come back late, or leave an answer in its spool; the provider may have kept a
// lost answer, or not be there to be asked. A producer
// submits again and again; a user retries with and without consent, fails and cancels at any moment; the deadline passes; the job
// expires; a batch that alone wanted the job ends. What runs here is `decideEnd`, the predicates and the transition table of packages/core,
// and for the rest twins of statements (state.ts names each). The product's decisions about an end and about money are made in SQL: that it
// decides as `decideEnd` does is the proof of test/integration/store/end-attempts-twin.test.ts, that the CHECK of a queued job is `mayRun`
// that of schema.test.ts beside it.
//
// Not covered: more runs on request and more attempts than the bounds below, pauses and lanes, time (leases, backoff), two keys that
// meet in one batch, and the isolation of Postgres: a statement is one step here.

const settings = (onUncertain: OnUncertain, more: Partial<Settings> = {}): Settings => ({
  onUncertain,
  maxPaidAttempts: 2,
  maxAttempts: 2,
  generations: 2,
  attempts: 2,
  ...more,
})

const oneLongRun: Partial<Settings> = { attempts: 3, maxAttempts: 3, generations: 1 }

const cases: [string, Settings][] = [
  ['rerun', settings('rerun')],
  ['rerun, three attempts in one run', settings('rerun', oneLongRun)],
  ['rerun, budget 1', settings('rerun', { attempts: 3, maxPaidAttempts: 1 })],
  ['rerun, three attempts, budget 3', settings('rerun', { ...oneLongRun, maxPaidAttempts: 3 })],
  ['hold', settings('hold', { attempts: 3 })],
  ['fail', settings('fail', { attempts: 3 })],
]

it.each(cases)('policy %s: every promise holds in every reachable state', { timeout: 120_000 }, (_name, chosen) => {
  const { violation, states } = explore(productRules, chosen)
  expect(violation).toBeNull()
  // docs/reliability.md names both. Too few would mean that the model has lost some of its moves.
  expect(states).toBeGreaterThan(20_000)
  expect(states).toBeLessThan(80_000)
})

it('takes every arrow of the transition table', () => {
  const { arrows } = explore(productRules, settings('hold'))
  const all = transitions.flatMap(({ event, from, to }) => from.map((state) => arrowName(event, state, to)))
  expect([...arrows].toSorted()).toEqual(all.toSorted())
})

type Broken = [rule: string, promise: string, policy: OnUncertain, change: Partial<Rules>, more?: Partial<Settings>]

const broken: Broken[] = [
  [
    'the fence is ignored',
    'only its newest attempt moves a running job, unless with an answer',
    'rerun',
    { decideEnd: (job, end) => ({ ...decideEnd({ ...job, attempt: end.attempt }, end) }) },
  ],
  [
    'a second answer replaces the first',
    'an answer never changes',
    'rerun',
    {
      decideEnd: (job, end) => {
        const decision = decideEnd(job, end)
        return end.action === 'answer' && job.state === 'succeeded' ? { ...decision, next: 'succeeded' } : decision
      },
    },
  ],
  [
    'a cancelled job takes an answer',
    'every change of state is an arrow of the table',
    'rerun',
    { decideEnd: (job, end) => decideEnd(job.state === 'cancelled' ? { ...job, state: 'failed' } : job, end) },
  ],
  [
    'an expired job takes an answer',
    'an expired job is absent',
    'rerun',
    { decideEnd: (job, end) => decideEnd({ ...job, expired: false }, end) },
  ],
  [
    'an end without the fence fails a held job',
    'every change of state is an arrow of the table',
    'hold',
    {
      decideEnd: (job, end) => {
        const decision = decideEnd(job, end)
        return end.action === 'stop' && job.state === 'uncertain' ? { ...decision, next: 'failed' } : decision
      },
    },
  ],
  [
    'a late success is thrown away',
    'an answer that is recorded is adopted',
    'rerun',
    {
      decideEnd: (job, end) => {
        const decision = decideEnd(job, end)
        return end.action === 'answer' && !decision.owned ? { ...decision, next: null } : decision
      },
    },
  ],
  [
    'a failed job takes no answer',
    'an answer that is recorded is adopted',
    'fail',
    {
      decideEnd: (job, end) => {
        const decision = decideEnd(job, end)
        return job.state === 'failed' ? { ...decision, next: null } : decision
      },
    },
  ],
  [
    'the policy fail holds',
    'a maybe moves its job as the policy says',
    'fail',
    { decideEnd: (job, end) => decideEnd({ ...job, onUncertain: 'hold' }, end) },
  ],
  [
    'the policy hold fails',
    'a maybe moves its job as the policy says',
    'hold',
    { decideEnd: (job, end) => decideEnd({ ...job, onUncertain: 'fail' }, end) },
  ],
  [
    'the policy rerun fails at a limit',
    'a maybe moves its job as the policy says',
    'rerun',
    {
      decideEnd: (job, end) => {
        const decision = decideEnd(job, end)
        return decision.next === 'uncertain' && end.action === 'unknown' ? { ...decision, next: 'failed' } : decision
      },
    },
  ],
  [
    'whatever was cancelled runs again when it is submitted',
    'what a person cancelled runs again only on a retry',
    'hold',
    { resubmittable: ({ state }) => state === 'failed' || state === 'cancelled' },
  ],
  [
    'hold runs again by itself',
    'a maybe moves its job as the policy says',
    'hold',
    {
      decideEnd: (job, end) => {
        const decision = decideEnd(job, end)
        return decision.next === 'uncertain' && end.action === 'unknown' ? { ...decision, next: 'queued' } : decision
      },
    },
  ],
  [
    'a proof of no charge leaves paid as it was',
    'paid counts what is open, maybe or billed',
    'rerun',
    { decideEnd: (job, end) => ({ ...decideEnd(job, end), paid: job.paid }) },
  ],
  [
    'an unsent attempt costs a try',
    'tries counts what was sent in this run',
    'rerun',
    { decideEnd: (job, end) => decideEnd(job, { ...end, uncounted: false }) },
  ],
  [
    'the claim does not write the ledger',
    'a call is in the ledger before it leaves',
    'rerun',
    { claimOpensLedger: false },
  ],
  [
    'an attempt whose reply was lost is sent',
    'the ledger says none only of what was not billed',
    'rerun',
    { sendNeedsReply: false },
  ],
  [
    'a reclaim takes a lost call for unbilled',
    'the ledger says none only of what was not billed',
    'rerun',
    { reclaimBilling: 'none' },
  ],
  ['nothing is reclaimed', 'every accepted job ends or is held', 'rerun', { reclaimBilling: null }],
  ['an end counts twice', 'paid counts what is open, maybe or billed', 'rerun', { recordable: () => true }],
  [
    'one consent allows any number',
    'never paid beyond the budget and the consents',
    'rerun',
    { consentedPaid: () => 99 },
    { maxPaidAttempts: 1, maxAttempts: 3, attempts: 3 },
  ],
  [
    'a look-up takes an answer to something else',
    'the ledger says billed only of what was answered',
    'rerun',
    { lookUpFinds: () => true },
  ],
  ['a retry needs no consent', 'a queued job may run', 'hold', { retryUnasked: () => true }],
  ['a failed key always runs again', 'a queued job may run', 'fail', { resubmitRuns: () => true }],
  ['nobody decides about held jobs', 'what is held can end', 'hold', { heldCanBeDecided: false }],
  [
    'a job that has its answer can be cancelled',
    'every change of state is an arrow of the table',
    'rerun',
    { cancellable: ['queued', 'running', 'uncertain', 'succeeded'] },
  ],
  [
    'the claim does not ask whether the job may run, and a reclaimed job is always queued',
    'a queued job may run',
    'rerun',
    {
      mayRun: () => true,
      decideEnd: (job, end) => {
        const decision = decideEnd(job, end)
        return decision.next === 'uncertain' ? { ...decision, next: 'queued' } : decision
      },
    },
  ],
]

describe('a rule that is broken is found', () => {
  it.each(broken)('%s: %s', { timeout: 120_000 }, (_rule, promise, policy, change, more) => {
    const { violation } = explore({ ...productRules, ...change }, settings(policy, more))
    expect(violation?.promise).toBe(promise)
    expect(violation?.trace.length).toBeGreaterThan(1)
  })
})
