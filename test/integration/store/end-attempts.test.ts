import { randomUUID } from 'node:crypto'
import { endAttempts, isDataError, submitBatch, type AttemptEndRecord, type EndedAttempt } from '@askonce/store'
import { describe, expect, it } from 'vitest'
import {
  attemptRow,
  ending,
  inSeconds,
  insertAttempt,
  insertJob,
  insertRunning,
  jobRow,
  newJob,
  openTransaction,
  secondsTo,
  uncertainTtlSeconds,
  untilBlocked,
  useStore,
} from './fixture.ts'

const store = useStore()

async function end(...ends: AttemptEndRecord[]): Promise<EndedAttempt[]> {
  return endAttempts(store.db, ends, uncertainTtlSeconds)
}

/** Seconds within which two clocks readings of one test lie. */
const slack = 30

describe('an answer', () => {
  it('is stored byte for byte, with all that is known of it', async () => {
    const id = await insertRunning(store, { ttl_seconds: 500, error: '{"code":"timeout"}' })
    const response = Buffer.from([0, 255, 10, 13, 128])
    const details = { response, contentType: 'text/x; q="1"', flags: ['truncated', 'refused'], providerStatus: 201 }
    const usage = { inputTokens: 3_000_000_000, outputTokens: 2, costUsd: 0.000_000_123_4 }
    expect(await end(ending(id, 'answer', { ...details, ...usage, providerRequestId: 'req_9' }))).toEqual([
      {
        jobId: id,
        attempt: 1,
        tenant: 'default',
        lane: 'simulated',
        recorded: true,
        movedTo: 'succeeded',
        state: 'succeeded',
        answerAttempt: 1,
      },
    ])
    expect(await jobRow(store, id)).toMatchObject({
      state: 'succeeded',
      response,
      response_status: 201,
      response_content_type: 'text/x; q="1"',
      flags: ['truncated', 'refused'],
      provider_request_id: 'req_9',
      input_tokens: 3_000_000_000,
      output_tokens: 2,
      cost_usd: 0.000_000_123_4,
      answer_attempt: 1,
      error: null,
      paid: 1,
      billed: 1,
    })
    expect(await secondsTo(store, 'expires_at', id)).toBeCloseTo(500, -2)
    expect(await attemptRow(store, id)).toMatchObject({
      outcome: 'answered',
      billing: 'billed',
      provider_status: 201,
      error_code: null,
      provider_request_id: 'req_9',
      input_tokens: 3_000_000_000,
      cost_usd: 0.000_000_123_4,
      finished_at: expect.any(Date) as Date,
    })
  })

  it('may be empty, without content type, usage or flags', async () => {
    const id = await insertRunning(store)
    const nothing = { contentType: null, providerRequestId: null, inputTokens: null, outputTokens: null, costUsd: null }
    await end(ending(id, 'answer', { ...nothing, response: Buffer.alloc(0) }))
    expect(await jobRow(store, id)).toMatchObject({
      response: Buffer.alloc(0),
      flags: [],
      input_tokens: null,
      cost_usd: null,
    })
  })

  it('adds its usage to that of attempts before it', async () => {
    const id = await insertRunning(store, { input_tokens: 5, output_tokens: null, cost_usd: 0.5 })
    await end(ending(id, 'answer', { inputTokens: 7, outputTokens: 8, costUsd: 0.25 }))
    expect(await jobRow(store, id)).toMatchObject({ input_tokens: 12, output_tokens: 8, cost_usd: 0.75 })
  })
})

