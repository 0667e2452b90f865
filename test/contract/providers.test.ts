import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Operation } from '@askonce/core'
import { createProvider, type Provider, type ProviderCall } from '@askonce/providers'
import { startUpstream, type Upstream } from '@askonce/testkit'
import { gzipSync } from 'node:zlib'
import { answered, broken } from './providers-answers.ts'
import { cases, type RealKind } from './providers-lines.ts'

const kinds = ['openai', 'anthropic'] as const
const options = { simulated: { latencyMs: 0, tokens: 1, failureRate: 0 }, prices: [] }
const operationOf: Record<RealKind, Operation> = { openai: 'chat.completions', anthropic: 'messages' }

let upstream: Upstream
let providers: Record<RealKind, Provider>
let before: number

beforeAll(async () => {
  upstream = await startUpstream()
  const lane = (kind: RealKind, baseUrl: string): Provider =>
    createProvider({ name: kind, kind, baseUrl, apiKey: 'test-key-1234567890' }, options)
  providers = {
    openai: lane('openai', upstream.openaiBaseUrl),
    anthropic: lane('anthropic', `${upstream.anthropicBaseUrl}/`),
  }
})

beforeEach(() => {
  before = upstream.calls()
  upstream.script([])
})

afterAll(async () => {
  await Promise.all(kinds.map((kind) => providers[kind].close()))
  await upstream.close()
})

function call(kind: RealKind, more: Partial<ProviderCall> = {}): ReturnType<Provider['call']> {
  const operation = more.operation ?? operationOf[kind]
  const request = Buffer.from(JSON.stringify({ model: 'gpt-4o-mini', user: 'someone' }))
  const signal = new AbortController().signal
  return providers[kind].call({ operation, model: 'gpt-4o-mini', request, timeoutMs: 5_000, signal, ...more })
}

describe('every line of ERRORS.md over a socket', () => {
  test.each(cases)('$kind: $name', async ({ kind, refuse, verdict }) => {
    upstream.script([{ kind: 'refuse', ...refuse }])
    expect(await call(kind, { model: 'gpt-test' })).toMatchObject({
      ...verdict,
      sent: true,
      providerStatus: refuse.status,
    })
    expect(upstream.calls() - before, 'billed by the upstream').toBe(refuse.billed ? 1 : 0)
  })

  test.each(answered)('$kind: 200 $name is an answer, flagged $flags', async ({ kind, body, flags }) => {
    upstream.script([{ kind: 'answer', body: JSON.stringify(body) }])
    expect(await call(kind)).toMatchObject({ kind: 'answer', flags })
  })

  describe.each(kinds)('%s', (kind) => {
    test.each(broken)('$name may have been billed', async ({ behaviour, code, status }) => {
      upstream.script([behaviour])
      const verdict = { kind: 'unknown', billing: 'maybe', sent: true, code, providerStatus: status }
      expect(await call(kind)).toMatchObject(verdict)
    })
  })

  test('an answer of 20 MB is stored like any other', async () => {
    upstream.script([{ kind: 'answer', answerBytes: 20_000_000 }])
    const verdict = await call('openai')
    expect(verdict.kind === 'answer' && verdict.body.length).toBeGreaterThan(20_000_000)
  })
})

