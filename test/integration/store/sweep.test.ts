import { randomUUID } from 'node:crypto'
import { jobError } from '@askonce/core'
import { failForgotten, failOverdue, submitBatch, sweepAttempts, sweepExpired } from '@askonce/store'
import { beforeEach, describe, expect, it } from 'vitest'
import {
  inSeconds,
  insertAttempt,
  insertJob,
  jobRow,
  newJob,
  openTransaction,
  secondsTo,
  uncertainTtlSeconds,
  useStore,
} from './fixture.ts'

const store = useStore()
const error = JSON.stringify(jobError('deadline_exceeded'))

beforeEach(async () => {
  await store.query('truncate jobs, ready, expiries, job_lists, requests, answers, attempts, open_attempts')
})

const left = async (): Promise<string[]> =>
  (await store.query<{ id: string }>('select id from jobs')).map(({ id }) => id)

describe('sweepExpired', () => {
  it.each(['succeeded', 'failed', 'cancelled'] as const)(
    'deletes what is %s and expired, and not what expires in a second',
    async (state) => {
      await insertJob(store, { state, expires_at: inSeconds(0) })
      const kept = await insertJob(store, { state, expires_at: inSeconds(1) })
      expect(await sweepExpired(store.db, 100)).toMatchObject({ count: 1 })
      expect(await left()).toEqual([kept])
      expect(await sweepExpired(store.db, 100)).toMatchObject({ count: 0 })
    },
  )

  it('never deletes an unfinished job, however old', async () => {
    const old = { created_at: new Date(0), run_at: new Date(0), ttl_seconds: 1 }
    for (const state of ['queued', 'running', 'uncertain'] as const) await insertJob(store, { ...old, state })
    expect(await sweepExpired(store.db, 100)).toMatchObject({ count: 0 })
    expect(await left()).toHaveLength(3)
  })

  it('takes the oldest first, no more than the limit', async () => {
    const ids = []
    for (const ago of [1, 3, 2]) ids.push(await insertJob(store, { state: 'failed', expires_at: inSeconds(-ago) }))
    expect(await sweepExpired(store.db, 2)).toMatchObject({ count: 2 })
    expect(await left()).toEqual([ids[0]])
  })

  it('takes as much with each statement, and leaves no note of what it took', async () => {
    const ids = Array.from({ length: 450 }, (_, n) => n)
    await Promise.all(ids.map((n) => insertJob(store, { state: 'failed', expires_at: inSeconds(-1 - n) })))
    const taken: number[] = []
    for (let round = 0; round < 4; round += 1) taken.push((await sweepExpired(store.db, 150)).count)
    expect(taken).toEqual([150, 150, 150, 0])
    expect(await store.query('select 1 from expiries')).toEqual([])
  })

  it('passes by a row that somebody holds, and takes it the next time', async () => {
    const id = await insertJob(store, { state: 'succeeded', expires_at: inSeconds(-1) })
    const reader = await openTransaction(store, 'select 1 from jobs where id = $1 for update', [id])
    expect(await sweepExpired(store.db, 100)).toMatchObject({ count: 0 })
    await reader.finish('commit')
    expect(await sweepExpired(store.db, 100)).toMatchObject({ count: 1 })
  })

  it('never deletes a row that a submission takes over meanwhile', async () => {
    for (let round = 0; round < 15; round += 1) {
      const keys = Array.from({ length: 40 }, () => randomUUID())
      await Promise.all(
        keys.map((key) => insertJob(store, { idempotency_key: key, state: 'failed', expires_at: inSeconds(-1) })),
      )
      const batch = keys.map((key) => newJob(key))
      const [results] = await Promise.all([
        submitBatch(store.db, batch),
        sweepExpired(store.db, 1_000),
        sweepExpired(store.db, 15),
        sweepExpired(store.db, 1_000),
      ])
      expect(results.every(({ kind }) => kind === 'created')).toBe(true)
      await sweepExpired(store.db, 1_000)
      expect((await left()).toSorted()).toEqual(batch.map(({ id }) => id).toSorted())
      await store.query('truncate jobs, ready, expiries, job_lists, requests, answers')
    }
  })

  it('of two sweepers deletes each row once', async () => {
    for (let index = 0; index < 100; index += 1) await insertJob(store, { state: 'failed', expires_at: inSeconds(-1) })
    const counts = await Promise.all([
      sweepExpired(store.db, 100),
      sweepExpired(store.db, 100),
      sweepExpired(store.db, 100),
    ])
    const rest = await sweepExpired(store.db, 100)
    expect(counts.reduce((sum, { count }) => sum + count, rest.count)).toBe(100)
  })
})