describe('another end of the attempt that runs', () => {
  it('rerun: queued again after the wait, with the reason', async () => {
    const id = await insertRunning(store, { reruns: 2 })
    const [ended] = await end(ending(id, 'rerun', { delayMs: 90_500, backoff: true }))
    expect(ended).toMatchObject({ movedTo: 'queued', state: 'queued', answerAttempt: null })
    expect(await jobRow(store, id)).toMatchObject({
      state: 'queued',
      reruns: 3,
      paid: 0,
      tries: 1,
      error: { code: 'provider_error' },
      completed_at: null,
      expires_at: null,
    })
    expect(Math.abs((await secondsTo(store, 'run_at', id)) - 90.5)).toBeLessThan(slack)
  })

  it('pause: gives its try back and does not lengthen the next backoff', async () => {
    const id = await insertRunning(store, { tries: 5, reruns: 2 })
    await end(ending(id, 'rerun', { outcome: 'paused', uncounted: true, delayMs: 1_000 }))
    expect(await jobRow(store, id)).toMatchObject({ state: 'queued', tries: 4, reruns: 2, paid: 0 })
    expect(await attemptRow(store, id)).toMatchObject({ outcome: 'paused', billing: 'none' })
  })

  it('stop: failed with the reason, kept for its ttl', async () => {
    const id = await insertRunning(store, { ttl_seconds: 500 })
    expect(await end(ending(id, 'stop'))).toMatchObject([{ movedTo: 'failed' }])
    expect(await jobRow(store, id)).toMatchObject({
      state: 'failed',
      error: { code: 'provider_error' },
      response: null,
    })
    expect(Math.abs((await secondsTo(store, 'expires_at', id)) - 500)).toBeLessThan(slack)
  })

  it.each([
    ['a paid failure is kept for uncertain_ttl', 500, uncertainTtlSeconds],
    ['or for its ttl, if that is longer', 2 * uncertainTtlSeconds, 2 * uncertainTtlSeconds],
  ])('%s, or its budget would start over', async (_, ttl, kept) => {
    const id = await insertRunning(store, { ttl_seconds: ttl, on_uncertain: 'fail' })
    expect(await end(ending(id, 'unknown'))).toMatchObject([{ movedTo: 'failed' }])
    expect(Math.abs((await secondsTo(store, 'expires_at', id)) - kept)).toBeLessThan(slack)
  })

  it('unknown under hold: uncertain since now', async () => {
    const id = await insertRunning(store, { on_uncertain: 'hold' })
    expect(await end(ending(id, 'unknown'))).toMatchObject([{ movedTo: 'uncertain' }])
    expect(await jobRow(store, id)).toMatchObject({ paid: 1, billed: 0, completed_at: null, expires_at: null })
    expect(Math.abs(await secondsTo(store, 'uncertain_since', id))).toBeLessThan(slack)
  })

  it('unknown under rerun: queued while the budget lasts, then held', async () => {
    const id = await insertRunning(store)
    expect(await end(ending(id, 'unknown'))).toMatchObject([{ movedTo: 'queued' }])
    await store.query(
      `update jobs set state = 'running', attempt = 2, paid = 2, tries = 2, started_at = now() where id = $1`,
      [id],
    )
    await insertAttempt(store, id, { attempt: 2 })
    expect(await end(ending(id, 'unknown', { attempt: 2 }))).toMatchObject([{ movedTo: 'uncertain' }])
    expect(await jobRow(store, id)).toMatchObject({ paid: 2, tries: 2 })
  })

  it('unstorable: uncertain, and billed', async () => {
    const id = await insertRunning(store)
    expect(await end(ending(id, 'unstorable'))).toMatchObject([{ movedTo: 'uncertain' }])
    expect(await jobRow(store, id)).toMatchObject({ paid: 1, billed: 1, response: null })
  })

  it('rerun after the deadline: failed, saying that and how the attempt ended', async () => {
    const id = await insertRunning(store, { deadline_at: inSeconds(0) })
    expect(await end(ending(id, 'rerun', { errorCode: 'provider_unavailable' }))).toMatchObject([{ movedTo: 'failed' }])
    expect((await jobRow(store, id))['error']).toEqual({
      code: 'deadline_exceeded',
      message: expect.stringContaining('provider_unavailable') as string,
      retryable: false,
      provider_status: null,
    })
  })

  it('rerun a second before the deadline: queued', async () => {
    const id = await insertRunning(store, { deadline_at: inSeconds(1) })
    expect(await end(ending(id, 'rerun'))).toMatchObject([{ movedTo: 'queued' }])
  })
})

