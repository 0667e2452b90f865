import { Askonce, AskonceConnectionError, AskonceError, type Fetch, type Job, type RetryOptions } from '@askonce/client'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'

beforeEach(() => {
  vi.useFakeTimers()
  vi.spyOn(Math, 'random').mockReturnValue(0.5)
})
afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

type Reply = (() => Response | Promise<Response>) | Response

const textOf = (init: RequestInit | undefined): string => (typeof init?.body === 'string' ? init.body : '')

interface Sent {
  /** Milliseconds since the start. */
  atMs: number
  method: string
  path: string
  headers: Headers
  body: string | undefined
}

/** A client whose server answers with `replies` in order, then with the last of them. */
function clientOf(replies: Reply[], retry?: RetryOptions) {
  const sent: Sent[] = []
  const startMs = Date.now()
  const fetch: Fetch = async (input, init = {}) => {
    const { pathname, search } = new URL(input instanceof Request ? input.url : input)
    sent.push({
      atMs: Date.now() - startMs,
      method: init.method ?? 'GET',
      path: pathname + search,
      headers: new Headers(init.headers),
      body: init.body as string | undefined,
    })
    const reply = replies[Math.min(sent.length, replies.length) - 1]
    if (reply === undefined) throw new Error('no reply')
    const response = reply instanceof Response ? reply.clone() : reply()
    const aborted = new Promise<never>((_, reject) => {
      init.signal?.addEventListener('abort', () => reject(init.signal?.reason as Error))
    })
    return Promise.race([response, aborted])
  }
  const client = new Askonce({
    baseUrl: 'http://h/',
    apiKey: 'secret',
    fetch,
    ...(retry === undefined ? {} : { retry }),
  })
  return { client, sent }
}

const job = (extra: Partial<Job> = {}): Response => Response.json({ id: 'j1', state: 'succeeded', ...extra })

function problem(status: number, code: string, extra: object = {}, headers: Record<string, string> = {}): Response {
  const body = { status, code, detail: `about ${code}`, retryable: status === 503 || status === 429, error: { code } }
  return Response.json({ ...body, ...extra }, { status, headers: { 'x-request-id': 'req-1', ...headers } })
}

const broken = () => Promise.reject(new TypeError('fetch failed'))
const never = () => new Promise<Response>(() => undefined)
const submission = { key: 'k', operation: 'chat.completions', request: { model: 'm' } } as const

/** Lets all timers run until the promise has settled; its value, or its error. */
async function settled<T>(promise: Promise<T>): Promise<T | Error> {
  const caught = promise.catch((error: unknown) => error as Error)
  const round = Symbol('round')
  for (let rounds = 0; rounds < 10_000; rounds += 1) {
    const next = vi.advanceTimersByTimeAsync(100).then(() => round)
    const first = await Promise.race([caught, next])
    if (typeof first !== 'symbol') return first
  }
  throw new Error('it does not settle')
}

describe('errors', () => {
  it('carry what the server says', async () => {
    const extra = { pointers: ['/request/model'], state: 'queued', error: { code: 'x', param: 'Idempotency-Key' } }
    const { client, sent } = clientOf([problem(422, 'idempotency_key_reused', extra)])
    const error = await settled(client.submit(submission))
    expect(error).toBeInstanceOf(AskonceError)
    expect(error).toMatchObject({
      name: 'AskonceError',
      message: 'about idempotency_key_reused',
      code: 'idempotency_key_reused',
      status: 422,
      retryable: false,
      param: 'Idempotency-Key',
      requestId: 'req-1',
      pointers: ['/request/model'],
      state: 'queued',
    })
    expect(sent).toHaveLength(1)
  })

  it.each([
    [new Response('<html>', { status: 502 }), 502, true],
    [new Response('<html>', { status: 418 }), 418, false],
    [new Response('', { status: 500, headers: { 'x-should-retry': 'false' } }), 500, false],
    [Response.json(null, { status: 400 }), 400, false],
    [Response.json({ error: 'text', code: 7, pointers: 'x' }, { status: 400 }), 400, false],
  ])('of somebody else are told apart: %#', async (reply, status, retryable) => {
    const { client, sent } = clientOf([reply], { maxRetries: 2 })
    const error = await settled(client.get('j1'))
    expect(error).toMatchObject({ name: 'AskonceError', code: 'unexpected_answer', status, retryable, pointers: [] })
    expect(sent).toHaveLength(retryable ? 3 : 1)
  })

  it('of the connection are of another class, with their cause', async () => {
    const { client } = clientOf([broken], { maxRetries: 1 })
    const error = await settled(client.get('j1'))
    expect(error).toBeInstanceOf(AskonceConnectionError)
    expect(error).not.toBeInstanceOf(AskonceError)
    expect(error).toMatchObject({ cause: { message: 'fetch failed' } })
  })

  it('an answer that is no JSON is an error, and a key that no header can hold never leaves', async () => {
    const { client, sent } = clientOf([new Response('<html>')])
    expect(await settled(client.get('j1'))).toMatchObject({ code: 'unexpected_answer' })
    for (const key of ['', 'é', 'a\nb', 'a'.repeat(256)]) {
      expect(await settled(client.submit({ ...submission, key }))).toMatchObject({ code: 'idempotency_key_invalid' })
    }
    expect(sent).toHaveLength(1)
  })
})

