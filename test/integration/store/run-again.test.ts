import { randomUUID } from 'node:crypto'
import { jobError } from '@askonce/core'
import { cancelJobs, deleteJobs, failJobs, retryJobs, type ChangeOutcome } from '@askonce/store'
import { describe, expect, it } from 'vitest'
import {
  attemptRow,
  decisionRequest,
  inSeconds,
  insertJob,
  insertRunning,
  jobRow,
  openTransaction,
  secondsTo,
  uncertainTtlSeconds,
  untilBlocked,
  useStore,
} from './fixture.ts'

const store = useStore()
const failure = JSON.stringify(jobError('failed_on_request'))

const retry = (ids: readonly string[], consent = false): Promise<ChangeOutcome[]> =>
  retryJobs(store.db, decisionRequest(ids), consent)
const cancel = (ids: readonly string[]): Promise<ChangeOutcome[]> =>
  cancelJobs(store.db, decisionRequest(ids), uncertainTtlSeconds)
const fail = (ids: readonly string[]): Promise<ChangeOutcome[]> =>
  failJobs(store.db, decisionRequest(ids), failure, uncertainTtlSeconds)

const requests = { retry: (ids: readonly string[]) => retry(ids, true), cancel, fail }

describe('retry', () => {
  it.each([
    ['failed', 0, false],
    ['cancelled', 0, false],
    ['uncertain', 0, false],
    ['failed', 2, true],
    ['cancelled', 2, true],
    ['uncertain', 2, true],
  ] as const)('runs a job again that is %s with %i paid (consent: %s)', async (state, paid, consent) => {
    const id = await insertJob(store, {
      state,
      paid,
      attempt: 3,
      tries: 5,
      reruns: 4,
      generation: 2,
      deadline_seconds: 500,
      deadline_at: inSeconds(-1),
    })
    const [outcome] = await retry([id], consent)
    expect(outcome).toMatchObject({ id, was: state, consentRequired: paid > 0, changed: { id, state: 'queued' } })
    expect(await jobRow(store, id)).toMatchObject({
      state: 'queued',
      generation: 3,
      attempt: 3,
      tries: 0,
      reruns: 0,
      paid,
      consented_paid: consent ? paid + 1 : 0,
      uncertain_since: null,
      completed_at: null,
      expires_at: null,
    })
    expect(await secondsTo(store, 'run_at', id)).toBeLessThanOrEqual(0)
    expect(await secondsTo(store, 'deadline_at', id)).toBeGreaterThan(400)
  })

  it.each([
    ['rerun', 1, 2, false],
    ['rerun', 2, 2, true],
    ['hold', 0, 2, false],
    ['hold', 1, 2, true],
    ['fail', 1, 2, true],
  ])('under %s with %i of %i paid needs consent: %s', async (policy, paid, most, needed) => {
    const columns = { on_uncertain: policy, paid, max_paid_attempts: most, attempt: 2, consented_paid: 9 }
    const id = await insertJob(store, { state: 'failed', ...columns })
    const [outcome] = await retry([id])
    expect(outcome).toMatchObject({
      was: 'failed',
      consentRequired: needed,
      changed: needed ? null : { state: 'queued' },
    })
    expect((await jobRow(store, id))['generation']).toBe(needed ? 1 : 2)
    await cancel([id])
    const again = await retry([id], true)
    expect(again).toMatchObject([{ changed: { state: 'queued', consented_paid: paid + 1 } }])
  })

  it('accepts one payment more than are open now, and not more with each consent', async () => {
    const id = await insertJob(store, { state: 'cancelled', paid: 1, attempt: 1, on_uncertain: 'hold' })
    await retry([id], true)
    await cancel([id])
    await retry([id], true)
    expect(await jobRow(store, id)).toMatchObject({ consented_paid: 2, generation: 3 })
  })

  it.each(['queued', 'running', 'succeeded'] as const)(
    'of a job that is %s does nothing and says so',
    async (state) => {
      const id = await insertJob(store, { state })
      const before = await jobRow(store, id)
      expect(await retry([id], true)).toMatchObject([{ id, was: state, changed: null }])
      expect(await jobRow(store, id)).toEqual(before)
    },
  )
})

