import { LLMock } from '@copilotkit/aimock'
import Anthropic from '@anthropic-ai/sdk'
import OpenAI from 'openai'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { once } from 'node:events'
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import type { Operation } from '@askonce/core'
import { createProvider, type Provider } from '@askonce/providers'
import { openaiError, startUpstream, type Behaviour, type Upstream } from '@askonce/testkit'
import { apiKey, providerAt, requestOf, stream, streamed } from './providers-stream-bench.ts'

let upstream: Upstream
let providers: Record<(typeof streamed)[number], Provider>
let before: number

beforeAll(async () => {
  upstream = await startUpstream({ chunks: 3 })
  providers = {
    'chat.completions': providerAt(upstream.url, 'chat.completions'),
    responses: providerAt(upstream.url, 'responses'),
    messages: providerAt(upstream.url, 'messages'),
  }
})

beforeEach(() => {
  before = upstream.calls()
  upstream.script([])
})

afterAll(async () => {
  await Promise.all(Object.values(providers).map((provider) => provider.close()))
  await upstream.close()
})

const ask = (operation: (typeof streamed)[number], more: Parameters<typeof stream>[2] = {}) =>
  stream(providers[operation], operation, more)
const unknown = { kind: 'unknown', billing: 'maybe', sent: true, body: null }

/** How many events each answer in three pieces has in all, and how many of them may be shown. */
const lengths = {
  'chat.completions': { all: 7, open: 4, ending: 'data: {"id":"chatcmpl-' },
  responses: { all: 11, open: 10, ending: 'event: response.completed\n' },
  messages: { all: 9, open: 7, ending: 'event: message_delta\n' },
}
const countOf = (text: string): number => text.split('\n\n').length - 1