describe('a late answer', () => {
  it.each<[string, Parameters<typeof insertJob>[1]]>([
    ['queued again', { state: 'queued', attempt: 1, tries: 1, paid: 1 }],
    ['failed', { state: 'failed', attempt: 1, tries: 1, paid: 1 }],
    ['failed, and expires in a second', { state: 'failed', attempt: 1, paid: 1, expires_at: inSeconds(1) }],
    ['uncertain', { state: 'uncertain' }],
    ['running its successor', { state: 'running', attempt: 2, tries: 2, paid: 2 }],
  ])('is adopted by a job that is %s', async (_, columns) => {
    const id = await insertJob(store, columns)
    await insertAttempt(store, id, { billing: 'maybe', outcome: 'lost' })
    expect(await end(ending(id, 'answer'))).toMatchObject([{ recorded: true, movedTo: 'succeeded', answerAttempt: 1 }])
    expect(await jobRow(store, id)).toMatchObject({
      state: 'succeeded',
      response: Buffer.from('{"answer":"late"}'),
      error: null,
      uncertain_since: null,
      answer_attempt: 1,
      billed: 1,
    })
    expect(await attemptRow(store, id)).toMatchObject({ outcome: 'answered', billing: 'billed' })
  })

  it('leaves to the successor that it overtook nothing but the ledger', async () => {
    const id = await insertRunning(store, { attempt: 2, tries: 2, paid: 2 })
    await insertAttempt(store, id, { billing: 'maybe' })
    await end(ending(id, 'answer'))
    const before = await jobRow(store, id)
    const [aborted] = await end(ending(id, 'unknown', { attempt: 2, outcome: 'cancelled', inputTokens: 4 }))
    expect(aborted).toMatchObject({ recorded: true, movedTo: null, state: 'succeeded', answerAttempt: 1 })
    expect(await jobRow(store, id)).toEqual({ ...before, input_tokens: 15 })
    expect(await attemptRow(store, id, 2)).toMatchObject({ outcome: 'cancelled', billing: 'maybe' })
  })

  it.each<[string, Parameters<typeof insertJob>[1]]>([
    ['succeeded', { state: 'succeeded', attempt: 2, answer_attempt: 2, paid: 2 }],
    ['cancelled', { state: 'cancelled', attempt: 1, paid: 1 }],
    ['failed and expired', { state: 'failed', attempt: 1, paid: 1, expires_at: inSeconds(0) }],
  ])('is surplus to a job that is %s: duplicate spend in the ledger', async (_, columns) => {
    const id = await insertJob(store, columns)
    await insertAttempt(store, id)
    const before = await jobRow(store, id)
    const [ended] = await end(ending(id, 'answer'))
    expect(ended).toMatchObject({
      recorded: true,
      movedTo: null,
      state: before['state'],
      answerAttempt: before['answer_attempt'],
    })
    expect(await jobRow(store, id)).toEqual({
      ...before,
      billed: (before['billed'] as number) + 1,
      input_tokens: 11,
      output_tokens: 22,
      cost_usd: 0.000_033,
    })
    expect(await attemptRow(store, id)).toMatchObject({ outcome: 'surplus', billing: 'billed', input_tokens: 11 })
  })

  it('is surplus to a job that is gone', async () => {
    const id = randomUUID()
    await insertAttempt(store, id)
    expect(await end(ending(id, 'answer'))).toMatchObject([
      { recorded: true, movedTo: null, state: null, answerAttempt: null, tenant: 'default', lane: 'simulated' },
    ])
    expect(await attemptRow(store, id)).toMatchObject({ outcome: 'surplus', billing: 'billed' })
  })

  it('does not reach the job that has taken the key over', async () => {
    const key = randomUUID()
    const old = await insertJob(store, {
      idempotency_key: key,
      state: 'cancelled',
      paid: 1,
      attempt: 1,
      expires_at: inSeconds(-1),
    })
    await insertAttempt(store, old)
    const [taken] = await submitBatch(store.db, [newJob(key)])
    expect(await end(ending(old, 'answer'))).toMatchObject([{ recorded: true, movedTo: null, state: null }])
    expect(await jobRow(store, taken?.job.id ?? '')).toMatchObject({ state: 'queued', response: null, billed: 0 })
  })
})

