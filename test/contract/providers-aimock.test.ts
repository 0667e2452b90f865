import { LLMock } from '@copilotkit/aimock'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Operation, Verdict } from '@askonce/core'
import { createProvider, type Provider } from '@askonce/providers'

// A mock of both providers that somebody else wrote: our own upstream shares our idea of their shapes, this one does not.
const mock = new LLMock({ port: 0, logLevel: 'silent' })
let openai: Provider
let anthropic: Provider

beforeAll(async () => {
  mock.onMessage(/hello/, { content: 'Hi there!', usage: { prompt_tokens: 1_000, completion_tokens: 500 } })
  mock.onMessage(/greetings/, { content: 'Hi there!', usage: { input_tokens: 1_000, output_tokens: 500 } })
  mock.onMessage(/endless/, { content: 'and then', finishReason: 'length' })
  mock.onMessage(/overloaded/, { error: { message: 'Overloaded', type: 'overloaded_error' }, status: 529 })
  mock.onMessage(/broken/, { error: { message: 'It broke', type: 'server_error' }, status: 500 })
  mock.onMessage(/limited/, {
    error: { message: 'Slower', type: 'rate_limit_error', code: 'rate_limit_exceeded' },
    status: 429,
    retryAfter: 3,
  })
  mock.onMessage(/empty/, {
    error: { message: 'Pay', type: 'insufficient_quota', code: 'insufficient_quota' },
    status: 429,
  })
  mock.onEmbedding(/vector/, { embedding: [0.1, 0.2, 0.3] })
  await mock.start()
  const options = { simulated: { latencyMs: 0, tokens: 1, failureRate: 0 }, prices: [] }
  openai = createProvider(
    { name: 'openai', kind: 'openai', baseUrl: `${mock.url}/v1`, apiKey: 'key-123456789' },
    options,
  )
  anthropic = createProvider(
    { name: 'anthropic', kind: 'anthropic', baseUrl: mock.url, apiKey: 'key-123456789' },
    options,
  )
})

afterAll(async () => {
  await Promise.all([openai.close(), anthropic.close()])
  await mock.stop()
})

const requests: Record<Operation, (text: string) => { model: string }> = {
  'chat.completions': (content) => ({ model: 'gpt-4o-mini', messages: [{ role: 'user', content }] }),
  responses: (input) => ({ model: 'gpt-4o-mini', input }),
  embeddings: (input) => ({ model: 'text-embedding-3-small', input }),
  messages: (content) => ({ model: 'claude-sonnet-4-0', max_tokens: 100, messages: [{ role: 'user', content }] }),
}

function call(operation: Operation, text: string): Promise<Verdict> {
  const request = requests[operation](text)
  return (operation === 'messages' ? anthropic : openai).call({
    operation,
    model: request.model,
    request: Buffer.from(JSON.stringify(request)),
    timeoutMs: 10_000,
    signal: new AbortController().signal,
  })
}

test.each([
  ['chat.completions', 'hello', 0.00045],
  ['responses', 'greetings', 0.00045],
  ['messages', 'greetings', 0.0105],
] as const)('%s: an answer with its usage and its price', async (operation, text, costUsd) => {
  const verdict = await call(operation, text)
  expect(verdict).toMatchObject({
    kind: 'answer',
    status: 200,
    contentType: 'application/json',
    flags: [],
    usage: { inputTokens: 1_000, outputTokens: 500, costUsd },
  })
  expect(verdict.providerRequestId).toMatch(/^req-/)
  expect(verdict.kind === 'answer' && verdict.body.toString()).toContain('Hi there!')
})

test('embeddings', async () => {
  expect(await call('embeddings', 'vector')).toMatchObject({ kind: 'answer', flags: [], usage: { outputTokens: null } })
})

describe.each(['chat.completions', 'responses', 'messages'] as const)('%s', (operation) => {
  test.each([
    ['endless', { kind: 'answer', flags: ['truncated'] }],
    [
      'overloaded',
      { kind: 'rerun', billing: 'none', code: 'provider_unavailable', overloaded: true, message: 'Overloaded' },
    ],
    ['broken', { kind: 'rerun', billing: 'none', code: 'provider_error', providerStatus: 500 }],
    ['limited', { kind: 'pause', billing: 'none', code: 'provider_rate_limited', retryAfterMs: 3_000 }],
    ['empty', { kind: 'alarm', billing: 'none', code: 'provider_quota' }],
    ['anything else', { kind: 'stop', billing: 'none', code: 'provider_rejected', providerStatus: 404 }],
  ])('%s', async (text, expected) => {
    expect(await call(operation, text)).toMatchObject(expected)
  })
})

test('a refused key is an alarm, and its echo is redacted', async () => {
  const message = 'Incorrect API key provided: sk-abcdefghijklmnop.'
  mock.nextRequestError(401, { message, type: 'invalid_request_error', code: 'invalid_api_key' })
  const verdict = await call('chat.completions', 'hello')
  expect(verdict).toMatchObject({ kind: 'alarm', code: 'provider_auth', billing: 'none' })
  expect('message' in verdict && verdict.message).toBe('Incorrect API key provided: [redacted]')
})

test.each([
  ['a rate limit', { rateLimitRate: 1 }, { kind: 'pause', billing: 'none', retryAfterMs: 1_000 }],
  [
    'malformed JSON',
    { malformedRate: 1 },
    { kind: 'unknown', billing: 'maybe', code: 'broken_answer', providerStatus: 200 },
  ],
  ['a disconnect', { disconnectRate: 1 }, { kind: 'unknown', billing: 'maybe', code: 'connection_lost' }],
])('its chaos: %s', async (_, chaos, expected) => {
  mock.setChaos(chaos)
  try {
    expect(await call('chat.completions', 'hello')).toMatchObject(expected)
  } finally {
    mock.clearChaos()
  }
})
