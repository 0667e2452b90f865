import { randomUUID } from 'node:crypto'
import { isDataError, readJobs, submitBatch, type NewJob, type SubmitOrder, type SubmitResult } from '@askonce/store'
import { describe, expect, it } from 'vitest'
import { inSeconds, insertJob, jobRow, newJob, secondsTo, sha, useStore } from './fixture.ts'

const store = useStore()

/** Both orders come to the same. */
describe.each<SubmitOrder>(['insert first', 'look first'])('%s', (order) => {
  const submit = (jobs: readonly NewJob[]): Promise<SubmitResult[]> => submitBatch(store.db, jobs, order)

  async function submitOne(job: NewJob): Promise<SubmitResult> {
    const [result] = await submit([job])
    if (result === undefined) throw new Error('no result')
    return result
  }

  /** A key with a row in the given state, and the submission of the same request. */
  async function known(columns: Parameters<typeof insertJob>[1], body = 'one') {
    const key = randomUUID()
    const id = await insertJob(store, { idempotency_key: key, ...columns })
    return { id, key, submission: newJob(key, { body }) }
  }

  describe('a key that the simulated provider has', () => {
    const real = { lane: 'openai', model: 'gpt-4.1' }

    it.each(['queued', 'running', 'uncertain', 'succeeded', 'failed', 'cancelled'] as const)(
      '%s: the same request, now for a real provider, takes it over with a new id',
      async (state) => {
        const { id, key } = await known({ state, model: 'gpt-4.1' })
        const job = newJob(key, real)
        const twin = newJob(key, real)
        const [first, second] = await submit([job, twin])
        expect(first).toMatchObject({
          kind: 'created',
          job: { id: job.id, lane: 'openai', state: 'queued', attempt: 0 },
        })
        expect(second).toMatchObject({ kind: 'attached', job: { id: job.id } })
        expect(await readJobs(store.db, [{ tenantId: 'default', id }])).toEqual([])
        expect(await jobRow(store, job.id)).toMatchObject({
          response: null,
          answer_attempt: null,
          paid: 0,
          expires_at: null,
        })
        // From now on it is any other job.
        expect(await submitOne(newJob(key, real))).toMatchObject({ kind: 'attached', job: { id: job.id } })
      },
    )

    it('is replayed while its request still goes there', async () => {
      const { id, submission } = await known({ state: 'succeeded' })
      expect(await submitOne(submission)).toMatchObject({ kind: 'replayed', job: { id } })
    })

    it('refuses another request, also for a real provider', async () => {
      const { id, key } = await known({ state: 'succeeded' })
      expect(await submitOne(newJob(key, { ...real, body: 'two' }))).toMatchObject({ kind: 'mismatch', job: { id } })
    })

    it('keeps the answer of a real provider when that is turned off', async () => {
      const { id, submission } = await known({ state: 'succeeded', ...real })
      expect(await submitOne(submission)).toMatchObject({ kind: 'replayed', job: { id, lane: 'openai' } })
    })
  })

  describe('a new key', () => {
    it('is created with everything that the submission says', async () => {
      const job = newJob(randomUUID(), {
        metadata: '{"a":"b"}',
        priority: 0,
        timeoutMs: 1,
        ttlSeconds: 7,
        deadlineSeconds: 100,
        onUncertain: 'hold',
        maxAttempts: 1,
        maxPaidAttempts: 3,
      })
      const { kind, job: row } = await submitOne(job)
      expect(kind).toBe('created')
      expect(row).toMatchObject({
        id: job.id,
        state: 'queued',
        generation: 1,
        attempt: 0,
        metadata: { a: 'b' },
      })
      expect(await readJobs(store.db, [{ tenantId: job.tenantId, id: job.id }])).toEqual([row])
      expect(await jobRow(store, job.id)).toMatchObject({
        tenant_id: 'default',
        idempotency_key: job.key,
        fingerprint: job.fingerprint,
        request: job.request,
        priority: 0,
        timeout_ms: 1,
        ttl_seconds: 7,
        deadline_seconds: 100,
        on_uncertain: 'hold',
        max_attempts: 1,
        max_paid_attempts: 3,
        tries: 0,
        paid: 0,
        billed: 0,
        consented_paid: 0,
        response: null,
        expires_at: null,
      })
      expect(await secondsTo(store, 'deadline_at', job.id, 'created_at')).toBe(100)
    })

    it('is due when it says, and stands in the list of what is queued from then on', async () => {
      const delayed = newJob(randomUUID(), { delaySeconds: 1 })
      const later = newJob(randomUUID(), { runAt: '2100-01-01T00:00:00Z', delaySeconds: 60 })
      const past = newJob(randomUUID(), { runAt: '2000-01-01T00:00:00Z' })
      const results = await submit([delayed, later, past])
      for (const { job } of results) {
        const list = await store.query('select * from ready where job_id = $1', [job.id])
        const { lane, model, priority, run_at } = job
        expect(list).toMatchObject([{ tenant_id: 'default', lane, model, priority, run_at, reserve_usd: null }])
      }
      expect(results[1]?.job.run_at.toISOString()).toBe('2100-01-01T00:01:00.000Z')
      expect(results[1]?.job.deadline_at.toISOString()).toBe('2100-01-02T00:01:00.000Z')
      expect(await secondsTo(store, 'run_at', delayed.id, 'created_at')).toBe(1)
      // A time that has passed means now: counted from then, the deadline would be over already.
      expect(await secondsTo(store, 'run_at', past.id, 'created_at')).toBe(0)
      expect(await secondsTo(store, 'deadline_at', past.id, 'created_at')).toBe(86_400)
    })

    it('is created once for each tenant', async () => {
      const key = randomUUID()
      const results = await submit([newJob(key), newJob(key, { tenantId: 'other' })])
      expect(results.map(({ kind }) => kind)).toEqual(['created', 'created'])
    })

    it('may hold any printable character and 255 of them', async () => {
      const keys = [`${randomUUID()}'"\\,{}%_ `, 'k'.repeat(255), 'NULL']
      const results = await submit(keys.map((key) => newJob(key, { tenantId: order })))
      expect(results.map(({ kind, job }) => [kind, job.idempotency_key])).toEqual(keys.map((key) => ['created', key]))
    })
  })

  describe('a known key with the same request', () => {
    it.each([
      ['queued', 'attached'],
      ['running', 'attached'],
      ['uncertain', 'attached'],
      ['succeeded', 'replayed'],
      ['cancelled', 'replayed'],
    ] as const)('that is %s is %s, and nothing changes', async (state, kind) => {
      const { id, submission } = await known({ state })
      const before = await jobRow(store, id)
      const result = await submitOne({ ...submission, priority: 0, maxPaidAttempts: 9, onUncertain: 'fail' })
      expect(result).toMatchObject({ kind, job: { id, state } })
      expect(await jobRow(store, id)).toEqual(before)
    })

    it('gets the stored bytes', async () => {
      const response = Buffer.from([0, 255, 123, 10])
      const { submission } = await known({ state: 'succeeded', response })
      expect((await submitOne(submission)).job.response).toEqual(response)
    })

    it('that failed unpaid runs again: new generation, no tries, due now, fresh deadline', async () => {
      const { id, submission } = await known({
        state: 'failed',
        attempt: 3,
        tries: 5,
        reruns: 4,
        generation: 2,
        run_at: inSeconds(-1_000),
        deadline_at: inSeconds(-1),
        deadline_seconds: 500,
      })
      const { kind, job } = await submitOne(submission)
      expect(kind).toBe('rerun')
      expect(job).toMatchObject({
        id,
        state: 'queued',
        generation: 3,
        attempt: 3,
        tries: 0,
        expires_at: null,
      })
      expect(await jobRow(store, id)).toMatchObject({ reruns: 0, completed_at: null })
      expect(await secondsTo(store, 'run_at', id)).toBeCloseTo(0, -2)
      expect(await secondsTo(store, 'deadline_at', id, 'run_at')).toBe(500)
    })

    it.each([
      ['rerun', 1, 2, 0, 'rerun'],
      ['rerun', 2, 2, 0, 'replayed'],
      ['rerun', 2, 2, 3, 'replayed'],
      ['hold', 0, 2, 0, 'rerun'],
      ['hold', 1, 2, 0, 'replayed'],
      ['hold', 1, 2, 2, 'replayed'],
      ['fail', 1, 9, 0, 'replayed'],
    ])('that failed under %s with %i of %i paid, consent to %i: %s', async (policy, paid, most, consented, kind) => {
      const { id, submission } = await known({
        state: 'failed',
        on_uncertain: policy,
        paid,
        max_paid_attempts: most,
        consented_paid: consented,
        attempt: 2,
      })
      const result = await submitOne(submission)
      expect(result).toMatchObject({ kind, job: { id, state: kind === 'rerun' ? 'queued' : 'failed', paid } })
    })
  })

  describe('a known key with another request', () => {
    it.each(['queued', 'running', 'uncertain', 'succeeded', 'failed', 'cancelled'] as const)(
      'that is %s is refused, and nothing changes',
      async (state) => {
        const { id, submission } = await known({ state }, 'two')
        const before = await jobRow(store, id)
        expect(await submitOne(submission)).toMatchObject({ kind: 'mismatch', job: { id } })
        expect(await jobRow(store, id)).toEqual(before)
      },
    )
  })

  describe('an expired key', () => {
    it.each(['succeeded', 'failed', 'cancelled'] as const)(
      'that was %s is new, with a new id; the old id is gone',
      async (state) => {
        const old = await known(
          {
            state,
            expires_at: inSeconds(0),
            created_at: inSeconds(-9_000),
            paid: 5,
            billed: 1,
            generation: 4,
            attempt: 6,
          },
          'two',
        )
        const { kind, job } = await submitOne({ ...old.submission, maxAttempts: 3, metadata: '{"new":"1"}' })
        expect(kind).toBe('created')
        expect(job.id).toBe(old.submission.id)
        expect(await store.query('select 1 from jobs where id = $1', [old.id])).toEqual([])
        expect(await jobRow(store, job.id)).toMatchObject({
          state: 'queued',
          fingerprint: sha('two'),
          request: old.submission.request,
          metadata: { new: '1' },
          max_attempts: 3,
          generation: 1,
          flags: [],
        })
        const row = await jobRow(store, job.id)
        for (const name of ['attempt', 'tries', 'paid', 'billed', 'consented_paid', 'reruns'])
          expect(row[name], name).toBe(0)
        const forgotten = [
          'response',
          'response_status',
          'response_content_type',
          'answer_attempt',
          'error',
          'input_tokens',
        ]
        const undated = ['output_tokens', 'cost_usd', 'provider_request_id', 'started_at', 'completed_at', 'expires_at']
        for (const name of [...forgotten, ...undated]) expect(row[name], name).toBeNull()
        expect(await secondsTo(store, 'created_at', job.id)).toBeCloseTo(0, -2)
      },
    )

    it('that expires in a second is still known', async () => {
      const { id, submission } = await known({ state: 'succeeded', expires_at: inSeconds(1) })
      expect(await submitOne(submission)).toMatchObject({ kind: 'replayed', job: { id } })
    })

    it('keeps its delay', async () => {
      const { submission } = await known({ state: 'failed', expires_at: inSeconds(-1) })
      const { job } = await submitOne({ ...submission, delaySeconds: 60 })
      expect(await secondsTo(store, 'run_at', job.id, 'created_at')).toBe(60)
    })
  })

  describe('one batch', () => {
    it('folds equal keys: the first decides, equal requests attach, others are refused', async () => {
      const key = randomUUID()
      const first = newJob(key)
      const rest = [newJob(key), newJob(key, { body: 'two' }), newJob(key)]
      const results = await submit([first, ...rest])
      expect(results.map(({ kind }) => kind)).toEqual(['created', 'attached', 'mismatch', 'attached'])
      expect(new Set(results.map(({ job }) => job.id))).toEqual(new Set([first?.id]))
    })

    it('reruns a failed key for the first of them that has its request', async () => {
      const { id, key } = await known({ state: 'failed' })
      const batch = [newJob(key, { body: 'two' }), newJob(key), newJob(key), newJob(key, { body: 'two' })]
      const results = await submit(batch)
      expect(results.map(({ kind }) => kind)).toEqual(['mismatch', 'rerun', 'attached', 'mismatch'])
      expect(await jobRow(store, id)).toMatchObject({ generation: 2, state: 'queued' })
    })

    it('replays a failed key that needs consent to as many as ask', async () => {
      const { id, key } = await known({ state: 'failed', paid: 1, attempt: 1, on_uncertain: 'hold' })
      const results = await submit(Array.from({ length: 50 }, () => newJob(key)))
      expect(new Set(results.map(({ kind, job }) => `${kind} ${job.id}`))).toEqual(new Set([`replayed ${id}`]))
    })

    it('gives a replay to all who ask for one answer', async () => {
      const { key } = await known({ state: 'succeeded' })
      const results = await submit([newJob(key), newJob(key), newJob(key, { body: 'two' })])
      expect(results.map(({ kind, job }) => [kind, job.response !== null])).toEqual([
        ['replayed', true],
        ['replayed', true],
        ['mismatch', true],
      ])
    })

    it('answers in order when every case is in it, several times', async () => {
      const states = ['queued', 'running', 'uncertain', 'succeeded', 'cancelled'] as const
      const rows = await Promise.all(states.map((state) => known({ state })))
      const failed = await known({ state: 'failed' })
      const expired = await known({ state: 'failed', expires_at: inSeconds(-1) })
      const batch = [...rows, failed, expired].map(({ submission }) => submission)
      const kinds = (await submit([newJob(randomUUID()), ...batch])).map(({ kind }) => kind)
      expect(kinds).toEqual(['created', 'attached', 'attached', 'attached', 'replayed', 'replayed', 'rerun', 'created'])
    })

    it('may be empty', async () => {
      expect(await submit([])).toEqual([])
    })

    it('sent again after an unclear COMMIT created the same jobs, whatever became of them since', async () => {
      const expired = await known({ state: 'cancelled', expires_at: inSeconds(-1) })
      const batch = [newJob(randomUUID()), newJob(randomUUID()), expired.submission]
      await submit(batch)
      await store.query(
        `update jobs set state = 'cancelled', completed_at = now(), expires_at = now() + interval '1 hour' where id = $1`,
        [batch[1]?.id],
      )
      const again = await submit(batch)
      expect(again.map(({ kind, job }) => [kind, job.id])).toEqual(batch.map(({ id }) => ['created', id]))
      const [count] = await store.query<{ n: number }>('select count(*) as n from jobs where id = any($1)', [
        batch.map(({ id }) => id),
      ])
      expect(count?.n).toBe(3)
    })

    it.each<[string, Partial<NewJob>]>([
      ['metadata that is no JSON', { metadata: '{' }],
      ['NUL in metadata', { metadata: String.raw`{"a":"\u0000"}` }],
      ['NUL in the model', { model: 'a\0b' }],
      ['a key that is too long', { key: 'k'.repeat(256) }],
      ['an unknown operation', { operation: 'other' as 'responses' }],
      ['a time that is none', { runAt: 'yesterday-ish' }],
      ['a number that does not fit', { maxAttempts: 40_000 }],
      ['no attempts', { maxAttempts: 0 }],
    ])('with %s is refused as data, and nothing of it is written', async (_, wrong) => {
      const good = newJob(randomUUID())
      const error: unknown = await submit([good, newJob(randomUUID(), wrong)]).catch((e: unknown) => e)
      expect(isDataError(error)).toBe(true)
      expect(await store.query('select 1 from jobs where id = $1', [good.id])).toEqual([])
    })
  })
})