// FAULTS 10: a success of an earlier run is adopted, any other end of it is ledger only.
describe('an attempt of a run before this one', () => {
  const runs: [string, Parameters<typeof insertJob>[1]][] = [
    ['is queued', { state: 'queued', attempt: 1, tries: 0, paid: 1 }],
    ['runs', { state: 'running', attempt: 2, tries: 1, paid: 2 }],
  ]
  /** A job in its second generation, and attempt 1 of its first. */
  const earlier = async (columns: Parameters<typeof insertJob>[1], attempt: object): Promise<string> => {
    const id = await insertJob(store, { generation: 2, ...columns })
    await insertAttempt(store, id, { generation: 1, ...attempt })
    if (columns?.state === 'running') await insertAttempt(store, id, { attempt: 2, generation: 2 })
    return id
  }

  it.each(runs)('answers while the job %s again: it is adopted, and the run is over', async (_, columns) => {
    for (const attempt of [{}, { billing: 'maybe', outcome: 'lost' }]) {
      const id = await earlier(columns, attempt)
      const [ended] = await end(ending(id, 'answer'))
      expect(ended).toMatchObject({ recorded: true, movedTo: 'succeeded', answerAttempt: 1 })
      expect(await jobRow(store, id)).toMatchObject({
        state: 'succeeded',
        generation: 2,
        answer_attempt: 1,
        response: Buffer.from('{"answer":"late"}'),
        tries: columns?.['tries'],
        paid: columns?.['paid'],
        billed: 1,
      })
      expect(await attemptRow(store, id)).toMatchObject({ generation: 1, outcome: 'answered', billing: 'billed' })
      if (columns?.state !== 'running') continue
      const [own] = await end(ending(id, 'answer', { attempt: 2 }))
      expect(own).toMatchObject({ recorded: true, movedTo: null, answerAttempt: 1 })
      expect(await attemptRow(store, id, 2)).toMatchObject({ outcome: 'surplus', billing: 'billed' })
    }
  })

  it.each(runs)('ends otherwise while the job %s again: ledger only', async (_, columns) => {
    for (const action of ['unknown', 'stop', 'rerun', 'unstorable'] as const) {
      const id = await earlier(columns, {})
      const { state, generation, attempt, tries, run_at: runAt, error } = await jobRow(store, id)
      expect(await end(ending(id, action))).toMatchObject([{ recorded: true, movedTo: null, state }])
      const after = { state, generation, attempt, tries, run_at: runAt, error, response: null, answer_attempt: null }
      expect([action, await jobRow(store, id)]).toMatchObject([action, after])
      expect((await attemptRow(store, id))['finished_at']).not.toBeNull()
    }
  })
})

