import { connect } from 'node:net'
import { leakCheck } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bootstrapKey, chat, startHarness, type Harness, type Reply } from './harness.ts'

let harness: Harness

beforeAll(async () => {
  harness = await startHarness({ env: { ASKONCE_MAX_BODY_BYTES: '200000', ASKONCE_MAX_REQUEST_BYTES: '100000' } })
})
afterAll(async () => {
  await harness.stop()
  await leakCheck()
})

const request = chat().request
const submit = (body: object | string | Buffer, headers: Record<string, string> = {}): Promise<Reply> =>
  harness.call('POST', '/v1/jobs', { body, headers: { 'idempotency-key': 'bad', ...headers } })

/** The one shape, whatever went wrong. */
function expectProblem(reply: Reply, status: number, code: string): void {
  expect([reply.status, reply.json?.code]).toEqual([status, code])
  expect(reply.headers.get('content-type')).toBe('application/problem+json; charset=utf-8')
  expect(reply.headers.get('x-request-id')).toMatch(/^[\w-]+$/)
  const { json } = reply
  expect(json).toMatchObject({ status, type: `urn:askonce:error:${code}`, title: expect.any(String) as string })
  expect(json.error).toMatchObject({ code, message: json.detail })
  expect(json.instance).toContain(reply.headers.get('x-request-id'))
  expect(reply.headers.get('x-should-retry')).toBe(json.retryable ? null : 'false')
  expect(reply.text).not.toMatch(/node_modules|\.ts:\d|at async|FST_/)
}

describe('the key', () => {
  it.each([
    ['empty', ''],
    ['empty quotes', '""'],
    ['an open quote', '"abc'],
    ['256 characters', 'k'.repeat(256)],
    ['10,000 characters', 'k'.repeat(10_000)],
    ['a tab inside', 'a\tb'],
    ['beyond ASCII', 'sch\u00f6n'],
  ])('400 idempotency_key_invalid: %s', async (_what, key) => {
    expectProblem(await submit(chat(), { 'idempotency-key': key }), 400, 'idempotency_key_invalid')
  })

  it('400 for several headers, even if they are equal', async () => {
    const reply = await raw([
      'POST /v1/jobs HTTP/1.1',
      'Host: x',
      `Authorization: Bearer ${bootstrapKey}`,
      'Idempotency-Key: bad',
      'Idempotency-Key: bad',
      'Content-Type: application/json',
      'Content-Length: 2',
      'Connection: close',
      '',
      '{}',
    ])
    expect(reply).toMatch(/^HTTP\/1\.1 400 /)
    expect(reply).toContain('"code":"idempotency_key_invalid"')
  })

  it('takes a comma, and 255 characters', async () => {
    expect((await harness.submit('a, b', chat())).json.key).toBe('a, b')
    expect((await harness.submit('k'.repeat(255), chat())).status).toBe(202)
  })
})

