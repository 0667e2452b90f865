import { randomUUID } from 'node:crypto'
import { deleteJobs, submitBatch, sweepExpired, type NewJob, type SubmitOrder, type SubmitResult } from '@askonce/store'
import { describe, expect, it } from 'vitest'
import {
  decisionRequest,
  inSeconds,
  insertJob,
  jobRow,
  newJob,
  openTransaction,
  untilBlocked,
  useStore,
} from './fixture.ts'

const store = useStore({ poolSize: 12 })

/** For each key the ids that submissions of it were answered with, and how many of them created or reran it. */
function byKey(results: readonly SubmitResult[]): Map<string, { ids: Set<string>; started: number }> {
  const keys = new Map<string, { ids: Set<string>; started: number }>()
  for (const { kind, job } of results) {
    const seen = keys.get(job.idempotency_key) ?? { ids: new Set(), started: 0 }
    seen.ids.add(job.id)
    if (kind === 'created' || kind === 'rerun') seen.started += 1
    keys.set(job.idempotency_key, seen)
  }
  return keys
}

async function deadlocks(): Promise<number> {
  const rows = await store.query<{ deadlocks: number }>(
    'select deadlocks from pg_stat_database where datname = current_database()',
  )
  return rows[0]?.deadlocks ?? Number.NaN
}

