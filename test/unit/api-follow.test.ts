import type { StreamCursor, StreamPage } from '@askonce/store'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Parts } from '../../apps/api/src/context.ts'
import { follow, type Following } from '../../apps/api/src/sdk/follow.ts'
import { keptAlive } from '../../apps/api/src/sdk/keep-alive.ts'

type JobRow = Following['job']

const row = { id: 'job', tenant_id: 'default', state: 'running', error: null } as unknown as JobRow
const nothing: StreamPage = { state: 'running', attempt: 1, bytes: Buffer.alloc(0), length: null, contentType: null }

/** Time passes only while a follower waits: half a second each. */
function partsOf(read: (cursor: StreamCursor) => StreamPage): Parts {
  const wait = (): Promise<void> => {
    vi.advanceTimersByTime(500)
    return Promise.resolve()
  }
  return {
    streams: { closed: false, wait, read: (cursor: StreamCursor) => Promise.resolve(read(cursor)) },
    jobs: { read: () => Promise.resolve(row) },
  } as unknown as Parts
}

const following = (limitMs: number): Following => ({
  job: row,
  after: null,
  limitMs,
  isGone: () => false,
  show: (event) => event,
  showProblem: (problem) => Buffer.from(`problem: ${problem.code}`),
})

describe('a follower', () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['performance'] })
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  it('says that it is alive every fifteen seconds, and not sooner', async () => {
    const startedAt = performance.now()
    const pieces = follow(
      partsOf(() => nothing),
      following(Number.POSITIVE_INFINITY),
    )
    for (const seconds of [15, 30, 45]) {
      expect(String((await pieces.next()).value)).toBe(': keep-alive\n')
      expect(performance.now() - startedAt).toBe(seconds * 1_000)
    }
  })

  it('gives up with a status while nothing was sent, and with an event after a sign of life', async () => {
    const early = follow(
      partsOf(() => nothing),
      following(2_000),
    )
    await expect(early.next()).rejects.toMatchObject({ code: 'wait_limit' })
    const late = follow(
      partsOf(() => nothing),
      following(20_000),
    )
    expect(String((await late.next()).value)).toBe(': keep-alive\n')
    expect(String((await late.next()).value)).toBe('problem: wait_limit')
    expect((await late.next()).done).toBe(true)
  })

  it('is told of a refusal behind a sign of life in the provider’s words', async () => {
    let state: StreamPage['state'] = 'running'
    const parts = partsOf(() => ({ ...nothing, state }))
    const refusal = Buffer.from('{"error":{"code":"context_length"}}')
    const failed = { ...row, state: 'failed', error: { provider_status: 400 }, error_response: refusal } as JobRow
    parts.jobs.read = () => Promise.resolve(failed)
    const pieces = follow(parts, { ...following(20_000), showProblem: (_, body) => body ?? Buffer.from('none') })
    expect(String((await pieces.next()).value)).toBe(': keep-alive\n')
    state = 'failed'
    expect((await pieces.next()).value).toEqual(refusal)
    expect((await pieces.next()).done).toBe(true)
  })

  it('has begun with the first event: no limit ends it then', async () => {
    const event = Buffer.from('data: one\n\n')
    const pieces = follow(
      partsOf(({ position }) => (position === 0 ? { ...nothing, bytes: event } : nothing)),
      following(2_000),
    )
    expect((await pieces.next()).value).toEqual(event)
    expect(String((await pieces.next()).value)).toBe(': keep-alive\n')
  })

  describe('that resumes and was shown nothing yet', () => {
    const resuming = { ...following(2_000), resumes: true }

    it('has begun: no limit ends it, and the wait for a rerun is the end of its stream', async () => {
      let state: StreamPage['state'] = 'running'
      const pieces = follow(
        partsOf(() => ({ ...nothing, state })),
        resuming,
      )
      expect(String((await pieces.next()).value)).toBe(': keep-alive\n')
      state = 'queued'
      expect(String((await pieces.next()).value)).toBe('problem: stream_interrupted')
      expect((await pieces.next()).done).toBe(true)
    })

    it('is not taken over to the next attempt behind events of this one that it hides', async () => {
      let attempt = 1
      const event = Buffer.from('data: one\n\n')
      const pieces = follow(
        partsOf((cursor) => ({
          ...nothing,
          attempt,
          bytes: cursor.attempt !== attempt || cursor.position === 0 ? event : nothing.bytes,
        })),
        { ...resuming, show: (bytes, id) => (id.attempt === 1 ? null : bytes) },
      )
      expect(String((await pieces.next()).value)).toBe(': keep-alive\n')
      attempt = 2
      expect(String((await pieces.next()).value)).toBe('problem: stream_interrupted')
    })
  })
})

describe('an answer that is kept alive', () => {
  const request = { id: 'request', url: '/openai/v1/chat/completions' }
  // These answers stand in their rows.
  const noDb = undefined as never

  it('has blanks before it until it is there', async () => {
    let resolve: (job: JobRow) => void = () => undefined
    const promise = new Promise<JobRow>((settle) => (resolve = settle))
    const pieces = keptAlive(noDb, promise, request, 1)
    expect(String((await pieces.next()).value)).toBe(' ')
    expect(String((await pieces.next()).value)).toBe(' ')
    resolve({ ...row, state: 'succeeded', response: Buffer.from('{"a":1}') })
    let last = ''
    for await (const piece of pieces) last += String(piece)
    expect(last.trim()).toBe('{"a":1}')
  })

  it('is an error in the caller’s words when there is no answer', async () => {
    const held = Promise.resolve({
      ...row,
      state: 'uncertain',
      response: null,
      response_bytes: null,
      response_pieces: null,
    } as JobRow)
    const { value } = await keptAlive(noDb, held, request).next()
    expect(JSON.parse(String(value))).toMatchObject({ code: 'job_uncertain', error: { code: 'job_uncertain' } })
  })
})
