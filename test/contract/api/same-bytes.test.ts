import { Submissions } from '@askonce/api'
import { Intake } from '@askonce/intake'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { bootstrapKey, chat, startHarness, type Harness, type Reply } from './harness.ts'

// DESIGN.md §3: what a submission gets does not depend on whether it is known by its bytes or by its parsed request. Not covered: bulk
// submissions and the lines of batches, which are always parsed.
let api: Harness
let keys = 0

beforeAll(async () => {
  api = await startHarness()
})
afterAll(async () => {
  await api.stop()
})
afterEach(() => {
  vi.restoreAllMocks()
})

interface Route {
  path: string
  body: (content: string) => object
  headers?: Record<string, string>
  /** The key comes from the request, and its tenant has no other answer to that. */
  derived?: boolean
}

const model = 'simulated/small'
const ask = (content: string) => ({ model, messages: [{ role: 'user', content }] })
const later = { prefer: 'respond-async' }

const native: Route = { path: '/v1/jobs', body: (content) => chat(content) }
const routes: Record<string, Route> = {
  native,
  'native, streamed': { path: '/v1/jobs', body: (content) => chat(content, { stream: true }) },
  openai: { path: '/openai/v1/chat/completions', body: ask, headers: later },
  'openai, streamed': {
    path: '/openai/v1/chat/completions',
    body: (content) => ({ ...ask(content), stream: true, stream_options: { include_usage: true } }),
    headers: { ...later, 'openai-beta': 'b, a', 'askonce-options': '{"priority":3}' },
  },
  'openai, derived key': {
    path: '/openai/v1/chat/completions',
    body: ask,
    headers: { ...later, 'askonce-key': 'derive' },
    derived: true,
  },
  responses: {
    path: '/openai/v1/responses',
    body: (input) => ({ model, input, background: true }),
    headers: later,
  },
  anthropic: {
    path: '/anthropic/v1/messages',
    body: (content) => ({ ...ask(content), max_tokens: 5 }),
    headers: { ...later, 'anthropic-beta': 'one' },
  },
}

const ended = `completed_at = now(), expires_at = now() + interval '1 hour'`
const called = 'attempt = 1, tries = 1, paid = 1, started_at = now()'
const refused = `error = '{"code":"provider_rejected","message":"no","retryable":false,"provider_status":400}'`

/** How the row of a key comes into each state; null: nothing is done. */
const states: Record<string, ((id: string) => Promise<unknown>) | null> = {
  queued: null,
  running: (id) => write(id, `state = 'running', ${called}`),
  uncertain: (id) => write(id, `state = 'uncertain', uncertain_since = now(), ${called}`),
  succeeded: (id) => succeed(id),
  expired: async (id) => {
    await succeed(id)
    await write(id, `completed_at = now() - interval '2 hours', expires_at = now() - interval '1 second'`)
  },
  'failed, may run unasked': (id) => write(id, `state = 'failed', ${refused}, ${ended}`),
  'failed, needs consent': (id) =>
    write(id, `state = 'failed', on_uncertain = 'hold', ${called}, ${refused}, ${ended}`),
  cancelled: (id) => write(id, `state = 'cancelled', ${ended}`),
  deleted: (id) => api.sql('delete from jobs where id = $1', [id]),
}
/** Where the same bytes start nothing. */
const settled = new Set(['queued', 'running', 'uncertain', 'succeeded', 'failed, needs consent', 'cancelled'])

async function write(id: string, what: string): Promise<void> {
  await api.sql(`update jobs set ${what} where id = $1`, [id])
}

async function succeed(id: string): Promise<void> {
  await api.answer(await api.claim(id), '{"id":"answer","object":"thing"}')
}

/** What is sent the second time. */
const bodies: Record<string, (text: string) => string> = {
  'the same bytes': (text) => text,
  'the same request with other white space': (text) => text.replace('{', '{ '),
  'another request': (text) => text.replace('content-of', 'other-content-of'),
  'no JSON': (text) => text.slice(0, -1),
}

/** The request by its bytes first, or parsed first: otherwise the traffic of late decides. */
function look(first: boolean): void {
  vi.spyOn(Submissions.prototype, 'shouldRecall').mockReturnValue(first)
}

function send(
  { path, headers = {}, derived = false }: Route,
  key: string,
  body: string,
  apiKey = bootstrapKey,
): Promise<Reply> {
  const named: Record<string, string> = derived ? {} : { 'idempotency-key': key }
  return api.call('POST', path, { key: apiKey, body, headers: { ...named, ...headers } })
}

/** Without what differs from one key to the next. */
function shape({ status, headers, text }: Reply): unknown {
  const plain = text
    .replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}/g, 'id')
    .replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}/g, 'request id')
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'time')
    .replaceAll(/derived\/[0-9a-f]{64}/g, 'derived key')
    .replaceAll(/key-\d+/g, 'key')
  return { status, replayed: headers.get('idempotent-replayed'), retry: headers.get('x-should-retry'), plain }
}

function idOf({ json, headers }: Reply): string {
  return headers.get('x-askonce-job-id') ?? json.id
}

