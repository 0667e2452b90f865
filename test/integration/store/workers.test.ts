import { randomUUID } from 'node:crypto'
import {
  beatWorker,
  markWorkerDead,
  readBeats,
  readOpenAttempts,
  readOverdueAttempts,
  registerWorker,
  retireWorker,
  sweepWorkers,
} from '@askonce/store'
import { beforeEach, describe, expect, it } from 'vitest'
import { addWorker, inSeconds, insertAttempt, insertJob, insertRunning, useStore } from './fixture.ts'

const store = useStore()

beforeEach(async () => {
  await store.query('truncate workers, jobs, attempts, open_attempts')
})

const day = 86_400

async function die(worker: string, secondsAgo: number): Promise<void> {
  await store.query(
    `update workers set dead = true, died_at = now() - $2::float8 * interval '1 second' where id = $1`,
    [worker, secondsAgo],
  )
}

describe('a worker', () => {
  it('is registered once; again changes nothing', async () => {
    const worker = { id: randomUUID(), host: 'a', pid: 7, version: '1.2.3' }
    await registerWorker(store.db, worker)
    await beatWorker(store.db, worker.id)
    await registerWorker(store.db, { ...worker, host: 'b' })
    expect(await store.query('select * from workers')).toMatchObject([
      { ...worker, beat: 1, dead: false, died_at: null },
    ])
  })

  it('beats until it is declared dead, and never again', async () => {
    const id = await addWorker(store)
    expect([await beatWorker(store.db, id), await beatWorker(store.db, id)]).toEqual([true, true])
    expect(await readBeats(store.db)).toEqual([{ id, beat: 2 }])
    expect(await markWorkerDead(store.db, id, 2)).toBe(true)
    expect(await beatWorker(store.db, id)).toBe(false)
    await registerWorker(store.db, { id, host: 'a', pid: 7, version: '1' })
    expect(await beatWorker(store.db, id)).toBe(false)
    expect(await readBeats(store.db)).toEqual([])
  })

  it('is not declared dead by one who saw another beat, or twice', async () => {
    const id = await addWorker(store)
    await beatWorker(store.db, id)
    expect(await markWorkerDead(store.db, id, 0)).toBe(false)
    expect(await markWorkerDead(store.db, id, 2)).toBe(false)
    expect(await markWorkerDead(store.db, id, 1)).toBe(true)
    expect(await markWorkerDead(store.db, id, 1)).toBe(false)
    expect(await markWorkerDead(store.db, randomUUID(), 0)).toBe(false)
  })

  it('is not declared dead while it beats, whoever is first', async () => {
    for (let round = 0; round < 20; round += 1) {
      const id = await addWorker(store)
      const [beaten, dead] = await Promise.all([beatWorker(store.db, id), markWorkerDead(store.db, id, 0)])
      expect(beaten).toBe(!dead)
    }
  })

  it('that retires is dead at once; its beat does not matter', async () => {
    const id = await addWorker(store)
    await beatWorker(store.db, id)
    await retireWorker(store.db, id)
    const [row] = await store.query<{ dead: boolean; died_at: Date }>('select dead, died_at from workers')
    expect(row?.dead).toBe(true)
    await retireWorker(store.db, id)
    expect(await store.query('select died_at from workers')).toEqual([{ died_at: row?.died_at }])
  })

  it('that was swept or never registered cannot beat', async () => {
    expect(await beatWorker(store.db, randomUUID())).toBe(false)
  })
})

describe('readOpenAttempts', () => {
  it('tells a worker what the ledger holds open for it, and what it still owns', async () => {
    const [worker, other] = [await addWorker(store), await addWorker(store)]
    const mine = { worker_id: worker }
    const owned = await insertRunning(store, {}, mine)
    const cancelled = await insertJob(store, { state: 'cancelled', attempt: 1, paid: 1 })
    const answered = await insertJob(store, { state: 'succeeded', attempt: 2, answer_attempt: 2 })
    const overtaken = await insertJob(store, { state: 'running', attempt: 2 })
    const gone = randomUUID()
    for (const id of [cancelled, answered, overtaken, gone]) await insertAttempt(store, id, mine)
    await insertAttempt(store, randomUUID(), { ...mine, billing: 'maybe' })
    await insertRunning(store, {}, { worker_id: other })
    const open = await readOpenAttempts(store.db, worker, 0)
    expect(new Map(open.map(({ jobId, owned: own }) => [jobId, own]))).toEqual(
      new Map([
        [owned, true],
        [cancelled, false],
        [answered, false],
        [overtaken, false],
        [gone, false],
      ]),
    )
    expect(open.every(({ attempt }) => attempt === 1)).toBe(true)
  })

  it('looks at no claim before the first that may have something open', async () => {
    const worker = await addWorker(store)
    const of = (claim: number) => insertRunning(store, {}, { worker_id: worker, claim })
    const [, second, third] = [await of(1), await of(2), await of(3)]
    const open = await readOpenAttempts(store.db, worker, 2)
    expect(open.map(({ jobId, claim }) => [jobId, claim])).toEqual(
      expect.arrayContaining([
        [second, 2],
        [third, 3],
      ]),
    )
    expect(open).toHaveLength(2)
  })
})

describe('readOverdueAttempts', () => {
  it('tells of live workers whose attempt runs longer than its timeout and the grace', async () => {
    const [worker, dead] = [await addWorker(store), await addWorker(store)]
    await die(dead, 1)
    const since = (seconds: number, worker_id: string) => ({ worker_id, started_at: inSeconds(-seconds) })
    const overdue = await insertRunning(store, { timeout_ms: 60_000 }, since(121, worker))
    await insertRunning(store, { timeout_ms: 60_000 }, since(118, worker))
    await insertRunning(store, { timeout_ms: 600_000 }, since(121, worker))
    await insertRunning(store, { timeout_ms: 60_000 }, since(121, dead))
    const found = await readOverdueAttempts(store.db, 60_000, 10)
    expect(found).toMatchObject([{ jobId: overdue, attempt: 1, worker }])
    expect(found[0]?.runningMs).toBeGreaterThan(120_000)
    expect(await readOverdueAttempts(store.db, 60_000, 0)).toEqual([])
  })
})

describe('sweepWorkers', () => {
  it('removes those that are dead for a day and left nothing open', async () => {
    const [gone, recent, busy, alive] = await Promise.all([1, 2, 3, 4].map(() => addWorker(store)))
    await die(gone ?? '', day + 1)
    await die(recent ?? '', day - 60)
    await die(busy ?? '', day + 1)
    await store.query(`update workers set started_at = now() - interval '9 days', beat_at = now() - interval '9 days'`)
    await insertAttempt(store, randomUUID(), { worker_id: busy, started_at: inSeconds(-2 * day) })
    await insertAttempt(store, randomUUID(), { worker_id: gone, billing: 'billed' })
    expect(await sweepWorkers(store.db)).toBe(1)
    const left = await store.query<{ id: string }>('select id from workers')
    expect(left.map(({ id }) => id).toSorted()).toEqual([recent ?? '', busy ?? '', alive ?? ''].toSorted())
  })
})
