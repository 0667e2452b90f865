import { randomUUID } from 'node:crypto'
import { cancelJobs, cancelOwnedJobs, disownJobs, submitBatch } from '@askonce/store'
import { describe, expect, it } from 'vitest'
import {
  decisionRequest,
  insertJob,
  jobRow,
  newJob,
  openTransaction,
  uncertainTtlSeconds,
  untilBlocked,
  useStore,
} from './fixture.ts'

const fixture = useStore()
const batch = randomUUID()
const otherBatch = randomUUID()

const ownerOf = async (id: string): Promise<unknown> => (await jobRow(fixture, id))['owner_batch']

/** A job that this batch alone wants. */
async function owned(key: string): Promise<string> {
  const [result] = await submitBatch(fixture.db, [newJob(key, { ownerBatch: batch })])
  expect(result?.kind).toBe('created')
  expect(result?.job.owner_batch).toBe(batch)
  return String(result?.job.id)
}

const cancel = (id: string): Promise<string[]> => cancelOwnedJobs(fixture.db, batch, [id], uncertainTtlSeconds)

describe('a job that only a batch wants', () => {
  it.each([
    ['somebody', null],
    ['another batch', otherBatch],
  ])(
    'is everybody’s from the moment that %s attaches, and no end of its batch cancels it',
    async (name, ownerBatch) => {
      const key = `attach ${name}`
      const id = await owned(key)
      const [result] = await submitBatch(fixture.db, [newJob(key, { ownerBatch })])
      expect(result?.kind).toBe('attached')
      expect(await ownerOf(id)).toBeNull()
      expect(await cancel(id)).toEqual([])
      expect((await jobRow(fixture, id))['state']).toBe('queued')
    },
  )

  it('stays its batch’s when the batch asks again, or somebody asks for something else under its key', async () => {
    const id = await owned('again')
    const [own] = await submitBatch(fixture.db, [newJob('again', { ownerBatch: batch })])
    expect(own?.kind).toBe('attached')
    const [other] = await submitBatch(fixture.db, [newJob('again', { body: 'other' })])
    expect(other?.kind).toBe('mismatch')
    expect(await ownerOf(id)).toBe(batch)
    expect(await cancel(id)).toEqual([id])
  })

  it('is not cancelled by another batch, nor while it runs or when it has ended', async () => {
    const mine = await owned('mine')
    expect(await cancelOwnedJobs(fixture.db, otherBatch, [mine], uncertainTtlSeconds)).toEqual([])
    for (const state of ['running', 'succeeded', 'failed', 'uncertain', 'cancelled'] as const) {
      const id = await insertJob(fixture, { state, owner_batch: batch })
      expect(await cancel(id)).toEqual([])
      expect((await jobRow(fixture, id))['state']).toBe(state)
    }
  })

  it('cancelled with its batch runs again for whoever asks; cancelled by a person it does not', async () => {
    const id = await owned('with batch')
    await cancel(id)
    const [result] = await submitBatch(fixture.db, [newJob('with batch')])
    expect(result).toMatchObject({ kind: 'rerun', job: { id, state: 'queued', generation: 2, owner_batch: null } })

    const decided = await owned('decided')
    await cancelJobs(fixture.db, decisionRequest([decided]), uncertainTtlSeconds)
    expect(await ownerOf(decided)).toBeNull()
    const [refused] = await submitBatch(fixture.db, [newJob('decided', { ownerBatch: batch })])
    expect(refused).toMatchObject({ kind: 'replayed', job: { id: decided, state: 'cancelled' } })
  })

  it('the batch is first: the submission that waited for it finds the job cancelled and runs it again', async () => {
    const id = await owned('race 1')
    const holder = await openTransaction(
      fixture,
      `update jobs set state = 'cancelled', completed_at = now(), expires_at = now() + interval '1 hour' where id = $1`,
      [id],
    )
    const submission = submitBatch(fixture.db, [newJob('race 1')])
    await untilBlocked(fixture)
    await holder.finish('commit')
    expect(await submission).toMatchObject([{ kind: 'rerun', job: { id, state: 'queued', owner_batch: null } }])
  })

  it('the submission is first: the batch that waited for it leaves the job alone', async () => {
    const id = await owned('race 2')
    const holder = await openTransaction(fixture, 'update jobs set owner_batch = null where id = $1', [id])
    const cancelled = cancel(id)
    await untilBlocked(fixture)
    await holder.finish('commit')
    expect(await cancelled).toEqual([])
    expect((await jobRow(fixture, id))['state']).toBe('queued')
  })

  it('is not given to who asks once it has ended', async () => {
    const id = await insertJob(fixture, { state: 'failed', owner_batch: batch })
    expect(await disownJobs(fixture.db, [id])).toEqual([])
  })
})