/** What each route answers to the second submission of a key in this state. */
async function answersOf(state: string, variant: string, recalled: boolean): Promise<unknown[]> {
  const change = states[state] ?? null
  const second = bodies[variant] ?? ((text) => text)
  const made = await Promise.all(
    Object.values(routes).map(async (route) => {
      keys += 1
      const key = `key-${String(keys).padStart(4, '0')}`
      const text = JSON.stringify(route.body(`content-of-${key}`))
      const reply = await send(route, key, text)
      expect(reply.status).toBe(202)
      await change?.(idOf(reply))
      return { route, key, text, id: idOf(reply) }
    }),
  )
  const parses = [vi.spyOn(Intake.prototype, 'submission'), vi.spyOn(Intake.prototype, 'call')]
  look(recalled)
  const replies = await Promise.all(made.map(({ route, key, text }) => send(route, key, second(text))))
  const isKnown = recalled && variant === 'the same bytes' && settled.has(state)
  expect(parses.reduce((sum, { mock }) => sum + mock.calls.length, 0)).toBe(isKnown ? 0 : made.length)
  expect(isKnown ? replies.map(idOf) : []).toEqual(isKnown ? made.map(({ id }) => id) : [])
  vi.restoreAllMocks()
  return replies.map(shape)
}

describe.each(Object.keys(states))('a job that is %s', (state) => {
  test.each(Object.keys(bodies))('%s: the same by both ways, on every route', async (variant) => {
    expect(await answersOf(state, variant, true)).toEqual(await answersOf(state, variant, false))
  })
})

describe('the same bytes', () => {
  test('are another request with another beta, and another option is looked at', async () => {
    look(true)
    const text = JSON.stringify(ask('beta'))
    const path = '/openai/v1/chat/completions'
    const sent = (headers: Record<string, string>) =>
      api.call('POST', path, { body: text, headers: { 'idempotency-key': 'beta', ...later, ...headers } })
    expect((await sent({})).status).toBe(202)
    expect((await sent({ 'openai-beta': 'one' })).json.error.code).toBe('idempotency_key_reused')
    const delayed = await sent({ 'askonce-options': '{"run_at":"2999-01-01T00:00:00Z"}' })
    expect(delayed.json.error.code).toBe('invalid_request')
  })

  test('are another request as another operation, and as an item of the native surface', async () => {
    look(true)
    const text = JSON.stringify({ ...ask('operation'), max_tokens: 5 })
    const sent = (path: string) =>
      api.call('POST', path, { body: text, headers: { 'idempotency-key': 'operation', ...later } })
    expect((await sent('/openai/v1/chat/completions')).status).toBe(202)
    expect((await sent('/anthropic/v1/messages')).json.error.code).toBe('idempotency_key_reused')
    const item = await api.call('POST', '/v1/jobs', { body: text, headers: { 'idempotency-key': 'operation' } })
    expect(item.json.error.code).toBe('invalid_request')
  })

  test('of another tenant make a job of its own, and neither sees the other’s', async () => {
    look(true)
    await api.sql(`insert into tenants (id) values ('other')`)
    const theirs = await api.keyFor('other')
    const text = JSON.stringify(chat('tenants'))
    const mine = await send(native, 'shared', text)
    const other = await send(native, 'shared', text, theirs)
    expect(other.headers.get('idempotent-replayed')).toBe('false')
    expect(idOf(other)).not.toBe(idOf(mine))
    expect(idOf(await send(native, 'shared', text, theirs))).toBe(idOf(other))
  })

  test('are not shown to callers', async () => {
    const made = await api.submit('hidden', chat('hidden'))
    expect(made.text).not.toContain('digest')
  })

  test('of a large body are never parsed again, whatever the traffic of late was', async () => {
    const text = JSON.stringify(chat('x'.repeat(200_000)))
    const made = await send(native, 'large', text)
    const parse = vi.spyOn(Intake.prototype, 'submission')
    const again = await send(native, 'large', text)
    expect([again.status, idOf(again)]).toEqual([202, idOf(made)])
    expect(parse).not.toHaveBeenCalled()
  })

  test('go on from a response as it is now, not as it was', async () => {
    look(true)
    const path = '/openai/v1/responses'
    const first = await api.call('POST', path, {
      body: { model, input: 'one', background: true },
      headers: { 'idempotency-key': 'one', ...later },
    })
    const previous = `resp_${idOf(first).replaceAll('-', '')}`
    const parse = vi.spyOn(Intake.prototype, 'call')
    const next = () =>
      api.call('POST', path, {
        body: { model, input: 'two', previous_response_id: previous },
        headers: { 'idempotency-key': 'two', ...later },
      })
    const [before, after] = [await next(), await next()]
    expect([before.status, after.status]).toEqual([400, 400])
    expect(parse).toHaveBeenCalledTimes(2)
  })

  test('of a stream ask for its usage as they did', async () => {
    const sent = (key: string, wants: boolean) =>
      api.call('POST', '/openai/v1/chat/completions', {
        body: { ...ask(key), stream: true, ...(wants ? { stream_options: { include_usage: true } } : {}) },
        headers: { 'idempotency-key': key },
      })
    const usage = 'data: {"choices":[],"usage":{"total_tokens":3}}\n\n'
    const answer = `data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n${usage}data: [DONE]\n\n`
    for (const wants of [true, false]) {
      const key = `usage-${wants}`
      const body = { ...ask(key), stream: true, ...(wants ? { stream_options: { include_usage: true } } : {}) }
      look(false)
      const made = await api.call('POST', '/openai/v1/chat/completions', {
        body,
        headers: { 'idempotency-key': key, ...later },
      })
      await api.answer(await api.claim(idOf(made)), answer, 'text/event-stream')
      const parsed = await sent(key, wants)
      look(true)
      const parse = vi.spyOn(Intake.prototype, 'call')
      const recalled = await sent(key, wants)
      expect(parse).not.toHaveBeenCalled()
      expect(recalled.text).toBe(parsed.text)
      expect(recalled.text.includes('total_tokens')).toBe(wants)
      parse.mockRestore()
    }
  })
})