describe('sweepAttempts', () => {
  const old = (seconds: number) => ({
    billing: 'billed',
    started_at: inSeconds(-seconds - 1),
    finished_at: inSeconds(-seconds),
  })

  it('deletes what ended longer ago than the retention, and not a second less', async () => {
    await insertAttempt(store, randomUUID(), old(101))
    const kept = randomUUID()
    await insertAttempt(store, kept, old(70))
    expect(await sweepAttempts(store.db, 100, 10)).toMatchObject({ count: 1 })
    expect(await store.query('select job_id from attempts')).toEqual([{ job_id: kept }])
  })

  it('never deletes an open attempt, nor one of a job that still exists', async () => {
    await insertAttempt(store, randomUUID(), { started_at: new Date(0) })
    await insertAttempt(store, await insertJob(store, { state: 'failed' }), old(1_000))
    expect(await sweepAttempts(store.db, 100, 10)).toMatchObject({ count: 0 })
  })

  it('takes the oldest first, no more than the limit, and passes by what somebody holds', async () => {
    const ids = [randomUUID(), randomUUID(), randomUUID()]
    for (const [index, id] of ids.entries()) await insertAttempt(store, id, old(1_000 - index))
    const holder = await openTransaction(store, 'select 1 from attempts where job_id = $1 for update', [ids[0]])
    expect(await sweepAttempts(store.db, 100, 1)).toMatchObject({ count: 1 })
    await holder.finish('commit')
    expect(await store.query('select job_id from attempts order by finished_at')).toEqual([
      { job_id: ids[0] },
      { job_id: ids[2] },
    ])
    expect(await sweepAttempts(store.db, 100, 10)).toMatchObject({ count: 2 })
  })
})

describe('failOverdue', () => {
  it('fails a queued job at its deadline, and not a second before', async () => {
    const late = await insertJob(store, { deadline_at: inSeconds(0), ttl_seconds: 500 })
    const inTime = await insertJob(store, { deadline_at: inSeconds(1) })
    expect(await failOverdue(store.db, error, 10, uncertainTtlSeconds)).toEqual([late])
    expect(await jobRow(store, late)).toMatchObject({ state: 'failed', error: { code: 'deadline_exceeded' } })
    expect(Math.abs((await secondsTo(store, 'expires_at', late)) - 500)).toBeLessThan(30)
    expect(await jobRow(store, inTime)).toMatchObject({ state: 'queued' })
  })

  it('keeps one with paid attempts for uncertain_ttl', async () => {
    const id = await insertJob(store, { deadline_at: inSeconds(-1), attempt: 1, tries: 1, paid: 1 })
    await failOverdue(store.db, error, 10, uncertainTtlSeconds)
    expect(Math.abs((await secondsTo(store, 'expires_at', id)) - uncertainTtlSeconds)).toBeLessThan(30)
  })

  it.each(['running', 'uncertain', 'succeeded', 'cancelled'] as const)('leaves a job that is %s', async (state) => {
    const id = await insertJob(store, { state, deadline_at: inSeconds(-1) })
    expect(await failOverdue(store.db, error, 10, uncertainTtlSeconds)).toEqual([])
    expect(await jobRow(store, id)).toMatchObject({ state })
  })

  it('takes the longest overdue first, no more than the limit, and passes by what is being claimed', async () => {
    const ids = []
    for (const ago of [1, 3, 2]) ids.push(await insertJob(store, { deadline_at: inSeconds(-ago) }))
    const claiming = await openTransaction(store, 'select 1 from jobs where id = $1 for update', [ids[1]])
    expect(await failOverdue(store.db, error, 1, uncertainTtlSeconds)).toEqual([ids[2]])
    await claiming.finish('commit')
    expect(await failOverdue(store.db, error, 1, uncertainTtlSeconds)).toEqual([ids[1]])
  })
})

describe('failForgotten', () => {
  it('fails what was held for uncertain_ttl, and not a second less', async () => {
    const forgotten = await insertJob(store, { state: 'uncertain', uncertain_since: inSeconds(-100) })
    const held = await insertJob(store, { state: 'uncertain', uncertain_since: inSeconds(-70) })
    expect(await failForgotten(store.db, error, 10, 100)).toEqual([forgotten])
    expect(await jobRow(store, forgotten)).toMatchObject({ state: 'failed', uncertain_since: null, paid: 1 })
    expect(await secondsTo(store, 'expires_at', forgotten)).toBeGreaterThan(3_500)
    expect(await jobRow(store, held)).toMatchObject({ state: 'uncertain' })
  })

  it('takes the longest held first, no more than the limit, and passes by what somebody decides', async () => {
    const ids = []
    for (const ago of [101, 103, 102])
      ids.push(await insertJob(store, { state: 'uncertain', uncertain_since: inSeconds(-ago) }))
    const deciding = await openTransaction(store, 'select 1 from jobs where id = $1 for update', [ids[1]])
    expect(await failForgotten(store.db, error, 1, 100)).toEqual([ids[2]])
    await deciding.finish('commit')
    expect(await failForgotten(store.db, error, 5, 100)).toEqual(expect.arrayContaining([ids[0], ids[1]]))
  })
})