describe('requests', () => {
  it('submit sends key and envelope, with the API key', async () => {
    const { client, sent } = clientOf([job()])
    await settled(client.submit({ ...submission, stream: true, metadata: { a: 'b' } }, { wait: 5 }))
    expect(sent[0]).toMatchObject({ method: 'POST', path: '/v1/jobs?wait=5' })
    expect(sent[0]?.headers.get('idempotency-key')).toBe('k')
    expect(sent[0]?.headers.get('authorization')).toBe('Bearer secret')
    expect(JSON.parse(sent[0]?.body ?? '')).toEqual({
      operation: 'chat.completions',
      request: { model: 'm' },
      stream: true,
      metadata: { a: 'b' },
    })
  })

  it('a submission is sent again with its key and body', async () => {
    const { client, sent } = clientOf([broken, problem(503, 'unavailable'), job()])
    expect(await settled(client.submit(submission))).toMatchObject({ id: 'j1' })
    expect(new Set(sent.map(({ headers, body }) => `${headers.get('idempotency-key')} ${body}`)).size).toBe(1)
    expect(sent).toHaveLength(3)
  })

  it('pauses double up to a limit, half of it here, and end with the number of retries', async () => {
    const { client, sent } = clientOf([problem(503, 'unavailable')], { maxRetries: 8, maxElapsedMs: 1_000_000 })
    expect(await settled(client.get('j1'))).toMatchObject({ code: 'unavailable' })
    const pauses = sent.slice(1).map(({ atMs }, index) => atMs - (sent[index]?.atMs ?? 0))
    expect(pauses).toEqual([250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000])
  })

  it('pauses are random', async () => {
    vi.mocked(Math.random).mockReturnValueOnce(0).mockReturnValueOnce(0.9)
    const { client, sent } = clientOf([broken, broken, job()])
    await settled(client.get('j1'))
    expect(sent.map(({ atMs }) => atMs)).toEqual([0, 0, 900])
  })

  it.each([
    ['7', 7_000],
    [new Date(Date.UTC(2030, 0, 1, 0, 0, 9)).toUTCString(), 9_000],
  ])('Retry-After %s is the least', async (text, leastMs) => {
    vi.setSystemTime(Date.UTC(2030, 0, 1))
    const { client, sent } = clientOf([problem(429, 'rate_limited', {}, { 'retry-after': text }), job()])
    await settled(client.get('j1'))
    expect(sent[1]?.atMs).toBe(leastMs + 250)
  })

  it('no attempt begins after the total time', async () => {
    const reply = problem(503, 'unavailable', {}, { 'retry-after': '30' })
    const { client, sent } = clientOf([reply], { maxElapsedMs: 70_000, maxRetries: 100 })
    expect(await settled(client.get('j1'))).toMatchObject({ code: 'unavailable', retryAfterMs: 30_000 })
    expect(sent).toHaveLength(3)
  })

  it('a server that says nothing is given up after a minute, and after the time it was asked to wait', async () => {
    const { client, sent } = clientOf([never, job()])
    await settled(client.get('j1'))
    await settled(clientOf([never], { maxRetries: 0 }).client.get('j1', { wait: 60 }))
    // And the few turns of the event loop in which it looks once more whether anything has come.
    expect(sent[1]?.atMs).toBeGreaterThanOrEqual(60_250)
    expect(sent[1]?.atMs).toBeLessThan(60_300)
    const late = () => new Promise<Response>((resolve) => setTimeout(() => resolve(job()), 119_000))
    const { client: patient } = clientOf([late])
    expect(await settled(patient.get('j1', { wait: 60 }))).toMatchObject({ id: 'j1' })
  })

  it.each(['in the request', 'in the pause'])('a signal ends it %s, with its own reason', async (where) => {
    const controller = new AbortController()
    const { client, sent } = clientOf([where === 'in the request' ? never : problem(503, 'unavailable')])
    const asked = client.get('j1', { signal: controller.signal })
    const caught = asked.catch((error: unknown) => error)
    await vi.advanceTimersByTimeAsync(10)
    const reason = new Error('enough')
    controller.abort(reason)
    expect(await caught).toBe(reason)
    expect(sent).toHaveLength(1)
    expect(await client.get('j1', { signal: controller.signal }).catch((error: unknown) => error)).toBe(reason)
    expect(sent).toHaveLength(1)
    expect(vi.getTimerCount()).toBe(0)
  })
})

