import { describe, expect, test } from 'vitest'
import type { Operation } from '@askonce/core'
import { cases } from '../contract/providers-lines.ts'
import { classifyRefusal, classifySuccess } from '../../packages/providers/src/classify.ts'
import { checkShape } from '../../packages/providers/src/answer-shape.ts'
import { parseBody } from '../../packages/providers/src/json-value.ts'
import { createPriceBook } from '../../packages/providers/src/prices.ts'
import { createRedactor, createScrubber } from '../../packages/providers/src/scrub.ts'

const nowMs = Date.parse('2026-11-01T00:00:00Z')

function verdictOf(operation: Operation, status: number, body: object | string, headers: Record<string, string> = {}) {
  const kind = operation === 'messages' ? 'anthropic' : 'openai'
  const response = {
    kind: 'response',
    status,
    headers,
    body: Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)),
  } as const
  const prices = createPriceBook(kind, null, [])
  const context = {
    kind,
    operation,
    model: 'gpt-test',
    scrub: createScrubber(null),
    redact: createRedactor(null),
    prices,
    nowMs,
  } as const
  if (status > 299) return classifyRefusal(response, context)
  const { body: bytes } = response
  return classifySuccess(response, Object.assign(checkShape(operation, parseBody(bytes)), { body: bytes }), context)
}