/** Both orders come to the same. */
describe.each<SubmitOrder>(['insert first', 'look first'])('%s', (submitOrder) => {
  const submit = (jobs: readonly NewJob[]): Promise<SubmitResult[]> => submitBatch(store.db, jobs, submitOrder)

  describe('many connections submit the same keys in opposite orders', () => {
    it.each<[string, (key: string, index: number) => Promise<unknown>]>([
      ['new keys', () => Promise.resolve()],
      [
        'expired keys',
        (key) => insertJob(store, { idempotency_key: key, state: 'succeeded', expires_at: inSeconds(-1) }),
      ],
      ['failed keys', (key) => insertJob(store, { idempotency_key: key, state: 'failed' })],
      [
        'some of each',
        (key, index) => {
          const state = index % 3 === 1 ? 'failed' : 'cancelled'
          const expires = index % 3 === 1 ? inSeconds(60) : inSeconds(-1)
          return index % 3 === 0
            ? Promise.resolve()
            : insertJob(store, { idempotency_key: key, state, expires_at: expires })
        },
      ],
    ])('%s: each is started once, everybody gets its id, and nothing deadlocks', async (_, prepare) => {
      for (let round = 0; round < 6; round += 1) {
        const keys = Array.from({ length: 60 }, () => randomUUID())
        await Promise.all(keys.map((key, index) => prepare(key, index)))
        const orders = [keys, keys.toReversed(), keys.toSorted(), keys.toSorted().toReversed()]
        const batches = [...orders, ...orders].map((order) => order.map((key) => newJob(key)))
        const results = await Promise.all(batches.map((batch) => submit(batch)))
        const keysSeen = byKey(results.flat())
        expect(keysSeen.size).toBe(60)
        expect([...keysSeen.values()].filter(({ ids, started }) => ids.size !== 1 || started !== 1)).toEqual([])
      }
      expect(await deadlocks()).toBe(0)
    })

    it('while a sweeper and a deleter take rows away: each live row has one creator', async () => {
      const keys = Array.from({ length: 40 }, () => randomUUID())
      const done = new AbortController()
      const taking = (async () => {
        while (!done.signal.aborted) {
          await sweepExpired(store.db, 5)
          await store.query(
            // In the order of all statements: else this one deadlocks with a take-over, and the counter above is not the product's.
            `update jobs set state = 'cancelled', completed_at = now(), expires_at = now()
            where id = any(array(
              select j.id from jobs j where j.idempotency_key = any($1) and random() < 0.2
              order by j.tenant_id, j.idempotency_key for update
            ))`,
            [keys],
          )
          const [row] = await store.query<{ id: string }>(
            'select id from jobs where idempotency_key = any($1) limit 1',
            [keys],
          )
          if (row !== undefined) await deleteJobs(store.db, decisionRequest([row.id]), true)
        }
      })()
      const created: string[] = []
      const settled = await Promise.allSettled(
        [keys, keys.toReversed(), keys].map(async (order) => {
          for (let round = 0; round < 25; round += 1) {
            const results = await submit(order.map((key) => newJob(key)))
            created.push(...results.filter(({ kind }) => kind === 'created').map(({ job }) => job.id))
          }
        }),
      )
      done.abort()
      await taking
      expect(settled.filter(({ status }) => status === 'rejected')).toEqual([])
      expect(new Set(created).size).toBe(created.length)
      const live = await store.query<{ id: string }>('select id from jobs where idempotency_key = any($1)', [keys])
      for (const { id } of live) expect(created).toContain(id)
    })
  })

  describe('a submission that meets another one half-way', () => {
    const insertUncommitted = (job: NewJob) =>
      openTransaction(
        store,
        `insert into jobs (id, tenant_id, idempotency_key, fingerprint, operation, model, lane, priority, timeout_ms,
         ttl_seconds, deadline_seconds, state, on_uncertain, max_attempts, max_paid_attempts, run_at, deadline_at)
       values ($1, 'default', $2, $3, 'responses', 'm', 'simulated', 5, 1, 1, 1, 'queued', 'rerun', 1, 1, now(), now() + interval '1 day')`,
        [job.id, job.key, job.fingerprint],
      )

    it.each(['commit', 'rollback'] as const)('waits for its %s and then attaches or creates', async (how) => {
      const [theirs, mine] = [newJob('k'.concat(randomUUID())), newJob('')]
      mine.key = theirs.key
      const transaction = await insertUncommitted(theirs)
      const result = submit([mine])
      await untilBlocked(store)
      await transaction.finish(how)
      const id = how === 'commit' ? theirs.id : mine.id
      expect(await result).toMatchObject([{ kind: how === 'commit' ? 'attached' : 'created', job: { id } }])
    })

    it('finds a key that another take-over has given to another request', async () => {
      const key = randomUUID()
      const old = await insertJob(store, { idempotency_key: key, state: 'succeeded', expires_at: inSeconds(-1) })
      const theirs = newJob(key, { body: 'two' })
      const transaction = await openTransaction(store, 'select 1 from jobs where id = $1 for update', [old])
      const mine = submit([newJob(key)])
      await untilBlocked(store)
      await transaction.query(
        `update jobs set id = $2, fingerprint = $3, state = 'queued', attempt = 0, tries = 0, paid = 0, billed = 0,
       response_status = null, answer_attempt = null, completed_at = null, expires_at = null, started_at = null where id = $1`,
        [old, theirs.id, theirs.fingerprint],
      )
      await transaction.finish('commit')
      expect(await mine).toMatchObject([{ kind: 'mismatch', job: { id: theirs.id } }])
    })

    it('creates what the sweep deleted under it', async () => {
      const key = randomUUID()
      const old = await insertJob(store, { idempotency_key: key, state: 'failed', expires_at: inSeconds(-1) })
      const transaction = await openTransaction(store, 'delete from jobs where id = $1', [old])
      const mine = newJob(key)
      const result = submit([mine])
      await untilBlocked(store)
      await transaction.finish('commit')
      expect(await result).toMatchObject([{ kind: 'created', job: { id: mine.id } }])
    })

    /** Holds the failed job of a key until the submission has read it and waits for its lock; then changes it. */
    async function overtaken(columns: Parameters<typeof insertJob>[1], change: string, more?: string) {
      const key = randomUUID()
      const id = await insertJob(store, { idempotency_key: key, state: 'failed', ...columns })
      const transaction = await openTransaction(store, 'select 1 from jobs where id = $1 for update', [id])
      const submitted = submit([newJob(key)])
      await untilBlocked(store)
      await transaction.query(`update jobs set ${change} where id = $1`, [id])
      if (more !== undefined) await transaction.query(more, [id])
      await transaction.finish('commit')
      return { id, results: await submitted }
    }

    it('attaches to a failed job that somebody else has just made to run', async () => {
      const running = `state = 'queued', generation = generation + 1, completed_at = null, expires_at = null`
      const { id, results } = await overtaken({}, running)
      expect(results).toMatchObject([{ kind: 'attached', job: { id, generation: 2 } }])
      expect(await jobRow(store, id)).toMatchObject({ generation: 2 })
    })

    it('does not run a failed job again that has been paid for meanwhile', async () => {
      const { id, results } = await overtaken({ on_uncertain: 'hold' }, 'attempt = 1, paid = 1')
      expect(results).toMatchObject([{ kind: 'replayed', job: { id, state: 'failed', paid: 1 } }])
    })

    it('replays an answer that was adopted while it wanted to run the failed job again', async () => {
      const answer = `state = 'succeeded', response_status = 200, answer_attempt = 1, error = null`
      const { id, results } = await overtaken(
        {},
        answer,
        `
        insert into answers (job_id, tenant_id, attempt, response, findable) values ($1, 'default', 1, 'late', false)`,
      )
      expect(results).toMatchObject([{ kind: 'replayed', job: { id, response: Buffer.from('late') } }])
    })
  })
})