describe('late evidence', () => {
  const held = async (columns: Parameters<typeof insertJob>[1] = {}): Promise<string> => {
    const id = await insertJob(store, { state: 'uncertain', on_uncertain: 'hold', ...columns })
    await insertAttempt(store, id, { billing: 'maybe', outcome: 'lost', worker_id: randomUUID() })
    return id
  }

  it('that nothing was billed releases an uncertain job', async () => {
    const id = await held()
    expect(await end(ending(id, 'rerun', { delayMs: 0 }))).toMatchObject([{ recorded: true, movedTo: 'queued' }])
    const row = { state: 'queued', paid: 0, uncertain_since: null, reruns: 0 }
    expect(await jobRow(store, id)).toMatchObject(row)
    expect(await attemptRow(store, id)).toMatchObject({ outcome: 'failed', billing: 'none' })
  })

  it.each<[string, Parameters<typeof insertJob>[1]]>([
    ['another payment is open', { paid: 2, attempt: 2 }],
    ['no try is left', { tries: 5 }],
    ['the deadline has passed', { deadline_at: inSeconds(0) }],
  ])('does not while %s', async (_, columns) => {
    const id = await held(columns)
    const { paid } = await jobRow(store, id)
    expect(await end(ending(id, 'rerun'))).toMatchObject([{ recorded: true, movedTo: null, state: 'uncertain' }])
    expect(await jobRow(store, id)).toMatchObject({ state: 'uncertain', paid: (paid as number) - 1 })
  })

  it('that it was billed counts, without an answer', async () => {
    const id = await held()
    expect(await end(ending(id, 'unstorable'))).toMatchObject([{ recorded: true, movedTo: null, state: 'uncertain' }])
    expect(await jobRow(store, id)).toMatchObject({ paid: 1, billed: 1 })
  })

  it('counts for an attempt of a run before this one', async () => {
    const id = await insertRunning(store, { attempt: 2, generation: 2, tries: 1, paid: 2 })
    await insertAttempt(store, id, { billing: 'maybe', generation: 1 })
    expect(await end(ending(id, 'rerun', { uncounted: true }))).toMatchObject([{ movedTo: null, state: 'running' }])
    expect(await jobRow(store, id)).toMatchObject({ state: 'running', attempt: 2, tries: 1, paid: 1, error: null })
  })

  it.each([
    ['billed', 'none'],
    ['billed', 'maybe'],
    ['none', 'maybe'],
    ['none', 'billed'],
    ['maybe', 'maybe'],
  ] as const)('after %s, %s changes nothing', async (first, second) => {
    const id = await insertJob(store, { state: 'uncertain', billed: first === 'billed' ? 1 : 0 })
    await insertAttempt(store, id, { billing: first })
    const before = [await jobRow(store, id), await attemptRow(store, id)]
    const action = second === 'billed' ? 'answer' : 'unknown'
    const [ended] = await end(ending(id, action, { billing: second }))
    expect(ended).toMatchObject({ recorded: false, movedTo: null, state: 'uncertain' })
    expect([await jobRow(store, id), await attemptRow(store, id)]).toEqual(before)
  })

  it('is not taken from one who wants to end open attempts only', async () => {
    const id = await held()
    const before = [await jobRow(store, id), await attemptRow(store, id)]
    expect(await end(ending(id, 'rerun', { onlyOpen: true }))).toMatchObject([{ recorded: false, movedTo: null }])
    expect([await jobRow(store, id), await attemptRow(store, id)]).toEqual(before)
    const open = await insertRunning(store)
    expect(await end(ending(open, 'rerun', { onlyOpen: true }))).toMatchObject([{ recorded: true, movedTo: 'queued' }])
  })
})

describe('an end that comes again', () => {
  it('changes nothing and tells whose answer is stored: after an unclear COMMIT, mine means done', async () => {
    const id = await insertRunning(store)
    await end(ending(id, 'answer', { response: Buffer.from('first') }))
    const before = [await jobRow(store, id), await attemptRow(store, id)]
    const [again] = await end(ending(id, 'answer', { response: Buffer.from('second') }))
    expect(again).toMatchObject({ recorded: false, movedTo: null, state: 'succeeded', answerAttempt: 1 })
    expect([await jobRow(store, id), await attemptRow(store, id)]).toEqual(before)
  })

  it('does not queue a job a second time that has since been claimed', async () => {
    const id = await insertRunning(store)
    await end(ending(id, 'rerun'))
    await store.query(`update jobs set state = 'running', attempt = 2, paid = 1, tries = 2 where id = $1`, [id])
    expect(await end(ending(id, 'rerun'))).toMatchObject([{ recorded: false, movedTo: null, state: 'running' }])
    expect(await jobRow(store, id)).toMatchObject({ state: 'running', attempt: 2, paid: 1, tries: 2 })
  })

  it('of an attempt that the ledger does not know is not in the answer', async () => {
    const id = await insertRunning(store)
    expect(await end(ending(randomUUID(), 'answer'), ending(id, 'rerun', { attempt: 7 }))).toEqual([])
    expect(await jobRow(store, id)).toMatchObject({ state: 'running' })
  })

  it('of an older attempt does not move the job that its successor runs', async () => {
    for (const action of ['rerun', 'stop', 'unknown', 'unstorable'] as const) {
      const id = await insertRunning(store, { attempt: 2, tries: 2, paid: 2 })
      await insertAttempt(store, id)
      expect(await end(ending(id, action)), action).toMatchObject([{ recorded: true, movedTo: null, state: 'running' }])
      expect(await jobRow(store, id), action).toMatchObject({ state: 'running', attempt: 2, error: null })
    }
  })
})

