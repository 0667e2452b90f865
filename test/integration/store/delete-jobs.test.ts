import { randomUUID } from 'node:crypto'
import { deleteJobs, eraseAttempts, readForgotten, submitBatch } from '@askonce/store'
import { describe, expect, it } from 'vitest'
import {
  attemptRow,
  decisionRequest,
  inSeconds,
  insertAttempt,
  insertJob,
  jobRow,
  newJob,
  useStore,
} from './fixture.ts'

const store = useStore()
const remove = (ids: readonly string[], consent = false, rehearsal = false) =>
  deleteJobs(store.db, decisionRequest(ids, { reason: 'asked' }), consent, rehearsal)
const exists = async (id: string): Promise<boolean> =>
  (await store.query('select 1 from jobs where id = $1', [id])).length > 0
const decisionsOf = (id: string) =>
  store.query(
    'select action, accept_duplicate_charge, from_state, to_state, paid, reason from decisions where job_id = $1',
    [id],
  )

describe('deleteJobs', () => {
  it.each(['succeeded', 'failed', 'cancelled'] as const)(
    'forgets a job that is %s and cost nothing unanswered; the ledger stays, no decision is needed',
    async (state) => {
      const id = await insertJob(store, { state })
      await insertAttempt(store, id, { billing: state === 'succeeded' ? 'billed' : 'none' })
      await store.query(`insert into stream_chunks (job_id, attempt, "position", body) values ($1, 1, 0, 'x')`, [id])
      expect(await remove([id])).toMatchObject([{ id, allowed: true, was: state }])
      expect(await exists(id)).toBe(false)
      expect(await store.query('select 1 from stream_chunks where job_id = $1', [id])).toEqual([])
      expect(await attemptRow(store, id)).toMatchObject({ job_id: id })
      expect(await decisionsOf(id)).toEqual([])
      expect(await readForgotten(store.db, [id, randomUUID()])).toEqual([id])
      expect(await remove([id])).toEqual([])
    },
  )

  it.each([
    ['failed', 'hold', 1, 0],
    ['failed', 'rerun', 1, 0],
    ['failed', 'fail', 1, 1],
    // The call is still under way: its attempt is open, and counts as paid.
    ['cancelled', 'hold', 1, 0],
    ['cancelled', 'rerun', 2, 1],
  ])(
    'a job that is %s under %s with %i paid (%i billed) needs consent, which is kept as a decision',
    async (...given) => {
      const [state, policy, paid, billed] = given
      const id = await insertJob(store, { state: state as 'failed', on_uncertain: policy, attempt: paid, paid, billed })
      expect(await remove([id])).toMatchObject([{ allowed: false, consentRequired: true }])
      expect([await exists(id), await decisionsOf(id)]).toEqual([true, []])
      expect(await remove([id], true)).toMatchObject([{ allowed: true, consentRequired: true }])
      expect(await exists(id)).toBe(false)
      expect(await decisionsOf(id)).toEqual([
        {
          action: 'delete',
          accept_duplicate_charge: true,
          from_state: state,
          to_state: 'deleted',
          paid,
          reason: 'asked',
        },
      ])
    },
  )

  it.each(['queued', 'running', 'uncertain'] as const)(
    'does not touch a job that is %s, consent or not',
    async (state) => {
      const id = await insertJob(store, { state })
      expect(await remove([id], true)).toMatchObject([{ allowed: false, was: state }])
      expect(await jobRow(store, id)).toMatchObject({ state })
    },
  )

  it('does not know foreign and expired jobs', async () => {
    const foreign = await insertJob(store, { state: 'failed', tenant_id: 'other' })
    const expired = await insertJob(store, { state: 'failed', expires_at: inSeconds(0) })
    expect(await remove([foreign, expired, randomUUID()], true)).toEqual([])
    expect([await exists(foreign), await exists(expired)]).toEqual([true, true])
  })

  it('a rehearsal says what would happen, and changes nothing', async () => {
    const free = await insertJob(store, { state: 'succeeded' })
    const paid = await insertJob(store, { state: 'failed', paid: 1 })
    const told = await remove([free, paid], false, true)
    expect(new Map(told.map(({ id, allowed }) => [id, allowed]))).toEqual(
      new Map([
        [free, true],
        [paid, false],
      ]),
    )
    expect([await exists(free), await exists(paid)]).toEqual([true, true])
    expect(await readForgotten(store.db, [free, paid])).toEqual([])
  })

  it('a short ttl does not go round consent: a paid job without an answer is not taken over before its time', async () => {
    const key = randomUUID()
    const given = { paid: 1, on_uncertain: 'hold', ttl_seconds: 1, idempotency_key: key, expires_at: inSeconds(60) }
    const id = await insertJob(store, { state: 'failed', ...given })
    expect(await submitBatch(store.db, [newJob(key, { onUncertain: 'hold' })])).toMatchObject([
      { job: { id, state: 'failed' } },
    ])
  })
})

describe('eraseAttempts', () => {
  const whose = { tenantId: 'default', jobIds: null, limit: 100 }
  const gone = async (given: Record<string, unknown>): Promise<string> => {
    const id = randomUUID()
    await insertAttempt(store, id, {
      billing: 'billed',
      cost_usd: 0.5,
      input_tokens: 7,
      provider_request_id: 'req',
      ...given,
    })
    await store.query(
      `insert into decisions (tenant_id, job_id, idempotency_key, action, accept_duplicate_charge, from_state, to_state, attempt,
         generation, paid, api_key_id, api_key_name, reason)
       values ('default', $1, 'k', 'delete', true, 'failed', 'deleted', 1, 1, 1, $1, 'somebody', 'customer 17')`,
      [id],
    )
    return id
  }

  it('takes out what names somebody, by metadata or by prefix; what it cost stays', async () => {
    const mine = await gone({ idempotency_key: 'c17/a', metadata: JSON.stringify({ customer: '17', run: '1' }) })
    const other = await gone({ idempotency_key: 'c18/a', metadata: JSON.stringify({ customer: '18' }) })
    expect(await eraseAttempts(store.db, { ...whose, metadata: '{"customer":"17"}' })).toBe(1)
    expect(await attemptRow(store, mine)).toMatchObject({
      idempotency_key: `erased/${mine}`,
      metadata: null,
      fingerprint: Buffer.alloc(32),
      provider_request_id: null,
      input_tokens: 7,
    })
    const [decision] = await store.query('select idempotency_key, reason from decisions where job_id = $1', [mine])
    expect(decision).toEqual({ idempotency_key: `erased/${mine}`, reason: null })
    expect(await attemptRow(store, other)).toMatchObject({ idempotency_key: 'c18/a', metadata: { customer: '18' } })
    expect(await eraseAttempts(store.db, { ...whose, keyPrefix: 'c18/' })).toBe(1)
    expect(await eraseAttempts(store.db, { ...whose, keyPrefix: 'c18/' })).toBe(0)
  })

  it('leaves the ledger of jobs that are there, open attempts and other tenants alone', async () => {
    const there = await insertJob(store, { state: 'succeeded' })
    await insertAttempt(store, there, { billing: 'billed', idempotency_key: 'p/1' })
    await insertAttempt(store, randomUUID(), { idempotency_key: 'p/2' })
    await insertAttempt(store, randomUUID(), { idempotency_key: 'p/3', tenant_id: 'other', billing: 'none' })
    expect(await eraseAttempts(store.db, { ...whose, keyPrefix: 'p/' })).toBe(0)
  })
})