describe('refusals, every line of ERRORS.md', () => {
  test.each(cases)('$kind: $name', ({ kind, refuse, verdict }) => {
    const operation = kind === 'anthropic' ? 'messages' : 'responses'
    const found = verdictOf(operation, refuse.status, refuse.body ?? '', refuse.headers)
    expect(found).toMatchObject({ ...verdict, sent: true, providerStatus: refuse.status })
  })

  test.each([
    ['req_1', 'req_1'],
    ['a\u0000b', null],
    ['a\nb', null],
    ['\u{1F600}', null],
    ['x'.repeat(201), null],
  ])('the id of the request in a body is kept where a header can hold it: %j', (id, kept) => {
    const body = { type: 'error', error: { type: 'invalid_request_error', message: 'no' }, request_id: id }
    expect(verdictOf('messages', 400, body)).toMatchObject({ kind: 'stop', message: 'no', providerRequestId: kept })
  })

  // Word for word what these providers send; the model that they name is often another name of the one that was asked.
  test.each([
    'Rate limit reached for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Used 30000, Requested 1000. Please try again in 2s. Visit https://platform.openai.com/account/rate-limits to learn more.',
    'Rate limit reached for default-gpt-test in organization org-1 on requests per min. Limit: 3 / min. Please try again in 20s. Please add a payment method to your account to start increasing your rate limit. Visit https://platform.openai.com/account/billing to add a payment method.',
    'Too many requests, see https://example.com/account/limits',
  ])('a rate limit that only mentions the account in its advice is of the model: %s', (message) => {
    const verdict = verdictOf('responses', 429, { error: { message, type: 'tokens', code: 'rate_limit_exceeded' } })
    expect(verdict).toMatchObject({ kind: 'pause', billing: 'none' })
    expect(verdict).not.toHaveProperty('wholeLane')
  })

  test('the message is the provider’s, or says that somebody else spoke', () => {
    const messageOf = (status: number, body: object | string, type?: string): string => {
      const found = verdictOf('responses', status, body, type === undefined ? {} : { 'content-type': type })
      return found.kind === 'answer' ? '' : found.message
    }
    expect(messageOf(400, { error: { message: 'No such model' } })).toBe('No such model')
    expect(messageOf(400, [{ error: { message: 'in an array' } }])).toBe('in an array')
    expect(messageOf(401, { error: 'Unauthorized' })).toBe('Unauthorized')
    expect(messageOf(404, { detail: 'Not Found' }, 'application/json')).toBe(
      "HTTP 404 without the provider's error object (application/json): Not Found",
    )
    expect(messageOf(422, { detail: [{ loc: ['body', 'n'], msg: 'too many' }, { msg: 'no model' }] })).toContain(
      'body.n: too many; no model',
    )
    expect(messageOf(400, { object: 'error', message: { detail: [{ msg: 'in Mistral' }] } })).toBe('in Mistral')
    expect(messageOf(400, { errors: [{ code: 7003, message: 'no route' }], success: false })).toContain('no route')
    expect(messageOf(502, 'no healthy upstream', 'text/plain')).toContain('no healthy upstream')
    expect(messageOf(502, '<html>secret</html>', 'text/html')).toBe(
      "HTTP 502 without the provider's error object (text/html)",
    )
    expect(messageOf(500, { error: { message: '' } })).not.toBe('')
  })

  test('a redirect says where to, and what is wrong', () => {
    const found = verdictOf('responses', 301, '', { location: 'https://example.com/v1/' })
    expect(found).toMatchObject({
      message:
        'HTTP 301: the provider redirects to https://example.com/v1/. The base URL of this lane is wrong; redirects are not followed.',
      body: null,
    })
  })

  const bodyOf = (status: number, body: object | string, type?: string) => {
    const found = verdictOf('responses', status, body, type === undefined ? {} : { 'content-type': type })
    return found.kind === 'answer' || found.body === null
      ? null
      : { text: found.body.bytes.toString(), type: found.body.contentType }
  }

  test('a refusal keeps its body, whatever its shape; of a proxy that knows nothing there is none', () => {
    expect(bodyOf(413, '<h1>413</h1>', 'text/html')).toEqual({ text: '<h1>413</h1>', type: 'text/html' })
    expect(bodyOf(422, { detail: [{ msg: 'no' }] }, 'application/json')).toMatchObject({
      text: '{"detail":[{"msg":"no"}]}',
    })
    expect(bodyOf(405, '')).toEqual({ text: '', type: 'text/plain; charset=utf-8' })
    expect(bodyOf(502, '<h1>502</h1>', 'text/html')).toBeNull()
    expect(bodyOf(500, { error: { message: 'x' } })).toMatchObject({ text: '{"error":{"message":"x"}}' })
  })

  test('a body of 100 kB is kept whole, of a larger one the beginning, as text', () => {
    const large = { error: { message: 'x'.repeat(100_000) } }
    expect(bodyOf(400, large)?.text).toBe(JSON.stringify(large))
    const larger = bodyOf(400, { error: { message: 'x'.repeat(300_000) } }, 'application/json')
    expect(larger?.type).toBe('text/plain; charset=utf-8')
    expect(larger?.text).toMatch(/^{"error":{"message":"x{200000}/)
    expect(larger?.text.length).toBeLessThanOrEqual(256 * 1024)
  })

  test('no key is shown: not at the cut, and not behind escapes', () => {
    const atTheCut = `${'x'.repeat(256 * 1024 - 20)} sk-abcdefghijklmnopqrstuvwxyz`
    expect(bodyOf(400, atTheCut)?.text).not.toContain('sk-')
    expect(bodyOf(400, '<p>sk-abcdefghijkl</p>', 'text/html')?.text).toBe('<p>[redacted]</p>')
    const hidden = bodyOf(400, '{"error":{"message":"\\u0073k-abcdefghijkl"}}')
    expect(hidden?.text).toBe('{"error":{"message":"[redacted]"}}')
    const bytes = Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from(' sk-abcdefghijkl')])
    expect(bodyOf(400, bytes.toString('latin1'))?.text).not.toContain('sk-')
  })

  test('the request id comes from the header, or from Anthropic’s body', () => {
    const body = { type: 'error', error: { type: 'api_error', message: 'x' }, request_id: 'req_body' }
    expect(verdictOf('messages', 500, body).providerRequestId).toBe('req_body')
    expect(verdictOf('messages', 500, body, { 'request-id': 'req_header' }).providerRequestId).toBe('req_header')
    expect(verdictOf('responses', 500, '', { 'x-request-id': 'req_x' }).providerRequestId).toBe('req_x')
  })
})

const chat = (finish: string | null, message: object = { content: 'x' }): object => ({
  choices: [{ finish_reason: finish, message }],
})

describe('answers and their flags', () => {
  test.each([
    ['chat.completions', 'stop', chat('stop'), []],
    ['chat.completions', 'tool_calls', chat('tool_calls'), []],
    ['chat.completions', 'no finish_reason (compatible servers)', chat(null), []],
    ['chat.completions', 'length', chat('length'), ['truncated']],
    ['chat.completions', 'content_filter', chat('content_filter'), ['refused']],
    ['chat.completions', 'refusal', chat('stop', { refusal: 'I cannot' }), ['refused']],
    ['chat.completions', 'no refusal', chat('stop', { refusal: null }), []],
    ['responses', 'completed', { status: 'completed', output: [], error: null }, []],
    ['responses', 'no status (compatible servers)', { output: [] }, []],
    [
      'responses',
      'max_output_tokens',
      { status: 'incomplete', output: [], incomplete_details: { reason: 'max_output_tokens' } },
      ['truncated'],
    ],
    [
      'responses',
      'content_filter',
      { status: 'incomplete', output: [], incomplete_details: { reason: 'content_filter' } },
      ['refused'],
    ],
    [
      'responses',
      'refusal',
      { status: 'completed', output: [{ content: [{ type: 'refusal', refusal: 'no' }] }] },
      ['refused'],
    ],
    ['embeddings', 'floats', { data: [{ embedding: [1, 2] }] }, []],
    ['embeddings', 'base64', { data: [{ embedding: 'AACAPw==' }] }, []],
    ['messages', 'end_turn', { content: [{ type: 'text', text: 'x' }], stop_reason: 'end_turn' }, []],
    ['messages', 'nothing to say', { content: [], stop_reason: 'end_turn' }, []],
    ['messages', 'max_tokens', { content: [], stop_reason: 'max_tokens' }, ['truncated']],
    [
      'messages',
      'model_context_window_exceeded',
      { content: [], stop_reason: 'model_context_window_exceeded' },
      ['truncated'],
    ],
    ['messages', 'refusal', { content: [], stop_reason: 'refusal' }, ['refused']],
  ] as const)('%s: %s', (operation, _, body, flags) => {
    expect(verdictOf(operation, 200, body)).toMatchObject({ kind: 'answer', flags })
  })

  test('bytes, status and content type are kept as they came', () => {
    const text = '{ "choices": [ {"finish_reason":"stop"} ]\n}'
    const verdict = verdictOf('chat.completions', 201, text, { 'content-type': 'application/json; charset=utf-8' })
    expect(verdict).toMatchObject({ kind: 'answer', status: 201, contentType: 'application/json; charset=utf-8' })
    expect(verdict.kind === 'answer' && verdict.body.equals(Buffer.from(text))).toBe(true)
  })

  test.each([
    ['chat.completions', 'empty', ''],
    ['chat.completions', 'a page', '<html></html>'],
    ['chat.completions', 'cut off', '{"choices":[{"finish'],
    ['chat.completions', 'null', 'null'],
    ['chat.completions', 'a list', '[]'],
    ['chat.completions', 'an error', { error: { message: 'x' } }],
    ['chat.completions', 'vLLM’s error', { object: 'error', message: 'x' }],
    ['chat.completions', 'no choices', { choices: [] }],
    ['chat.completions', 'an answer to something else', { output: [] }],
    ['responses', 'no output', { status: 'completed' }],
    ['responses', 'failed', { status: 'failed', output: [], error: { code: 'server_error', message: 'x' } }],
    ['responses', 'still running', { status: 'in_progress', output: [] }],
    ['responses', 'queued', { status: 'queued', output: [] }],
    ['responses', 'cancelled', { status: 'cancelled', output: [] }],
    ['embeddings', 'no data', { data: [] }],
    ['embeddings', 'no embedding', { data: [{ embedding: null }] }],
    ['messages', 'no content', { stop_reason: 'end_turn' }],
    ['messages', 'an error', { type: 'error', error: { type: 'x', message: 'x' } }],
  ] as const)('%s: 200 with %s may have been billed', (operation, _, body) => {
    const broken = { kind: 'unknown', billing: 'maybe', code: 'broken_answer', sent: true, providerStatus: 200 }
    expect(verdictOf(operation, 200, body)).toMatchObject(broken)
  })
})