describe('one batch', () => {
  it('ends attempts of different jobs, each by its own case', async () => {
    const [answered, rerun, stopped, unknown] = await Promise.all(Array.from({ length: 4 }, () => insertRunning(store)))
    const gone = randomUUID()
    await insertAttempt(store, gone)
    const ended = await end(
      ending(answered as string, 'answer'),
      ending(rerun as string, 'rerun'),
      ending(gone, 'answer'),
      ending(stopped as string, 'stop'),
      ending(unknown as string, 'unknown'),
    )
    const moves = new Map(ended.map(({ jobId, movedTo }) => [jobId, movedTo]))
    expect([answered, rerun, gone, stopped, unknown].map((id) => moves.get(id as string))).toEqual([
      'succeeded',
      'queued',
      null,
      'failed',
      'queued',
    ])
  })

  it('may be empty', async () => {
    expect(await end()).toEqual([])
  })

  it.each<[string, AttemptEndRecord['action'], Partial<AttemptEndRecord>]>([
    ['NUL in the error', 'rerun', { error: String.raw`{"code":"timeout","message":"\u0000"}` }],
    ['an error that is no JSON', 'rerun', { error: '{' }],
    ['a failure without a reason', 'stop', { error: null }],
    ['NUL in a flag', 'answer', { flags: ['a\0'] }],
    ['NUL in the request id', 'answer', { providerRequestId: 'a\0' }],
    ['NUL in the content type', 'answer', { contentType: 'a\0' }],
    ['a status that does not fit', 'answer', { providerStatus: 70_000 }],
    ['a cost that does not fit', 'answer', { costUsd: 1e30 }],
    ['a cost that is no number', 'answer', { costUsd: 'much' as unknown as number }],
    ['an answer without bytes', 'answer', { response: null }],
    ['an answer without status', 'answer', { providerStatus: null }],
    ['an unknown outcome', 'rerun', { outcome: 'other' as 'lost' }],
    ['an unknown billing', 'rerun', { billing: 'other' as 'none' }],
  ])('with %s is refused as data, whole', async (_, action, wrong) => {
    const [good, bad] = await Promise.all([insertRunning(store), insertRunning(store)])
    const error: unknown = await end(ending(good, 'answer'), ending(bad, action, wrong)).catch((e: unknown) => e)
    expect(isDataError(error), String(error)).toBe(true)
    expect(await jobRow(store, good)).toMatchObject({ state: 'running' })
    expect(await attemptRow(store, good)).toMatchObject({ finished_at: null })
  })
})