describe('what goes out', () => {
  test.each([
    ['openai', 'chat.completions', '/v1/chat/completions'],
    ['openai', 'responses', '/v1/responses'],
    ['openai', 'embeddings', '/v1/embeddings'],
    ['anthropic', 'messages', '/v1/messages'],
  ] as const)('%s %s: exact bytes to %s, and the exact bytes back', async (kind, operation, path) => {
    const request = Buffer.from(`{ "model":"gpt-4o-mini",\n "user": "${operation}", "big": 9007199254740993 }`)
    let seen: { path: string; body: Buffer; headers: Record<string, unknown> } | undefined
    upstream.script((arrival) => {
      seen = arrival
      return undefined
    })
    let sent = 0
    const verdict = await call(kind, { operation, request, onSent: () => (sent += 1) })
    expect(verdict).toMatchObject({ kind: 'answer', status: 200, contentType: 'application/json', flags: [] })
    expect(verdict.providerRequestId).toMatch(/^req_\d+$/)
    expect(sent).toBe(1)
    expect(seen?.path).toBe(path)
    expect(seen?.body.equals(request)).toBe(true)
    const expected = { 'user-agent': 'askonce/0.1', 'accept-encoding': 'identity', 'content-type': 'application/json' }
    const credentials =
      kind === 'openai'
        ? { authorization: 'Bearer test-key-1234567890' }
        : { 'x-api-key': 'test-key-1234567890', 'anthropic-version': '2023-06-01' }
    expect(seen?.headers).toMatchObject({ ...expected, ...credentials })
    expect(upstream.callsBy().get(operation)).toBe(1)
  })

  test('no credentials without a key', async () => {
    const provider = createProvider(
      { name: 'ollama', kind: 'openai', baseUrl: upstream.openaiBaseUrl, apiKey: null },
      options,
    )
    let headers: Record<string, unknown> = {}
    upstream.script((arrival) => {
      headers = arrival.headers
      return undefined
    })
    const request = Buffer.from('{"model":"llama3"}')
    const signal = new AbortController().signal
    const verdict = await provider.call({
      operation: 'chat.completions',
      model: 'llama3',
      request,
      timeoutMs: 5_000,
      signal,
    })
    expect(verdict).toMatchObject({ kind: 'answer', usage: { costUsd: null } })
    expect(headers).not.toHaveProperty('authorization')
    await provider.close()
  })

  test.each([
    ['openai', 'messages'],
    ['anthropic', 'chat.completions'],
    ['anthropic', 'responses'],
    ['anthropic', 'embeddings'],
  ] as const)('%s has no operation %s: nothing is sent', async (kind, operation) => {
    const arrivals = upstream.arrivals()
    const verdict = await call(kind, { operation })
    expect(verdict).toMatchObject({ kind: 'stop', billing: 'none', sent: false, code: 'provider_rejected' })
    expect(upstream.arrivals()).toBe(arrivals)
  })

  test('a redirect is not followed', async () => {
    const arrivals = upstream.arrivals()
    upstream.script([{ kind: 'refuse', status: 307, body: '', headers: { location: '/v1/chat/completions' } }])
    await call('openai')
    expect(upstream.arrivals() - arrivals).toBe(1)
  })

  test('an answer compressed against our wish is decoded', async () => {
    const plain = Buffer.from('{"choices":[{"finish_reason":"stop"}]}')
    const { createServer } = await import('node:http')
    const server = createServer((request, response) => {
      request.resume().once('end', () => {
        const damaged = request.url === '/v1/responses'
        response.writeHead(200, { 'content-encoding': 'gzip' }).end(damaged ? 'not gzip' : gzipSync(plain))
      })
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    const baseUrl = `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}/v1`
    const provider = createProvider({ name: 'openai', kind: 'openai', baseUrl, apiKey: null }, options)
    const base = { model: 'm', request: Buffer.from('{}'), timeoutMs: 5_000, signal: new AbortController().signal }
    expect(await provider.call({ operation: 'chat.completions', ...base })).toMatchObject({
      kind: 'answer',
      body: plain,
    })
    const damaged = { kind: 'unknown', billing: 'maybe', sent: true, code: 'broken_answer', providerStatus: 200 }
    expect(await provider.call({ operation: 'responses', ...base })).toMatchObject(damaged)
    await provider.close()
    await new Promise((resolve) => server.close(resolve))
  })
})

test('held calls are counted before they are answered', async () => {
  const held = upstream.hold({ marker: 'held' })
  const request = Buffer.from('{"model":"m","user":"held"}')
  const calls = [1, 2, 3].map(() => call('openai', { request }))
  await held.arrived(3)
  expect([upstream.calls() - before, upstream.inFlight()]).toEqual([3, 3])
  held.release()
  expect((await Promise.all(calls)).map((verdict) => verdict.kind)).toEqual(['answer', 'answer', 'answer'])
  expect(upstream.callsBy().get('held')).toBe(3)
})