describe('wait', () => {
  it('asks until the job has settled, and not at once again when the server ends its wait early', async () => {
    const running = () => job({ state: 'running' })
    const slow = () => new Promise<Response>((resolve) => setTimeout(() => resolve(running()), 60_000))
    const { client, sent } = clientOf([slow, running, running, job({ state: 'uncertain' })])
    expect(await settled(client.wait('j1'))).toMatchObject({ state: 'uncertain' })
    expect(sent.map(({ atMs, path }) => [path, atMs])).toEqual([
      ['/v1/jobs/j1?wait=60', 0],
      ['/v1/jobs/j1?wait=60', 60_000],
      ['/v1/jobs/j1?wait=60', 61_000],
      ['/v1/jobs/j1?wait=60', 62_000],
    ])
  })

  it('outlasts more failures in all than one request may have', async () => {
    const rounds = Array.from({ length: 6 }, () => [broken, () => job({ state: 'queued' })]).flat()
    const { client } = clientOf([...rounds, job()], { maxRetries: 1 })
    expect(await settled(client.wait('j1'))).toMatchObject({ state: 'succeeded' })
  })
})

describe('decisions', () => {
  it('that were sent again and find themselves done have succeeded', async () => {
    const conflict = problem(409, 'state_conflict')
    const cancel = clientOf([broken, conflict, job({ state: 'cancelled' })])
    expect(await settled(cancel.client.cancel('j1', { reason: 'no' }))).toMatchObject({ state: 'cancelled' })
    expect(cancel.sent.map(({ method, path }) => `${method} ${path}`)).toEqual([
      'POST /v1/jobs/j1/cancel',
      'POST /v1/jobs/j1/cancel',
      'GET /v1/jobs/j1',
    ])
    const fail = clientOf([broken, conflict, job({ state: 'failed' })])
    expect(await settled(fail.client.fail('j1'))).toMatchObject({ state: 'failed' })
    const retry = clientOf([broken, conflict, job({ state: 'running', generation: 3 })])
    expect(await settled(retry.client.retry('j1', { generation: 2 }))).toMatchObject({ generation: 3 })
    const remove = clientOf([broken, problem(404, 'not_found')])
    expect(await settled(remove.client.remove('j1'))).toEqual({ id: 'j1', object: 'job', deleted: true })
  })

  it('that somebody else has taken are conflicts', async () => {
    const conflict = problem(409, 'state_conflict', { state: 'succeeded' })
    const first = clientOf([conflict])
    expect(await settled(first.client.cancel('j1'))).toMatchObject({ code: 'state_conflict', state: 'succeeded' })
    expect(first.sent).toHaveLength(1)
    const other = clientOf([broken, conflict, job({ state: 'succeeded' })])
    expect(await settled(other.client.cancel('j1'))).toMatchObject({ code: 'state_conflict' })
    const gone = clientOf([problem(404, 'not_found')])
    expect(await settled(gone.client.remove('j1'))).toMatchObject({ code: 'not_found' })
  })

  it('a retry without generation, which could pay twice, is sent again only if the server did nothing', async () => {
    const consent = { accept_duplicate_charge: true }
    for (const reply of [broken, problem(503, 'unavailable'), new Response('', { status: 502 })]) {
      const { client, sent } = clientOf([reply, job()])
      expect(await settled(client.retry('j1', consent))).toBeInstanceOf(Error)
      expect(sent).toHaveLength(1)
    }
    const { client, sent } = clientOf([problem(429, 'rate_limited'), problem(503, 'overloaded'), job()])
    expect(await settled(client.retry('j1', consent))).toMatchObject({ id: 'j1' })
    expect(sent.map(({ body }) => body)).toEqual(Array.from({ length: 3 }, () => JSON.stringify(consent)))
  })
})