describe('races', () => {
  it.each(['worker first', 'reclaim first'])(
    'an answer and a reclaim of one attempt, %s: the answer is stored',
    async (order) => {
      for (let round = 0; round < 20; round += 1) {
        const id = await insertRunning(store)
        const answer = () => end(ending(id, 'answer'))
        const lost = () => end(ending(id, 'unknown', { outcome: 'lost', onlyOpen: true }))
        await Promise.all(order === 'worker first' ? [answer(), lost()] : [lost(), answer()])
        expect(await jobRow(store, id)).toMatchObject({ state: 'succeeded', paid: 1, billed: 1 })
        expect(await attemptRow(store, id)).toMatchObject({ outcome: 'answered', billing: 'billed' })
      }
    },
  )

  it('an answer that waits for a cancellation finds the job cancelled', async () => {
    const id = await insertRunning(store)
    const cancelling = await openTransaction(
      store,
      `update jobs set state = 'cancelled', completed_at = now(), expires_at = now() + interval '1 hour' where id = $1`,
      [id],
    )
    const ended = end(ending(id, 'answer'))
    await untilBlocked(store)
    await cancelling.finish('commit')
    expect(await ended).toMatchObject([{ recorded: true, movedTo: null, state: 'cancelled' }])
    expect(await attemptRow(store, id)).toMatchObject({ outcome: 'surplus' })
  })

  it('an answer that waits for a take-over of the expired key finds its job gone', async () => {
    const id = await insertJob(store, { state: 'failed', paid: 1, attempt: 1, expires_at: inSeconds(-1) })
    await insertAttempt(store, id)
    const taking = await openTransaction(
      store,
      `update jobs set id = gen_random_uuid(), state = 'queued', attempt = 0, paid = 0, completed_at = null, expires_at = null,
       error = null where id = $1`,
      [id],
    )
    const ended = end(ending(id, 'answer'))
    await untilBlocked(store)
    await taking.finish('commit')
    expect(await ended).toMatchObject([{ recorded: true, movedTo: null, state: null }])
    expect(await attemptRow(store, id)).toMatchObject({ outcome: 'surplus' })
  })

  it('an end that waits for a claim of the next attempt has lost the fence', async () => {
    const id = await insertJob(store, { state: 'queued', attempt: 1, tries: 1, paid: 1 })
    await insertAttempt(store, id, { billing: 'maybe' })
    const claiming = await openTransaction(
      store,
      `update jobs set state = 'running', attempt = 2, tries = 2, paid = 2, started_at = now() where id = $1`,
      [id],
    )
    const ended = end(ending(id, 'rerun'))
    await untilBlocked(store)
    await claiming.finish('commit')
    expect(await ended).toMatchObject([{ recorded: true, movedTo: null, state: 'running' }])
    expect(await jobRow(store, id)).toMatchObject({ state: 'running', attempt: 2, paid: 1 })
  })

  it('an end that waits for a deletion finds its job gone', async () => {
    const id = await insertJob(store, { state: 'cancelled', paid: 1, attempt: 1 })
    await insertAttempt(store, id)
    const deleting = await openTransaction(store, 'delete from jobs where id = $1', [id])
    const ended = end(ending(id, 'unknown', { outcome: 'cancelled' }))
    await untilBlocked(store)
    await deleting.finish('commit')
    expect(await ended).toMatchObject([{ recorded: true, movedTo: null, state: null }])
  })

  it('an end that waits for a claim does not put the new counts on the old state', async () => {
    const id = await insertJob(store, { state: 'queued', attempt: 1, tries: 1, paid: 1, max_paid_attempts: 2 })
    await insertAttempt(store, id, { billing: 'maybe' })
    const claiming = await openTransaction(
      store,
      `update jobs set state = 'running', attempt = 2, tries = 2, paid = 2, started_at = now() where id = $1`,
      [id],
    )
    const ended = end(ending(id, 'unstorable'))
    await untilBlocked(store)
    await claiming.finish('commit')
    expect(await ended).toMatchObject([{ recorded: true, movedTo: null, state: 'running' }])
    expect(await jobRow(store, id)).toMatchObject({ state: 'running', attempt: 2, paid: 2, billed: 1 })
  })

  it('two ends of one attempt that wait for the same lock: one is recorded', async () => {
    const id = await insertRunning(store, { on_uncertain: 'hold' })
    const holder = await openTransaction(store, 'select 1 from jobs where id = $1 for update', [id])
    const both = Promise.all([
      end(ending(id, 'unknown')),
      end(ending(id, 'unknown', { outcome: 'lost', onlyOpen: true })),
    ])
    await untilBlocked(store, 2)
    await holder.finish('commit')
    expect((await both).flat().filter(({ recorded }) => recorded)).toHaveLength(1)
    expect(await jobRow(store, id)).toMatchObject({ state: 'uncertain', paid: 1 })
  })

  it('batches over the same jobs in opposite orders do not deadlock', async () => {
    for (let round = 0; round < 10; round += 1) {
      const ids = await Promise.all(Array.from({ length: 30 }, () => insertRunning(store)))
      const batches = [ids, ids.toReversed(), ids.toSorted(), ids.toSorted().toReversed()]
      const ended = await Promise.all(batches.map((batch) => end(...batch.map((id) => ending(id, 'answer')))))
      expect(ended.flat().filter(({ recorded }) => recorded)).toHaveLength(30)
    }
    const [row] = await store.query<{ n: number }>(
      'select deadlocks as n from pg_stat_database where datname = current_database()',
    )
    expect(row?.n).toBe(0)
  })
})
