import { randomUUID } from 'node:crypto'
import { jobError } from '@askonce/core'
import {
  cancelJobs,
  deleteJobs,
  failJobs,
  isDataError,
  readDecisions,
  retryJobs,
  sweepDecisions,
  type ChangeOutcome,
  type DecisionRequest,
} from '@askonce/store'
import { beforeEach, describe, expect, it } from 'vitest'
import {
  decisionRequest,
  inSeconds,
  insertJob,
  jobRow,
  openTransaction,
  uncertainTtlSeconds,
  untilBlocked,
  useStore,
} from './fixture.ts'

const store = useStore()
const failure = JSON.stringify(jobError('failed_on_request'))

type Ask = (ids: readonly string[], given?: Partial<DecisionRequest>) => Promise<ChangeOutcome[]>

const ask: Record<'retry' | 'consent' | 'cancel' | 'fail', Ask> = {
  retry: (ids, given) => retryJobs(store.db, decisionRequest(ids, given), false),
  consent: (ids, given) => retryJobs(store.db, decisionRequest(ids, given), true),
  cancel: (ids, given) => cancelJobs(store.db, decisionRequest(ids, given), uncertainTtlSeconds),
  fail: (ids, given) => failJobs(store.db, decisionRequest(ids, given), failure, uncertainTtlSeconds),
}

const written = (): Promise<{ job_id: string; action: string }[]> =>
  store.query('select job_id, action from decisions order by id')

beforeEach(async () => {
  await store.query('truncate decisions, jobs')
})

describe('a decision', () => {
  it.each([
    ['retry', 'failed', 'queued', 'retry', false],
    ['consent', 'uncertain', 'queued', 'retry', true],
    ['cancel', 'running', 'cancelled', 'cancel', false],
    ['cancel', 'uncertain', 'cancelled', 'cancel', false],
    ['fail', 'uncertain', 'failed', 'fail', false],
  ] as const)(
    '%s of a job that is %s is kept, with who, why and what it found',
    async (how, from, to, action, consent) => {
      const id = await insertJob(store, { state: from, idempotency_key: `${how} ${from}`, generation: 3, attempt: 4 })
      const { paid } = await jobRow(store, id)
      const by = { id: randomUUID(), name: 'night shift' }
      await ask[how]([id], { by, reason: 'looked at the dashboard' })
      expect(await readDecisions(store.db, 'default', id)).toEqual([
        {
          id: expect.any(Number) as number,
          at: expect.any(Date) as Date,
          tenant_id: 'default',
          job_id: id,
          idempotency_key: `${how} ${from}`,
          action,
          accept_duplicate_charge: consent,
          from_state: from,
          to_state: to,
          attempt: 4,
          generation: 3,
          paid,
          api_key_id: by.id,
          api_key_name: 'night shift',
          reason: 'looked at the dashboard',
        },
      ])
    },
  )

  it('is not kept where nothing changed: wrong state, no consent, other tenant, expired, unknown', async () => {
    const paid = { paid: 1, attempt: 1, on_uncertain: 'hold' }
    const ids = [
      await insertJob(store, { state: 'succeeded' }),
      await insertJob(store, { state: 'failed', ...paid }),
      await insertJob(store, { state: 'failed', tenant_id: 'other' }),
      await insertJob(store, { state: 'failed', expires_at: inSeconds(0) }),
      randomUUID(),
    ]
    for (const how of ['retry', 'cancel', 'fail'] as const) {
      expect((await ask[how](ids)).map(({ changed }) => changed)).toEqual([null, null])
    }
    expect(await written()).toEqual([])
  })

  it('is one for each job of several that changed, in the order in which they were made about one job', async () => {
    const [queued, succeeded, running] = [
      await insertJob(store),
      await insertJob(store, { state: 'succeeded' }),
      await insertJob(store, { state: 'running' }),
    ]
    await ask.cancel([queued, succeeded, running])
    expect((await written()).map(({ job_id }) => job_id).toSorted()).toEqual([queued, running].toSorted())
    await ask.consent([running])
    await ask.cancel([running])
    expect((await readDecisions(store.db, 'default', running)).map(({ action }) => action)).toEqual([
      'cancel',
      'retry',
      'cancel',
    ])
  })

  it('and its change happen both or not at all: where the one is refused the other is taken back', async () => {
    const ids = [await insertJob(store, { state: 'uncertain' }), await insertJob(store, { state: 'uncertain' })]
    const before = await Promise.all(ids.map((id) => jobRow(store, id)))
    const refused: unknown = await ask.fail(ids, { reason: 'x'.repeat(501) }).catch((error: unknown) => error)
    expect(isDataError(refused)).toBe(true)
    expect(await Promise.all(ids.map((id) => jobRow(store, id)))).toEqual(before)
    expect(await written()).toEqual([])
  })

  it('and its change are seen at one moment by everybody else', async () => {
    const id = await insertJob(store, { state: 'uncertain' })
    // The statement has locked the job and waits for the table: nothing of it may be seen, and nothing is left when it is ended.
    const holder = await openTransaction(store, 'lock table decisions in access exclusive mode')
    const asked = ask.cancel([id]).catch((error: unknown) => error)
    await untilBlocked(store)
    expect(await jobRow(store, id)).toMatchObject({ state: 'uncertain' })
    await store.query(`select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'`)
    expect(await asked).toBeInstanceOf(Error)
    await holder.finish('commit')
    expect(await jobRow(store, id)).toMatchObject({ state: 'uncertain' })
    expect(await written()).toEqual([])
    await ask.cancel([id])
    expect([(await jobRow(store, id))['state'], await written()]).toEqual([
      'cancelled',
      [{ job_id: id, action: 'cancel' }],
    ])
  })

  it('is made by one of two that ask at the same time', async () => {
    const id = await insertJob(store, { state: 'uncertain' })
    const outcomes = (await Promise.all([ask.fail([id]), ask.consent([id]), ask.cancel([id])])).flat()
    const changes = outcomes.filter(({ changed }) => changed !== null).length
    expect(changes).toBeGreaterThan(0)
    expect(await written()).toHaveLength(changes)
  })
})

