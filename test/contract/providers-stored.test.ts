import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createProvider, type Provider, type StoredAnswers } from '@askonce/providers'
import { startUpstream, type Upstream } from '@askonce/testkit'

let upstream: Upstream
let provider: Provider
let stored: StoredAnswers
beforeAll(async () => {
  upstream = await startUpstream()
  provider = openai(upstream.openaiBaseUrl, true)
  if (provider.stored === null) throw new Error('no look-ups')
  stored = provider.stored
})
afterAll(async () => {
  await provider.close()
  await upstream.close()
})

function openai(baseUrl: string, lookUp: boolean, kind: 'openai' | 'anthropic' = 'openai'): Provider {
  const options = { simulated: { latencyMs: 0, tokens: 1, failureRate: 0 }, prices: [] }
  return createProvider({ name: 'openai', kind, baseUrl, apiKey: null, lookUp }, options)
}

const marked = (text: string): string | undefined =>
  stored.marked('chat.completions', Buffer.from(text), 'j.1')?.toString()
const name = '"askonce_attempt":"j.1"'
const pairs = (count: number): string => Array.from({ length: count }, (_, at) => `"k${at}":"v"`).join(',')

describe('the request as it leaves', () => {
  test.each([
    ['no metadata', '{"store":true,"model":"m"}', `{"metadata":{${name}},"store":true,"model":"m"}`],
    ['empty metadata', '{"metadata":{ },"store":true}', `{"metadata":{${name} },"store":true}`],
    ['one pair', '{"store":true,"metadata":{"a":"b"}}', `{"store":true,"metadata":{${name},"a":"b"}}`],
    ['15 pairs', `{"store":true,"metadata":{${pairs(15)}}}`, `{"store":true,"metadata":{${name},${pairs(15)}}}`],
    [
      'white space, exact numbers, escapes and the same text elsewhere',
      ' {\n "seed": 12345678901234567890, "top_p": 1.0e0, "user": "\\u00e9 \\"metadata\\":{}", "tools":[{"metadata":{}}],\n "metadata" : {"a":"é"}, "store" : true }',
      ` {\n "seed": 12345678901234567890, "top_p": 1.0e0, "user": "\\u00e9 \\"metadata\\":{}", "tools":[{"metadata":{}}],\n "metadata" : {${name},"a":"é"}, "store" : true }`,
    ],
  ])('%s: one member more, every other character as it was', (_, given, expected) => {
    expect(marked(given)).toBe(expected)
  })

  test.each([
    ['nobody asked to store it', '{"model":"m","user":"\\"store\\":true"}'],
    ['store is false', '{"store":false}'],
    ['store is deeper', '{"a":{"store":true}}'],
    ['16 pairs', `{"store":true,"metadata":{${pairs(16)}}}`],
    ['the name is taken', '{"store":true,"metadata":{"askonce_attempt":"mine"}}'],
    ['metadata is no object', '{"store":true,"metadata":null}'],
    ['metadata is a number beyond a double', '{"store":true,"metadata":12345678901234567890}'],
    ['not JSON', '{"store":true'],
  ])('%s: sent as it is', (_, given) => {
    expect(marked(given)).toBeUndefined()
  })

  test('only chat completions, and not UTF-8 repaired on the way', () => {
    expect(stored.marked('responses', Buffer.from('{"store":true}'), 'j.1')).toBeNull()
    const broken = Buffer.concat([Buffer.from('{"store":true,"user":"'), Buffer.from([0xff]), Buffer.from('"}')])
    expect(stored.marked('chat.completions', broken, 'j.1')).toBeNull()
  })

  test('off unless it is switched on, and only for kind openai', async () => {
    const others = [openai(upstream.openaiBaseUrl, false), openai(upstream.anthropicBaseUrl, true, 'anthropic')]
    expect(others.map((other) => other.stored)).toEqual([null, null])
    for (const other of others) await other.close()
  })
})

