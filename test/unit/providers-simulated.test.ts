import { describe, expect, test } from 'vitest'
import type { AnswerVerdict, Operation, Verdict } from '@askonce/core'
import { createProvider, type ProviderCall } from '@askonce/providers'
import { parseBaseUrl, requestHeaders } from '../../packages/providers/src/endpoint.ts'

const lane = { name: 'simulated', kind: 'simulated', baseUrl: null, apiKey: null } as const

function simulate(
  request: object,
  options: { operation?: Operation; latencyMs?: number; tokens?: number; failureRate?: number } = {},
  more: Partial<ProviderCall> = {},
): Promise<Verdict> {
  const { operation = 'chat.completions', latencyMs = 0, tokens = 20, failureRate = 0 } = options
  return createProvider(lane, { simulated: { latencyMs, tokens, failureRate }, prices: [] }).call({
    operation,
    model: 'simulated/a',
    request: Buffer.from(JSON.stringify({ model: 'simulated/a', ...request })),
    timeoutMs: 1_000,
    signal: new AbortController().signal,
    ...more,
  })
}

async function answerOf(
  request: object,
  operation: Operation = 'chat.completions',
): Promise<AnswerVerdict & { json: Json }> {
  const verdict = await simulate(request, { operation })
  if (verdict.kind !== 'answer') throw new Error(verdict.message)
  return { ...verdict, json: JSON.parse(verdict.body.toString()) as Json }
}

interface Json {
  id: string
  model: string
  system_fingerprint: string
  choices: { message: { content: string } }[]
  data: { embedding: number[] | string; index: number }[]
}

describe('answers', () => {
  test.each(['chat.completions', 'responses', 'messages', 'embeddings'] as const)('%s', async (operation) => {
    const { json, flags, usage, providerRequestId } = await answerOf({ input: 'x' }, operation)
    expect(json).toMatchObject({ model: 'simulated/a', system_fingerprint: 'simulated' })
    expect(json.id).toMatch(/^sim_/)
    expect(providerRequestId).toMatch(/^sim-/)
    expect(flags).toEqual(['simulated'])
    expect(usage).toEqual({
      inputTokens: Math.ceil(Buffer.byteLength(JSON.stringify({ model: 'simulated/a', input: 'x' })) / 4),
      outputTokens: operation === 'embeddings' ? null : 20,
      costUsd: 0,
    })
  })

  test('the same request has the same text, another one another', async () => {
    const textOf = async (content: string): Promise<string | undefined> =>
      (await answerOf({ messages: [{ role: 'user', content }] })).json.choices[0]?.message.content
    expect(await textOf('a')).toBe(await textOf('a'))
    expect(await textOf('a')).not.toBe(await textOf('b'))
    expect((await textOf('a'))?.split(' ')).toHaveLength(20)
  })

  test('embeddings: one for each input, as long and in the form that is asked for', async () => {
    const plain = await answerOf({ input: ['a', 'b', 'a'] }, 'embeddings')
    expect(plain.json.data.map(({ index }) => index)).toEqual([0, 1, 2])
    const [a, b, again] = plain.json.data.map(({ embedding }) => embedding)
    expect(a).toHaveLength(8)
    expect(again).toEqual(a)
    expect(b).not.toEqual(a)
    const asked = await answerOf({ input: [1, 2, 3], dimensions: 16, encoding_format: 'base64' }, 'embeddings')
    expect(asked.json.data).toHaveLength(1)
    expect(Buffer.from(String(asked.json.data[0]?.embedding), 'base64')).toHaveLength(64)
  })

  test('a request that is no object is refused like by anybody', async () => {
    const verdict = await simulate({}, {}, { request: Buffer.from('[]') })
    expect(verdict).toMatchObject({ kind: 'stop', billing: 'none', providerStatus: 400 })
  })
})

test('failures are those of a real provider, and never billed', async () => {
  const verdicts = await Promise.all(Array.from({ length: 100 }, () => simulate({}, { failureRate: 1 })))
  const seen = new Set(verdicts.map((verdict) => (verdict.kind === 'answer' ? 'answer' : verdict.code)))
  expect([...seen].toSorted()).toEqual(['provider_error', 'provider_rate_limited', 'provider_unavailable'])
  expect(verdicts.every((verdict) => verdict.kind !== 'answer' && verdict.billing === 'none' && verdict.sent)).toBe(
    true,
  )
  const limited = verdicts.find((verdict) => verdict.kind === 'pause')
  expect(limited).toMatchObject({ retryAfterMs: 1_000 })
})

test('a model of another provider is not answered, and nothing is sent', async () => {
  for (const model of ['gpt-4.1', 'claude-x', 'simulated', 'SIMULATED/a']) {
    const verdict = await simulate({}, {}, { model })
    expect(verdict).toMatchObject({ kind: 'stop', billing: 'none', sent: false, code: 'provider_rejected' })
    expect(verdict).toMatchObject({ message: expect.stringContaining(JSON.stringify(model)) as string })
  }
})

describe('no complete answer', () => {
  test('timeout', async () => {
    const verdict = await simulate({}, { latencyMs: 10_000 }, { timeoutMs: 20 })
    expect(verdict).toMatchObject({ kind: 'unknown', billing: 'maybe', sent: true, code: 'timeout' })
  })

  test('aborted before and after sending', async () => {
    const before = await simulate({}, {}, { signal: AbortSignal.abort() })
    expect(before).toMatchObject({ kind: 'rerun', billing: 'none', sent: false, code: 'not_sent' })
    const abort = new AbortController()
    const after = await simulate(
      {},
      { latencyMs: 10_000 },
      { signal: abort.signal, onSent: () => queueMicrotask(() => abort.abort()) },
    )
    expect(after).toMatchObject({ kind: 'unknown', billing: 'maybe', sent: true, code: 'connection_lost' })
  })

  test('close() ends what is in flight', async () => {
    const provider = createProvider(lane, { simulated: { latencyMs: 10_000, tokens: 1, failureRate: 0 }, prices: [] })
    const base = {
      operation: 'responses',
      model: 'simulated/m',
      request: Buffer.from('{}'),
      timeoutMs: 20_000,
    } as const
    const verdict = provider.call({ ...base, signal: new AbortController().signal })
    await provider.close()
    expect(await verdict).toMatchObject({ kind: 'unknown', sent: true, code: 'connection_lost' })
    const late = await provider.call({ ...base, signal: new AbortController().signal })
    expect(late).toMatchObject({ kind: 'rerun', sent: false, code: 'connection_failed' })
  })
})

test('what can never make a request is refused at start-up', () => {
  expect(parseBaseUrl('openai', 'http://[::1]:8000/v1/')).toEqual({ origin: 'http://[::1]:8000', pathPrefix: '/v1' })
  expect(parseBaseUrl('anthropic', null)).toEqual({ origin: 'https://api.anthropic.com', pathPrefix: '' })
  for (const url of ['localhost:8000', 'ftp://x/v1', 'not a url', 'https://user:pw@x/v1', 'https://x/v1?a=b']) {
    expect(() => parseBaseUrl('openai', url), url).toThrow(TypeError)
  }
  for (const key of ['', 'with space', 'line\nbreak', 'schlüssel']) {
    expect(() => requestHeaders('openai', key), key).toThrow(TypeError)
  }
})