describe('cancel', () => {
  it.each(['queued', 'running', 'uncertain'] as const)('ends a job that is %s', async (state) => {
    const id = await insertJob(store, { state, ttl_seconds: 500 })
    expect(await cancel([id])).toMatchObject([{ id, was: state, changed: { state: 'cancelled' } }])
    expect(await jobRow(store, id)).toMatchObject({ state: 'cancelled', uncertain_since: null })
    expect(await secondsTo(store, 'completed_at', id)).toBeLessThanOrEqual(0)
    const kept = state === 'queued' ? 500 : uncertainTtlSeconds
    expect(Math.abs((await secondsTo(store, 'expires_at', id)) - kept)).toBeLessThan(30)
  })

  it('leaves the running attempt to its worker', async () => {
    const id = await insertRunning(store)
    await cancel([id])
    expect(await attemptRow(store, id)).toMatchObject({ finished_at: null, billing: null })
  })

  it.each(['succeeded', 'failed', 'cancelled'] as const)('of a job that is %s does nothing', async (state) => {
    const id = await insertJob(store, { state })
    const before = await jobRow(store, id)
    expect(await cancel([id])).toMatchObject([{ was: state, changed: null }])
    expect(await jobRow(store, id)).toEqual(before)
  })
})

describe('fail', () => {
  it('ends an uncertain job, and keeps what was paid for', async () => {
    const id = await insertJob(store, { state: 'uncertain' })
    expect(await fail([id])).toMatchObject([{ id, was: 'uncertain', changed: { state: 'failed' } }])
    expect(await jobRow(store, id)).toMatchObject({
      error: { code: 'failed_on_request' },
      paid: 1,
      uncertain_since: null,
    })
    expect(Math.abs((await secondsTo(store, 'expires_at', id)) - uncertainTtlSeconds)).toBeLessThan(30)
  })

  it.each(['queued', 'running', 'succeeded', 'failed', 'cancelled'] as const)(
    'of a job that is %s does nothing',
    async (state) => {
      const id = await insertJob(store, { state })
      const before = await jobRow(store, id)
      expect(await fail([id])).toMatchObject([{ was: state, changed: null }])
      expect(await jobRow(store, id)).toEqual(before)
    },
  )
})

describe('every request about jobs', () => {
  it.each(['retry', 'cancel', 'fail'] as const)(
    '%s passes by ids that are unknown, foreign or expired',
    async (name) => {
      const state = name === 'retry' ? 'failed' : 'uncertain'
      const foreign = await insertJob(store, { tenant_id: 'other', state })
      const expired = await insertJob(store, { state: 'failed', expires_at: inSeconds(0) })
      const before = [await jobRow(store, foreign), await jobRow(store, expired)]
      expect(await requests[name]([randomUUID(), foreign, expired])).toEqual([])
      expect([await jobRow(store, foreign), await jobRow(store, expired)]).toEqual(before)
    },
  )

  it('answers several with an outcome each', async () => {
    const [queued, succeeded] = [await insertJob(store), await insertJob(store, { state: 'succeeded' })]
    const outcomes = await cancel([queued, succeeded, randomUUID()])
    expect(new Map(outcomes.map(({ id, changed }) => [id, changed?.state]))).toEqual(
      new Map([
        [queued, 'cancelled'],
        [succeeded, undefined],
      ]),
    )
  })

  it('that expires in a second is still known', async () => {
    const id = await insertJob(store, { state: 'failed', expires_at: inSeconds(1) })
    expect(await retry([id])).toMatchObject([{ changed: { state: 'queued' } }])
  })

  it('the same jobs in opposite orders do not deadlock', async () => {
    for (let round = 0; round < 5; round += 1) {
      const ids = await Promise.all(Array.from({ length: 30 }, () => insertJob(store)))
      const orders = [ids, ids.toReversed(), ids.toSorted()]
      const outcomes = await Promise.all([
        ...orders.map((order) => cancel(order)),
        ...orders.map((order) => retry(order)),
      ])
      expect(outcomes.flat()).toHaveLength(180)
    }
    const [row] = await store.query<{ n: number }>(
      'select deadlocks as n from pg_stat_database where datname = current_database()',
    )
    expect(row?.n).toBe(0)
  })
})

