import { randomUUID } from 'node:crypto'
import { jobError } from '@askonce/core'
import { endAttempts, markWorkerDead, reclaimAttempts, type EndedAttempt } from '@askonce/store'
import { beforeEach, describe, expect, it } from 'vitest'
import {
  addWorker,
  attemptRow,
  ending,
  insertAttempt,
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
const lost = JSON.stringify(jobError('worker_lost'))
const reclaim = (limit = 100): Promise<EndedAttempt[]> => reclaimAttempts(store.db, lost, limit, uncertainTtlSeconds)

beforeEach(async () => {
  await store.query('truncate jobs, attempts, open_attempts, workers')
})

async function deadWorker(): Promise<string> {
  const id = await addWorker(store)
  await markWorkerDead(store.db, id, 0)
  return id
}

describe('an open attempt', () => {
  it('of a worker that is alive is left alone, however old', async () => {
    const worker = await addWorker(store)
    const id = await insertRunning(store, {}, { worker_id: worker, started_at: new Date(0) })
    expect(await reclaim()).toEqual([])
    expect(await jobRow(store, id)).toMatchObject({ state: 'running' })
  })

  it.each([
    ['rerun', 'queued'],
    ['hold', 'uncertain'],
    ['fail', 'failed'],
  ] as const)('of a dead worker ends as maybe; under %s the job is %s', async (policy, state) => {
    const id = await insertRunning(store, { on_uncertain: policy }, { worker_id: await deadWorker() })
    expect(await reclaim()).toMatchObject([{ jobId: id, attempt: 1, recorded: true, movedTo: state, state }])
    expect(await attemptRow(store, id)).toMatchObject({ outcome: 'lost', billing: 'maybe', error_code: 'worker_lost' })
    expect(await jobRow(store, id)).toMatchObject({
      state,
      paid: 1,
      tries: 1,
      reruns: 0,
      error: { code: 'worker_lost' },
    })
    expect(await reclaim()).toEqual([])
  })

  it('is run again without backoff, and not beyond the budget', async () => {
    const worker = await deadWorker()
    const first = await insertRunning(store, { reruns: 7 }, { worker_id: worker })
    const second = await insertRunning(store, { attempt: 2, tries: 2, paid: 2 }, { worker_id: worker })
    const moves = new Map((await reclaim()).map(({ jobId, movedTo }) => [jobId, movedTo]))
    expect([moves.get(first), moves.get(second)]).toEqual(['queued', 'uncertain'])
    expect(await secondsTo(store, 'run_at', first)).toBeLessThanOrEqual(0)
    expect(await jobRow(store, first)).toMatchObject({ reruns: 7 })
  })

  it('of a worker without a row is reclaimed too', async () => {
    const id = await insertRunning(store, {}, { worker_id: randomUUID() })
    expect(await reclaim()).toMatchObject([{ jobId: id, movedTo: 'queued' }])
  })

  it.each<[string, Parameters<typeof insertJob>[1]]>([
    ['cancelled', { state: 'cancelled', attempt: 1, paid: 1 }],
    ['answered by another attempt', { state: 'succeeded', attempt: 2, answer_attempt: 2 }],
  ])('of a job that was %s meanwhile changes the ledger only', async (_, columns) => {
    const id = await insertJob(store, columns)
    await insertAttempt(store, id)
    const before = await jobRow(store, id)
    expect(await reclaim()).toMatchObject([{ recorded: true, movedTo: null, state: before['state'] }])
    expect(await jobRow(store, id)).toEqual(before)
  })

  it('of a job that is gone changes the ledger only', async () => {
    const id = randomUUID()
    await insertAttempt(store, id)
    expect(await reclaim()).toMatchObject([{ jobId: id, recorded: true, movedTo: null, state: null }])
  })

  it('that its worker has ended meanwhile keeps its end', async () => {
    const id = await insertRunning(store)
    const holder = await openTransaction(store, 'select 1 from jobs where id = $1 for update', [id])
    const ending1 = endAttempts(store.db, [ending(id, 'rerun')], uncertainTtlSeconds)
    await untilBlocked(store)
    const reclaiming = reclaim()
    await untilBlocked(store, 2)
    await holder.finish('commit')
    const ended = [await ending1, await reclaiming].flat()
    expect(ended.filter(({ recorded }) => recorded)).toHaveLength(1)
    const { billing } = await attemptRow(store, id)
    expect(await jobRow(store, id)).toMatchObject({ state: 'queued', paid: billing === 'none' ? 0 : 1 })
  })
})

describe('several at once', () => {
  it('two attempts of one job: the newest first, the other in the next round', async () => {
    const worker = await deadWorker()
    const id = await insertRunning(
      store,
      { attempt: 2, tries: 2, paid: 2, max_paid_attempts: 3 },
      { worker_id: worker },
    )
    await insertAttempt(store, id, { worker_id: worker })
    expect(await reclaim()).toMatchObject([{ attempt: 2, movedTo: 'queued' }])
    expect(await reclaim()).toMatchObject([{ attempt: 1, recorded: true, movedTo: null, state: 'queued' }])
    expect(await reclaim()).toEqual([])
    expect(await jobRow(store, id)).toMatchObject({ paid: 2, tries: 2 })
  })

  it('takes no more than the limit, and the rest in the next round', async () => {
    for (let index = 0; index < 5; index += 1) await insertRunning(store)
    const rounds = [await reclaim(2), await reclaim(2), await reclaim(2), await reclaim(2)]
    expect(rounds.map((round) => round.length)).toEqual([2, 2, 1, 0])
  })

  it('janitors at the same time end each attempt once', async () => {
    for (let index = 0; index < 40; index += 1) await insertRunning(store)
    const rounds = await Promise.all([reclaim(), reclaim(), reclaim()])
    expect(rounds.flat().filter(({ recorded }) => recorded)).toHaveLength(40)
    const [sum] = await store.query<{ paid: number }>(`select sum(paid) as paid from jobs where state = 'queued'`)
    expect(sum?.paid).toBe(40)
  })
})