describe('a generation that the asker saw', () => {
  it.each(['consent', 'cancel', 'fail'] as const)('%s of another one changes nothing', async (how) => {
    const id = await insertJob(store, { state: 'uncertain', generation: 2 })
    for (const generation of [1, 3]) {
      expect(await ask[how]([id], { generation })).toMatchObject([{ was: 'uncertain', generation: 2, changed: null }])
    }
    expect(await written()).toEqual([])
    expect(await ask[how]([id], { generation: 2 })).toMatchObject([{ changed: { id } }])
  })

  it('is compared with the one under the lock', async () => {
    const id = await insertJob(store, { state: 'uncertain', generation: 2 })
    const other = await openTransaction(store, 'update jobs set generation = 3 where id = $1', [id])
    const asked = ask.consent([id], { generation: 2 })
    await untilBlocked(store)
    await other.finish('commit')
    expect(await asked).toMatchObject([{ generation: 3, changed: null }])
  })
})

describe('readDecisions', () => {
  it('knows those about jobs that are gone, and to their tenant only', async () => {
    const id = await insertJob(store)
    await ask.cancel([id])
    await deleteJobs(store.db, decisionRequest([id]), false)
    expect(await readDecisions(store.db, 'default', id)).toHaveLength(1)
    expect(await readDecisions(store.db, 'other', id)).toEqual([])
  })
})

describe('sweepDecisions', () => {
  const age = (id: string, seconds: number): Promise<unknown> =>
    store.query(`update decisions set at = now() - $2 * interval '1 second' where job_id = $1`, [id, seconds])
  const decided = async (seconds: number): Promise<string> => {
    const id = await insertJob(store)
    await ask.cancel([id])
    await deleteJobs(store.db, decisionRequest([id]), false)
    await age(id, seconds)
    return id
  }
  const left = async (): Promise<string[]> => (await written()).map(({ job_id }) => job_id)

  it('deletes those beyond the retention, and none a second younger', async () => {
    await decided(101)
    const kept = await decided(70)
    expect(await sweepDecisions(store.db, 100, 10)).toBe(1)
    expect(await left()).toEqual([kept])
  })

  it('keeps those about a job that still exists', async () => {
    const id = await insertJob(store)
    await ask.cancel([id])
    await age(id, 1_000)
    expect(await sweepDecisions(store.db, 100, 10)).toBe(0)
  })

  it('takes the oldest first, no more than the limit, and passes by what somebody holds', async () => {
    const ids = [await decided(1_000), await decided(999), await decided(998)]
    const holder = await openTransaction(store, 'select 1 from decisions where job_id = $1 for update', [ids[0]])
    expect(await sweepDecisions(store.db, 100, 1)).toBe(1)
    await holder.finish('commit')
    expect(await left()).toEqual([ids[0], ids[2]])
    expect(await sweepDecisions(store.db, 100, 10)).toBe(2)
  })
})