describe('a request that waits for a change of the row', () => {
  /** The change of a job that is under way when the request comes, as SQL. */
  const changes = {
    failed: `state = 'failed', error = '{}', paid = paid - 1, completed_at = now(), expires_at = now() + interval '1 hour'`,
    uncertain: `state = 'uncertain', uncertain_since = now()`,
    cancelled: `state = 'cancelled', uncertain_since = null, completed_at = now(), expires_at = now() + interval '1 hour'`,
    queued: `state = 'queued', completed_at = null, expires_at = null`,
    succeeded: `state = 'succeeded', response_status = 200, answer_attempt = 1, completed_at = now(),
      expires_at = now() + interval '1 hour'`,
  }

  it.each([
    ['retry', 'running', 'failed', 'queued'],
    ['retry', 'running', 'uncertain', 'queued'],
    ['retry', 'failed', 'queued', null],
    ['retry', 'running', 'succeeded', null],
    ['cancel', 'failed', 'queued', 'cancelled'],
    ['cancel', 'running', 'succeeded', null],
    ['fail', 'running', 'uncertain', 'failed'],
    ['fail', 'uncertain', 'cancelled', null],
  ] as const)('%s of a job that goes from %s to %s: %s', async (name, from, to, becomes) => {
    const id = await insertRunning(store, { state: from, attempt: 1, paid: from === 'failed' ? 0 : 1 })
    const changing = await openTransaction(store, `update jobs set ${changes[to]} where id = $1`, [id])
    const asked = requests[name]([id])
    await untilBlocked(store)
    await changing.finish('commit')
    expect(await asked).toMatchObject([{ was: to, changed: becomes === null ? null : { state: becomes } }])
    expect(await jobRow(store, id)).toMatchObject({ state: becomes ?? to })
  })

  it('retry without consent asks what is paid now, not what was paid before the wait', async () => {
    const columns = { attempt: 2, paid: 2, tries: 2, on_uncertain: 'rerun', max_paid_attempts: 2 }
    const id = await insertRunning(store, columns)
    const proof = await openTransaction(store, `update jobs set ${changes.failed} where id = $1`, [id])
    const asked = retry([id])
    await untilBlocked(store)
    await proof.finish('commit')
    expect(await asked).toMatchObject([
      { was: 'failed', consentRequired: false, changed: { state: 'queued', paid: 1 } },
    ])
  })

  it('delete of a job that is being cancelled', async () => {
    const id = await insertRunning(store)
    const changing = await openTransaction(store, `update jobs set ${changes.cancelled} where id = $1`, [id])
    const deleting = deleteJobs(store.db, decisionRequest([id]), false)
    await untilBlocked(store)
    await changing.finish('commit')
    // It has an open attempt: what was read before the wait for the lock would not say so.
    expect(await deleting).toMatchObject([{ allowed: false, consentRequired: true, was: 'cancelled' }])
  })

  it('delete of a job that is being made to run', async () => {
    const id = await insertJob(store, { state: 'failed' })
    const changing = await openTransaction(store, `update jobs set ${changes.queued} where id = $1`, [id])
    const deleting = deleteJobs(store.db, decisionRequest([id]), false)
    await untilBlocked(store)
    await changing.finish('commit')
    expect(await deleting).toMatchObject([{ allowed: false, was: 'queued' }])
    expect(await jobRow(store, id)).toMatchObject({ state: 'queued' })
  })
})