describe('the body', () => {
  it.each<[string, string | Buffer, string]>([
    ['empty', '', ''],
    ['white space', '  ', ''],
    ['broken JSON', '{"operation":', '/operation'],
    ['text after it', `${JSON.stringify(chat())}x`, ''],
    ['a trailing comma', '{"operation":"embeddings",}', ''],
    ['a repeated member', '{"operation":"embeddings","operation":"embeddings"}', ''],
    ['a repeated member deep inside', '{"request":{"messages":[{"role":"a","role":"b"}]}}', '/request/messages/0'],
    ['a lone surrogate', '{"operation":"\\ud800"}', '/operation'],
    ['NUL', '{"operation":"a\\u0000"}', '/operation'],
    ['a raw control character', '{"operation":"a\nb"}', '/operation'],
    ['a number out of range', '{"priority":1e999}', '/priority'],
    ['nested too deep', '['.repeat(1_000) + ']'.repeat(1_000), '/0'.repeat(128)],
    ['not UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]), ''],
    ['UTF-16', Buffer.from(`\ufeff${JSON.stringify(chat())}`, 'utf16le'), ''],
    ['a list', '[]', ''],
    ['null', 'null', ''],
    ['a number', '5', ''],
  ])('400 invalid_request with the place: %s', async (_what, body, pointer) => {
    const reply = await submit(body)
    expectProblem(reply, 400, 'invalid_request')
    expect(reply.json.error.param).toBe(pointer)
  })

  it('names the first byte that is not UTF-8, not a replacement character that was sent', async () => {
    const body = Buffer.concat([Buffer.from('{"a":"\ufffd\ufffd'), Buffer.from([0xc3, 0x28]), Buffer.from('"}')])
    expect((await submit(body)).json.detail).toContain('offset 12')
  })

  it.each<[string, object, string]>([
    ['no operation', { request }, '/operation'],
    ['an unknown operation', { ...chat(), operation: 'completions' }, '/operation'],
    ['an operation of another type', { ...chat(), operation: ['embeddings'] }, '/operation'],
    ['no request', { operation: 'embeddings' }, '/request'],
    ['a request that is a text', { operation: 'embeddings', request: '{}' }, '/request'],
    ['a request that is a list', { operation: 'embeddings', request: [] }, '/request'],
    ['an unknown member', { ...chat(), prioritee: 1 }, '/prioritee'],
    ['an unknown member with a slash', { ...chat(), 'a/b~c': 1 }, '/a~1b~0c'],
    ['priority 10', { ...chat(), priority: 10 }, '/priority'],
    ['priority 1.5', { ...chat(), priority: 1.5 }, '/priority'],
    ['priority as text', { ...chat(), priority: '1' }, '/priority'],
    ['ttl 0', { ...chat(), ttl_seconds: 0 }, '/ttl_seconds'],
    ['ttl over a year', { ...chat(), ttl_seconds: 31_536_001 }, '/ttl_seconds'],
    ['timeout 0', { ...chat(), timeout_seconds: 0 }, '/timeout_seconds'],
    ['timeout over a day', { ...chat(), timeout_seconds: 86_401 }, '/timeout_seconds'],
    ['max_attempts 101', { ...chat(), max_attempts: 101 }, '/max_attempts'],
    ['max_paid_attempts 0', { ...chat(), max_paid_attempts: 0 }, '/max_paid_attempts'],
    ['max_paid_attempts 11', { ...chat(), max_paid_attempts: 11 }, '/max_paid_attempts'],
    ['deadline over a year', { ...chat(), deadline_seconds: 31_536_001 }, '/deadline_seconds'],
    ['another policy', { ...chat(), on_uncertain: 'retry' }, '/on_uncertain'],
    ['run_at without offset', { ...chat(), run_at: '2026-01-01T00:00:00' }, '/run_at'],
    ['run_at on no day', { ...chat(), run_at: '2027-02-30T00:00:00Z' }, '/run_at'],
    ['run_at beyond a year', { ...chat(), run_at: '2999-01-01T00:00:00Z' }, '/run_at'],
    ['run_at and delay_seconds', { ...chat(), run_at: '2026-01-01T00:00:00Z', delay_seconds: 1 }, '/run_at'],
    ['a negative delay', { ...chat(), delay_seconds: -1 }, '/delay_seconds'],
    ['metadata that is a list', { ...chat(), metadata: [] }, '/metadata'],
    ['metadata with a number', { ...chat(), metadata: { a: 1 } }, '/metadata/a'],
    ['a long metadata name', { ...chat(), metadata: { ['m'.repeat(65)]: 'x' } }, `/metadata/${'m'.repeat(65)}`],
    ['a long metadata text', { ...chat(), metadata: { a: 'x'.repeat(513) } }, '/metadata/a'],
    [
      '17 metadata',
      { ...chat(), metadata: Object.fromEntries(Array.from({ length: 17 }, (_, index) => [`m${index}`, ''])) },
      '/metadata',
    ],
    ['null for an option', { ...chat(), priority: null }, '/priority'],
  ])('400 with the pointer: %s', async (_what, body, pointer) => {
    const reply = await submit(body)
    expectProblem(reply, 400, 'invalid_request')
    expect([reply.json.error.param, reply.json.detail.startsWith(`${pointer}: `)]).toEqual([pointer, true])
  })

  it('refuses an integer beyond 2^53 as an option, not inside the request', async () => {
    const text = JSON.stringify(chat('', { priority: 0 })).replace('"priority":0', '"priority":9007199254740993')
    const reply = await submit(text)
    expect([reply.status, reply.json.error.param]).toEqual([400, '/priority'])
    const inside = JSON.stringify(chat()).replace('"messages"', '"seed":9007199254740993,"messages"')
    const taken = await harness.call('POST', '/v1/jobs', { body: inside, headers: { 'idempotency-key': 'big' } })
    expect(taken.status).toBe(202)
  })

  it('tells several faults at once, and how many more there are', async () => {
    const { json } = await submit({ a: 1, b: 2, c: 3, d: 4, e: 5, f: 6, operation: 'x', request: 1 })
    expect(json.detail.split('; ')).toHaveLength(5)
    expect(json.detail).toContain('and 3 more')
  })
})

describe('the request', () => {
  const model = 'simulated/small'
  it.each<[string, string, object, string]>([
    ['no model', 'chat.completions', { messages: request.messages }, '/request/model'],
    ['a model that is a number', 'chat.completions', { ...request, model: 5 }, '/request/model'],
    ['an empty model', 'chat.completions', { ...request, model: '' }, '/request/model'],
    ['a very long model', 'chat.completions', { ...request, model: 'm'.repeat(201) }, '/request/model'],
    ['no messages', 'chat.completions', { model }, '/request/messages'],
    ['no message', 'messages', { model, messages: [] }, '/request/messages'],
    ['messages that are a text', 'messages', { model, messages: 'hi' }, '/request/messages'],
    ['a message that is a text', 'messages', { model, messages: ['hi'] }, '/request/messages/0'],
    ['a message without role', 'messages', { model, messages: [{ content: 'hi' }] }, '/request/messages/0/role'],
    [
      'content that is a number',
      'messages',
      { model, messages: [{ role: 'user', content: 1 }] },
      '/request/messages/0/content',
    ],
    ['no input', 'responses', { model }, '/request/input'],
    ['an input that is a number', 'responses', { model, input: 5 }, '/request/input'],
    ['no input', 'embeddings', { model }, '/request/input'],
    ['an empty input', 'embeddings', { model, input: [] }, '/request/input'],
    ['an input of objects', 'embeddings', { model, input: [{}] }, '/request/input'],
    ['stream', 'chat.completions', { ...request, stream: true }, '/request/stream'],
    ['stream as text', 'chat.completions', { ...request, stream: 'true' }, '/request/stream'],
    ['background', 'responses', { model, input: 'hi', background: true }, '/request/background'],
  ])('400 with the pointer: %s (%s)', async (_what, operation, body, pointer) => {
    const reply = await submit({ operation, request: body })
    expectProblem(reply, 400, 'invalid_request')
    expect(reply.json.error.param).toBe(pointer)
  })

  it.each<[string, object]>([
    ['chat.completions', { ...request, stream: false, tools: [{ any: 'thing' }], n: 2 }],
    ['chat.completions', { model, messages: [{ role: 'assistant', content: null, tool_calls: [] }] }],
    [
      'messages',
      { model, max_tokens: 5, system: 's', messages: [{ role: 'user', content: [{ type: 'text', text: 'x' }] }] },
    ],
    ['responses', { model, input: [{ role: 'user', content: 'x' }] }],
    ['responses', { model, prompt: { id: 'pmpt_1' } }],
    ['embeddings', { model, input: [[1, 2], [3]] }],
    ['embeddings', { model, input: ['a', 'b'], dimensions: 3 }],
  ])('takes everything else as it is: %s', async (operation, body) => {
    const reply = await harness.submit(`good-${JSON.stringify(body).slice(0, 200)}`, { operation, request: body })
    expect([reply.status, reply.json.operation]).toEqual([202, operation])
  })

  it('413 when it is too large, and when the body is', async () => {
    const large = await submit(chat('x'.repeat(150_000)))
    expectProblem(large, 413, 'payload_too_large')
    expect(large.json.error.param).toBe('/request')
    expectProblem(await submit(chat('x'.repeat(250_000))), 413, 'payload_too_large')
  })
})

describe('HTTP', () => {
  it.each([
    ['text/plain', 415],
    ['application/xml', 415],
    ['application/problem+json', 415],
    ['nonsense', 415],
  ])('415 for %s', async (type) => {
    expectProblem(await submit(JSON.stringify(chat()), { 'content-type': type }), 415, 'unsupported_media_type')
  })

  it('415 for a compressed body', async () => {
    expectProblem(await submit(Buffer.from([1]), { 'content-encoding': 'gzip' }), 415, 'unsupported_media_type')
  })

  it('takes a charset, and a byte order mark', async () => {
    const headers = { 'content-type': 'application/json; charset=UTF-8', 'idempotency-key': 'charset' }
    const body = `\ufeff${JSON.stringify(chat())}`
    expect((await harness.call('POST', '/v1/jobs', { body, headers })).status).toBe(202)
  })

  it('404 for what is not there, 405 with Allow for another method, 400 for a malformed URL', async () => {
    for (const path of ['/v1', '/v1/job', '/v1/jobs%2F', '/v2/jobs', '/favicon.ico', '/v1/jobs/a/b/c']) {
      expectProblem(await harness.call('GET', path), 404, 'not_found')
    }
    const put = await harness.call('PUT', '/v1/jobs', { body: {} })
    expectProblem(put, 405, 'method_not_allowed')
    expect(put.headers.get('allow')).toBe('POST, GET, HEAD')
    expectProblem(await harness.call('GET', '/v1/jobs/bulk'), 405, 'method_not_allowed')
    expectProblem(await harness.call('DELETE', '/healthz'), 405, 'method_not_allowed')
    expectProblem(await harness.call('GET', '/v1/jobs/%zz'), 400, 'invalid_request')
    expectProblem(await harness.call('POST', '/v1/jobs?wait=1&w=2', { body: {} }), 400, 'invalid_request')
  })

  it.each(['openai-beta', 'anthropic-beta', 'Askonce-Key', 'Askonce-Options'])(
    'a native submission with %s, which it would pass over, is refused',
    async (name) => {
      const headers = { [name]: 'derive' }
      const refused = await submit(chat(), headers)
      expectProblem(refused, 400, 'invalid_request')
      expect(refused.json['error']).toMatchObject({ param: name.toLowerCase() })
      const many = { jobs: [{ key: 'one', ...chat() }] }
      expectProblem(await harness.call('POST', '/v1/jobs/bulk', { body: many, headers }), 400, 'invalid_request')
    },
  )

  // Base URLs are put together from pieces: a trailing or doubled slash is forgiven, in the form of an error too.
  it.each([
    ['GET', '/v1/jobs/?limit=1', '/v1/jobs?limit=1', 200],
    ['GET', '//v1///jobs//?key=a//b', '/v1/jobs?key=a//b', 200],
    ['GET', '/healthz/', '/healthz', 200],
    ['POST', '/v1/jobs/', '/v1/jobs', 400],
    ['POST', '/openai/v1//chat/completions', '/openai/v1/chat/completions', 400],
    ['POST', '/openai//v1/chat/completions/', '/openai/v1/chat/completions', 400],
    ['POST', '//anthropic//v1/messages/?beta=true', '/anthropic/v1/messages?beta=true', 400],
    ['PUT', '/v1/jobs/', '/v1/jobs', 405],
  ] as const)('%s %s is %s: %i', async (method, path, meant, status) => {
    const options = method === 'GET' ? {} : { body: {} }
    const reply = await harness.call(method, path, options)
    const tidy = await harness.call(method, meant, options)
    expect([reply.status, tidy.status]).toEqual([status, status])
    expect(Object.keys(reply.json)).toEqual(Object.keys(tidy.json))
  })

  it('answers what is hardly HTTP in the same shape', async () => {
    const overflow = await raw(['GET /healthz HTTP/1.1', 'Host: x', `X-Long: ${'x'.repeat(20_000)}`, '', ''])
    expect(overflow).toMatch(
      /^HTTP\/1\.1 400 .*\r\ncontent-type: application\/problem\+json.*"code":"invalid_request"/s,
    )
    expect(overflow).toContain('16 KiB')
    const nonsense = await raw(['HELLO', '', ''])
    expect(nonsense).toMatch(/^HTTP\/1\.1 400 .*x-request-id: [\w-]+.*"code":"invalid_request"/s)
  })

  it('keeps a sane request id and replaces another', async () => {
    const ask = async (id: string) =>
      (await harness.call('GET', '/healthz', { headers: { 'x-request-id': id } })).headers.get('x-request-id')
    expect(await ask('abc-1.2:3_4')).toBe('abc-1.2:3_4')
    expect(await ask('a b')).toMatch(/^[0-9a-f-]{36}$/)
    expect(await ask('x'.repeat(129))).toMatch(/^[0-9a-f-]{36}$/)
  })

  it.each(['wait=abc', 'wait=-1', 'wait=61', 'wait=1.5', 'wait', 'wait=', 'wait=""', 'wait=99999999999999999999'])(
    '400 for Prefer: %s',
    async (prefer) => {
      const reply = await submit(chat(), { prefer })
      expectProblem(reply, 400, 'invalid_request')
      expect(reply.json.error.param).toBe('Prefer')
    },
  )

  it('400 for a model without provider, naming the variable to set', async () => {
    const other = await startHarness({ env: { OPENAI_BASE_URL: 'http://127.0.0.1:9/v1' } })
    try {
      const body = { operation: 'messages', request: { ...request, model: 'claude-x' } }
      const reply = await other.submit('k', body)
      expect([reply.status, reply.json.error.param]).toEqual([400, '/request/model'])
      expect(reply.json.detail).toContain('ANTHROPIC_API_KEY')
      const chatted = { operation: 'chat.completions', request: { ...request, model: 'gpt-x' } }
      expect((await other.submit('k', chatted)).status).toBe(202)
      // A provider that is on, and has another API.
      const strange = await other.submit('l', { ...chatted, operation: 'messages' })
      expect([strange.status, strange.json.error.param]).toEqual([400, '/request/model'])
    } finally {
      await other.stop()
    }
  })
})

/** Sends lines as they are and reads until the server closes. */
function raw(lines: readonly string[]): Promise<string> {
  const { hostname, port } = new URL(harness.api.address)
  return new Promise((resolve, reject) => {
    let text = ''
    const socket = connect(Number(port), hostname, () => socket.write(lines.join('\r\n')))
    socket.on('data', (data) => {
      text += data.toString()
    })
    socket.on('close', () => resolve(text))
    socket.on('error', reject)
  })
}

describe('what was refused', () => {
  it('left no row', async () => {
    expect(await harness.sql(`select id from jobs where idempotency_key like 'bad%'`)).toEqual([])
  })
})