describe.each(streamed)('%s from the counting upstream', (operation) => {
  const { all, open, ending } = lengths[operation]

  test('a stream is an answer, counted once, with the usage and the id of the plain one', async () => {
    const { verdict, shown, ids } = await ask(operation)
    const plain = await providers[operation].call({
      operation,
      model: 'gpt-4o-mini',
      request: Buffer.from('{"model":"gpt-4o-mini"}'),
      timeoutMs: 5_000,
      signal: new AbortController().signal,
    })
    expect([verdict.kind, plain.kind, upstream.calls() - before]).toEqual(['answer', 'answer', 2])
    const body = verdict.kind === 'answer' ? verdict.body.toString() : ''
    expect([countOf(body), countOf(shown), body.startsWith(shown + ending)]).toEqual([all, open, true])
    expect(verdict).toMatchObject({ flags: [], contentType: 'text/event-stream; charset=utf-8', answerId: ids[0] })
    expect(verdict.providerRequestId).toMatch(/^req_\d+$/)
    expect(ids).toHaveLength(1)
    expect(plain).toMatchObject({ answerId: expect.stringMatching(/^(chatcmpl-|resp_|msg_)\d+$/) as string })
    // Only the length of the request differs, from which the upstream counts its input.
    const outputTokens = plain.kind === 'answer' && plain.usage.outputTokens
    expect(verdict).toMatchObject({ usage: { outputTokens, inputTokens: expect.any(Number) as number } })
  })

  test.each<[string, Behaviour, number | undefined, string]>([
    ['cut', { kind: 'cut', after: 'half' }, undefined, 'broken_answer'],
    ['cut after its head', { kind: 'cut', after: 'head' }, 0, 'broken_answer'],
    ['cut before it', { kind: 'cut', after: 'nothing' }, 0, 'connection_lost'],
    ['cut after two events', { kind: 'cut', after: 'half', afterEvents: 2 }, 2, 'broken_answer'],
    ['unfinished', { kind: 'unfinished' }, undefined, 'broken_answer'],
    [
      'unfinished before its last event to be shown',
      { kind: 'unfinished', afterEvents: open - 1 },
      open - 1,
      'broken_answer',
    ],
    ['with an error', { kind: 'stream_error' }, undefined, 'broken_answer'],
    ['with an error after one event', { kind: 'stream_error', afterEvents: 1 }, 1, 'broken_answer'],
    ['reset', { kind: 'reset' }, 0, 'connection_lost'],
    ['garbage', { kind: 'garbage' }, 0, 'broken_answer'],
  ])('%s: may have been billed', async (_, behaviour, count = Math.floor(all / 2), code) => {
    upstream.script([behaviour])
    const { verdict, shown } = await ask(operation)
    expect(verdict).toMatchObject({ ...unknown, code })
    expect(countOf(shown)).toBe(count)
    expect(upstream.calls() - before).toBe(behaviour.kind === 'reset' ? 0 : 1)
  })

  test('the error in a stream is the provider’s own', async () => {
    upstream.script([{ kind: 'stream_error' }])
    const message = expect.stringContaining('The server had an error') as string
    expect((await ask(operation)).verdict).toMatchObject({ ...unknown, message })
  })

  test('held after some events: they are shown, then it goes on', async () => {
    const held = upstream.hold({}, 2)
    const shown: string[] = []
    const call = ask(operation, { onEvents: (events) => shown.push(events.toString()) })
    await held.arrived(1)
    await expect.poll(() => countOf(shown.join(''))).toBe(2)
    held.release()
    const { verdict } = await call
    expect([verdict.kind, countOf(shown.join(''))]).toEqual(['answer', open])
  })

  test('held for ever after some events, and given up: the upstream sees it', async () => {
    upstream.script([{ kind: 'hang', afterEvents: open }])
    const abort = new AbortController()
    let count = 0
    const call = ask(operation, {
      signal: abort.signal,
      onEvents: (events) => {
        count += countOf(events.toString())
        if (count === open) abort.abort()
      },
    })
    expect((await call).verdict).toMatchObject({ ...unknown, code: 'connection_lost', providerStatus: 200 })
    await expect.poll(() => upstream.inFlight()).toBe(0)
  })

  test('a refusal is classified as ever, with its body', async () => {
    const error = openaiError('rate_limit_error', 'rate_limit_exceeded')
    upstream.script([{ kind: 'refuse', status: 429, body: error, headers: { 'retry-after': '2' } }])
    const { verdict, order } = await ask(operation)
    expect(verdict).toMatchObject({ kind: 'pause', billing: 'none', retryAfterMs: 2_000, providerStatus: 429 })
    expect(verdict).toMatchObject({
      body: { bytes: Buffer.from(JSON.stringify(error)), contentType: 'application/json' },
    })
    expect(order).toEqual([])
  })

  test('as many pieces as asked for, in their time', async () => {
    upstream.script([{ kind: 'answer', chunks: 8, chunkDelayMs: 5, answerBytes: 80 }])
    const started = performance.now()
    const { verdict, shown, order } = await ask(operation)
    expect([verdict.kind, countOf(shown)]).toEqual(['answer', open + 5])
    expect(performance.now() - started).toBeGreaterThan(5 * 8)
    expect(order.length, 'they came one by one').toBeGreaterThan(4)
  })

  test('scripted events and bytes', async () => {
    upstream.script([
      { kind: 'answer', events: [{ type: 'ping' }] },
      { kind: 'answer', body: ': only this\n\n' },
    ])
    const name = operation === 'chat.completions' ? '' : 'event: ping\n'
    expect(await ask(operation)).toMatchObject({ verdict: unknown, shown: `${name}data: {"type":"ping"}\n\n` })
    expect(await ask(operation)).toMatchObject({ verdict: unknown, shown: ': only this\n\n' })
  })
})

describe('what goes out', () => {
  test.each([
    ['chat.completions', { stream_options: { include_usage: false, x: 1 } }, { include_usage: true, x: 1 }],
    ['chat.completions', {}, { include_usage: true }],
    ['responses', {}, undefined],
    ['messages', {}, undefined],
  ] as const)('%s with %j asks for its usage', async (operation, more, expected) => {
    let options: unknown
    upstream.script(({ json }) => {
      options = json['stream_options']
      return undefined
    })
    await ask(operation, { request: requestOf(more) })
    expect(options).toEqual(expected)
  })

  test('a call that is not streamed is sent as it is', async () => {
    const request = Buffer.from('{"model":"m","user":"plain"}')
    let seen: Buffer | undefined
    upstream.script(({ body }) => {
      seen = body
      return undefined
    })
    const signal = new AbortController().signal
    const operation = 'chat.completions'
    await providers[operation].call({ operation, model: 'm', request, timeoutMs: 5_000, signal })
    expect(seen).toEqual(request)
  })
})