describe('the look-up', () => {
  const never = new AbortController().signal
  const send = (attempt: string, from: Provider = provider) =>
    from.call({
      operation: 'chat.completions',
      model: 'm',
      request: stored.marked('chat.completions', Buffer.from('{"model":"m","store":true}'), attempt) ?? Buffer.alloc(0),
      timeoutMs: 5_000,
      signal: never,
    })
  const lost = (mark: string) => ({ mark, model: 'm', request: Buffer.from('{"model":"m","store":true}') })
  const find = (mark: string) => stored.find(lost(mark), 2_000, never)

  test('finds the answer of the attempt that was asked for, also when its connection broke, and is no call', async () => {
    upstream.script([{ kind: 'cut', after: 'nothing' }])
    expect(await send('a.1')).toMatchObject({ kind: 'unknown', billing: 'maybe' })
    const other = await send('a.2')
    const calls = upstream.calls()
    const found = await find('a.1')
    expect(found).toMatchObject({ kind: 'answer', status: 200, usage: { outputTokens: 16 } })
    expect(found).not.toMatchObject({ body: (other as { body: Buffer }).body })
    expect(await find('a.2')).toMatchObject({ body: (other as { body: Buffer }).body })
    expect(upstream.calls()).toBe(calls)
  })

  test('absent: the provider has none, or none yet', async () => {
    upstream.script([{ kind: 'hang', storedAfterMs: 60_000 }])
    const abort = new AbortController()
    const request = stored.marked('chat.completions', Buffer.from('{"store":true}'), 'b.1') ?? Buffer.alloc(0)
    const call = provider.call({
      operation: 'chat.completions',
      model: 'm',
      request,
      timeoutMs: 5_000,
      signal: abort.signal,
    })
    await upstream.waitForCalls(upstream.calls() + 1, 5_000).catch(() => undefined)
    expect([await find('b.1'), await find('nobody.1')]).toEqual(['absent', 'absent'])
    abort.abort()
    await call
  })

  test.each([401, 404, 500])('failed: the list is answered with %i', async (status) => {
    await send(`c.${status}`)
    upstream.script([{ kind: 'look_up_fails', status }])
    expect(await find(`c.${status}`)).toBe('failed')
    expect(await find(`c.${status}`)).toMatchObject({ kind: 'answer' })
  })

  test('failed: a server that ignores the filter, or lists nothing that is a list', async () => {
    const { createServer } = await import('node:http')
    const other = '{"id":"x","metadata":{"askonce_attempt":"z.9"},"choices":[{"finish_reason":"stop"}]}'
    const lists = [`{"data":[${other}]}`, '{"data":[{"id":"x"}]}', '{}', 'no']
    const server = createServer((request, response) =>
      response.end(request.url?.includes('?') === true ? lists.shift() : other),
    )
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    const raw = openai(`http://127.0.0.1:${port}/v1`, true)
    for (let left = 4; left > 0; left -= 1) expect(await raw.stored?.find(lost('z.1'), 2_000, never)).toBe('failed')
    await raw.close()
    server.close()
    const gone = openai(`http://127.0.0.1:${port}/v1`, true)
    expect(await gone.stored?.find(lost('z.1'), 2_000, never)).toBe('failed')
    await gone.close()
  })

  test.each([
    ['the metadata of another request', { model: 'm', request: '{"store":true,"metadata":{"run":"8"}}' }],
    ['another dated model', { model: 'm-2026-01-01', request: '{"store":true,"metadata":{"run":"7"}}' }],
  ])('failed: the mark fits, but it is %s', async (_, { model, request }) => {
    const mark = `d.${model}`
    const sent = Buffer.from('{"model":"m","store":true,"metadata":{"run":"7"}}')
    await provider.call({
      operation: 'chat.completions',
      model: 'm',
      request: stored.marked('chat.completions', sent, mark) ?? Buffer.alloc(0),
      timeoutMs: 5_000,
      signal: never,
    })
    expect(await stored.find({ mark, model, request: Buffer.from(request) }, 2_000, never)).toBe('failed')
    expect(await stored.find({ mark, model: 'm', request: sent }, 2_000, never)).toMatchObject({ kind: 'answer' })
  })
})