describe('submitMany', () => {
  const items = (count: number, content = 'x') =>
    Array.from({ length: count }, (_, index) => ({ ...submission, key: `k${index}`, request: { content } }))

  /** Answers each item with what `outcome` says. */
  function bulk(outcome: (key: string, request: number) => object, mostBytes = Infinity) {
    const bodies: string[][] = []
    const fetch: Fetch = (_input, init) => {
      const lines = textOf(init).split('\n')
      bodies.push(lines.map((line) => (JSON.parse(line) as { key: string }).key))
      if (textOf(init).length > mostBytes) return Promise.resolve(problem(413, 'payload_too_large'))
      const data = bodies.at(-1)?.map((key, index) => Object.assign({ index }, outcome(key, bodies.length)))
      return Promise.resolve(Response.json({ object: 'list', data, has_more: false, next_cursor: null }))
    }
    return { client: new Askonce({ fetch }), bodies }
  }

  async function all<T>(outcomes: AsyncIterable<T>): Promise<T[]> {
    const list: T[] = []
    for await (const outcome of outcomes) list.push(outcome)
    return list
  }

  const accepted = (key: string) => ({ status: 202, job: { id: `id-${key}`, key, state: 'queued' } })
  const refused = (status: number, retryable: boolean) => ({ status, error: { code: 'c', message: 'm', retryable } })

  it('makes requests of at most so many items and bytes, and keeps the order', async () => {
    const { client, bodies } = bulk(accepted)
    const outcomes = await all(client.submitMany(items(25_000)))
    expect(bodies.map(({ length }) => length)).toEqual([10_000, 10_000, 5_000])
    expect(outcomes.map(({ index, key, job: one }) => `${index} ${key} ${one?.id}`)).toEqual(
      items(25_000).map(({ key }, index) => `${index} ${key} id-${key}`),
    )
    const small = bulk(accepted)
    await all(small.client.submitMany(items(10, 'é'.repeat(400)), { maxBytes: 2_700 }))
    expect(small.bodies.map(({ length }) => length)).toEqual([3, 3, 3, 1])
  })

  it('sends again what was not accepted, without its neighbours, and gives up like a request', async () => {
    const { client, bodies } = bulk((key, request) => {
      if (key === 'k1' && request < 3) return refused(503, true)
      if (key === 'k2') return refused(422, false)
      return key === 'k3' ? refused(503, true) : accepted(key)
    })
    const outcomes = await settled(all(client.submitMany(items(5))))
    expect(outcomes).toMatchObject([
      { index: 0, status: 202, error: null },
      { index: 1, status: 202, job: { id: 'id-k1' }, error: null },
      { index: 2, status: 422, job: null, error: { name: 'AskonceError', code: 'c', retryable: false } },
      { index: 3, status: 503, job: null, error: { retryable: true } },
      { index: 4, status: 202, error: null },
    ])
    expect(bodies.slice(0, 4)).toEqual([['k0', 'k1', 'k2', 'k3', 'k4'], ['k1', 'k3'], ['k1', 'k3'], ['k3']])
    expect(bodies).toHaveLength(9)
  })

  it('halves what is too large for the server', async () => {
    const { client, bodies } = bulk(accepted, 300)
    const list = items(5)
    list[3] = { ...submission, key: 'big', request: { content: 'x'.repeat(400) } }
    const outcomes = await all(client.submitMany(list))
    expect(outcomes.map(({ status }) => status)).toEqual([202, 202, 202, 413, 202])
    expect(outcomes[3]).toMatchObject({ index: 3, key: 'big', error: { code: 'payload_too_large' } })
    expect(bodies.length).toBeGreaterThan(3)
  })

  it('an answer that lacks items is none', async () => {
    const fetch: Fetch = () => Promise.resolve(Response.json({ data: [{ index: 0, ...accepted('k0') }] }))
    const client = new Askonce({ fetch, retry: { maxRetries: 1 } })
    expect(await settled(all(client.submitMany(items(2))))).toBeInstanceOf(AskonceConnectionError)
  })
})

it('one signal serves a hundred calls without a listener for each', async () => {
  const controller = new AbortController()
  const listens = vi.spyOn(controller.signal, 'addEventListener')
  const { client } = clientOf([never])
  const calls = Array.from({ length: 100 }, () =>
    client.get('j1', { signal: controller.signal }).catch((error: unknown) => error),
  )
  await vi.advanceTimersByTimeAsync(10)
  controller.abort(new Error('enough'))
  expect(await Promise.all(calls)).toEqual(Array.from({ length: 100 }, () => new Error('enough')))
  expect(listens).toHaveBeenCalledTimes(1)
  expect(vi.getTimerCount()).toBe(0)
})