describe('the body of a refusal', () => {
  const refused = async (body: object | string, status = 400) => {
    upstream.script([{ kind: 'refuse', status, body }])
    const { verdict } = await ask('chat.completions')
    if (verdict.kind === 'answer') throw new Error('an answer')
    return verdict.body === null ? null : verdict.body.bytes.toString()
  }
  const withMessage = (message: string) => JSON.stringify(openaiError('invalid_request_error', null, message))

  test('is kept byte for byte', async () => {
    const text = ` {"error": {"message": "é \\u00e9", "type": null}}\n`
    expect(await refused(text)).toBe(text)
  })

  test.each([
    ['the key', `no key ${apiKey}`, 'no key [redacted]'],
    ['the key, cut short', `no key ${apiKey.slice(0, 9)}`, 'no key [redacted]'],
    ['something like a key, quoted', 'no key "sk-abcdefgh" here', 'no key "[redacted]" here'],
    ['a masked one, quoted', 'no key "ab****yz" here', 'no key "[redacted]" here'],
  ])('without %s', async (_, message, shown) => {
    expect(await refused(withMessage(message), 401)).toBe(withMessage(shown))
  })

  test.each([
    ['a page', '<html>'],
    ['JSON without an error object', '{"detail":"Not Found"}'],
    ['a hundred thousand bytes', withMessage('x'.repeat(100_000))],
  ])('is kept whatever its shape: %s', async (_, body) => {
    expect(await refused(body)).toBe(body)
  })

  test('that nests as deep as it can is a refusal like any other, told by its message', async () => {
    const deep = `${'['.repeat(100_000)}${']'.repeat(100_000)}`
    const body = `{"error":{"message":"too deep","x":${deep}}}`
    expect(await refused(body)).toBe(JSON.stringify({ error: { message: 'too deep' } }))
  })

  test('of more than 256 KiB its beginning is kept', async () => {
    const body = withMessage('x'.repeat(256 * 1024))
    const kept = await refused(body)
    expect(body.startsWith(kept ?? 'nothing')).toBe(true)
    expect(kept?.length).toBeGreaterThan(255 * 1024)
  })

  test('is replaced by its message where escapes hide a key', async () => {
    const body = withMessage('no key').replace('no key', String.raw`no key \u0073k-abcdefgh`)
    expect(await refused(body)).toBe(JSON.stringify({ error: { message: 'no key [redacted]' } }))
  })
})

/** A server that answers with what the simulated provider says. */
async function simulatedServer(): Promise<string> {
  const simulated = { latencyMs: 30, tokens: 12, failureRate: 0 }
  const provider = createProvider(
    { name: 's', kind: 'simulated', baseUrl: null, apiKey: null },
    { simulated, prices: [] },
  )
  const operations: Record<string, Operation> = {
    '/v1/chat/completions': 'chat.completions',
    '/v1/responses': 'responses',
    '/v1/messages': 'messages',
  }
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const body = Buffer.concat(chunks)
    let sent = 0
    const onEvents = (events: Buffer): void => {
      sent += events.length
      response.write(events)
    }
    const verdict = await provider.call({
      operation: operations[request.url ?? ''] ?? 'embeddings',
      model: 'simulated/a',
      request: body,
      timeoutMs: 5_000,
      signal: new AbortController().signal,
      ...((JSON.parse(body.toString()) as { stream?: boolean }).stream === true ? { stream: { onEvents } } : {}),
    })
    if (verdict.kind !== 'answer') return void response.destroy()
    if (sent === 0) response.writeHead(200, { 'content-type': verdict.contentType })
    response.end(verdict.body.subarray(sent))
  }
  const server = createServer((request, response) => void answer(request, response))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(async () => {
    server.close()
    await provider.close()
  })
  const address = server.address()
  return `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`
}

describe.each([
  ['the counting upstream', async () => upstream.url],
  ['the simulated provider', simulatedServer],
] as const)('the stock SDKs read the streams of %s, and end with the plain answer', (_, start) => {
  const messages = [{ role: 'user' as const, content: 'hello' }]
  const model = 'gpt-4o-mini'

  test('openai, chat completions', async () => {
    const client = new OpenAI({ baseURL: `${await start()}/v1`, apiKey: 'k', maxRetries: 0 })
    const plain = await client.chat.completions.create({ model, messages })
    const options = { stream_options: { include_usage: true } }
    const running = client.chat.completions.stream({ model, messages, ...options })
    const pieces: string[] = []
    running.on('content', (delta) => pieces.push(delta))
    const final = await running.finalChatCompletion()
    const text = final.choices[0]?.message.content ?? ''
    expect([pieces.length > 1, pieces.join('')]).toEqual([true, text])
    expect(numbersAway(final)).toMatchObject(numbersAway({ ...plain, created: final.created }))
    expect(final.usage).toEqual({
      prompt_tokens: expect.any(Number) as number,
      completion_tokens: plain.usage?.completion_tokens,
      total_tokens: expect.any(Number) as number,
    })
  })

  test('openai, responses', async () => {
    const client = new OpenAI({ baseURL: `${await start()}/v1`, apiKey: 'k', maxRetries: 0 })
    const plain = await client.responses.create({ model, input: 'hello' })
    const running = client.responses.stream({ model, input: 'hello' })
    const pieces: string[] = []
    running.on('response.output_text.delta', ({ delta }) => pieces.push(delta))
    const final = await running.finalResponse()
    expect([pieces.length > 1, pieces.join('')]).toEqual([true, final.output_text])
    expect(numbersAway(final)).toMatchObject(numbersAway({ ...plain, created_at: final.created_at }))
  })

  test('anthropic, messages', async () => {
    const client = new Anthropic({ baseURL: await start(), apiKey: 'k', maxRetries: 0 })
    const plain = await client.messages.create({ model, max_tokens: 100, messages })
    const running = client.messages.stream({ model, max_tokens: 100, messages })
    const pieces: string[] = []
    running.on('text', (delta) => pieces.push(delta))
    const final = await running.finalMessage()
    const [block] = final.content
    expect([pieces.length > 1, pieces.join('')]).toEqual([true, block?.type === 'text' && block.text])
    expect(numbersAway(final)).toMatchObject(numbersAway(plain))
    expect(final.usage.output_tokens).toBe(plain.usage.output_tokens)
  })
})

/** Two calls of the upstream differ in their number alone, and in the length of the request, which it counts as input. */
function numbersAway(answer: object): object {
  const text = JSON.stringify(answer, (name, value: unknown) => (name === 'usage' ? undefined : value))
  return JSON.parse(text.replaceAll(/(call |chatcmpl-|resp_|msg_)\d+/g, '$1N').replaceAll(/N x+/g, 'N')) as object
}

test('streams of a mock that somebody else wrote become answers', async () => {
  const mock = new LLMock({ port: 0, logLevel: 'silent', chunkSize: 4 })
  mock.onMessage(/hello/, { content: 'Hi there!', usage: { prompt_tokens: 1_000, completion_tokens: 500 } })
  mock.onMessage(/greetings/, { content: 'Hi there!', usage: { input_tokens: 1_000, output_tokens: 500 } })
  await mock.start()
  onTestFinished(() => mock.stop())
  for (const [operation, content, asks] of [
    ['chat.completions', 'hello', {}],
    ['responses', 'greetings', { input: 'greetings' }],
    ['messages', 'greetings', { model: 'claude-sonnet-4-0', max_tokens: 100 }],
  ] as const) {
    const provider = providerAt(mock.url, operation)
    const request = requestOf({ messages: [{ role: 'user', content }], ...asks })
    const { verdict, shown, ids } = await stream(provider, operation, { request })
    await provider.close()
    expect(verdict).toMatchObject({ kind: 'answer', flags: [], contentType: 'text/event-stream', answerId: ids[0] })
    expect(verdict).toMatchObject({ usage: { inputTokens: 1_000, outputTokens: 500 } })
    expect([ids.length, shown.includes('Hi t')]).toEqual([1, true])
    expect(verdict.kind === 'answer' && verdict.body.toString().startsWith(shown)).toBe(true)
  }
})
