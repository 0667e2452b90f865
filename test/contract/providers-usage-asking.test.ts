import { createProvider, type Provider } from '@askonce/providers'
import { startUpstream, type Upstream } from '@askonce/testkit'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'

const options = { simulated: { latencyMs: 0, tokens: 1, failureRate: 0 }, prices: [] }
const extra = { detail: [{ type: 'extra_forbidden', loc: ['body', 'stream_options'], msg: 'not permitted' }] }

let upstream: Upstream
let provider: Provider
let bodies: Record<string, unknown>[]

beforeAll(async () => {
  upstream = await startUpstream()
})
beforeEach(async () => {
  await provider?.close()
  provider = createProvider(
    { name: 'openai', kind: 'openai', baseUrl: upstream.openaiBaseUrl, apiKey: 'test-key-1234567890' },
    options,
  )
  bodies = []
})
afterAll(async () => {
  await provider.close()
  await upstream.close()
})

/** A server that refuses the option wherever it stands. */
function refuseOption(): void {
  upstream.script(({ json }) => {
    bodies.push(json)
    return json['stream_options'] === undefined ? undefined : { kind: 'refuse', status: 422, body: extra }
  })
}

function stream(more: object = {}, through: Provider = provider) {
  const request = Buffer.from(JSON.stringify({ model: 'gpt-test', stream: true, messages: [], ...more }))
  return through.call({
    operation: 'chat.completions',
    model: 'gpt-test',
    request,
    timeoutMs: 5_000,
    signal: new AbortController().signal,
    stream: { onEvents: () => undefined },
  })
}

test('a server that refuses stream_options is asked again at once without it, and never again with it', async () => {
  refuseOption()
  expect(await stream()).toMatchObject({ kind: 'rerun', billing: 'none', atOnce: true, body: null })
  for (let count = 0; count < 3; count += 1) expect(await stream()).toMatchObject({ kind: 'answer' })
  expect(bodies.map(({ stream_options: option }) => option !== undefined)).toEqual([true, false, false, false])
})

test('calls that were under way together are each asked again once', async () => {
  refuseOption()
  const refused = await Promise.all(Array.from({ length: 10 }, () => stream()))
  expect(new Set(refused.map((verdict) => verdict.kind))).toEqual(new Set(['rerun']))
  const again = await Promise.all(Array.from({ length: 10 }, () => stream()))
  expect(new Set(again.map((verdict) => verdict.kind))).toEqual(new Set(['answer']))
})

test('what the caller asked for itself is refused to the caller', async () => {
  refuseOption()
  for (const option of [{ include_usage: true }, { include_usage: false }, {}]) {
    expect(await stream({ stream_options: option })).toMatchObject({ kind: 'stop', code: 'provider_rejected' })
  }
  expect(await stream()).toMatchObject({ kind: 'rerun', atOnce: true })
})

test('a refusal that only quotes a prompt ends that job, and the lane goes on asking', async () => {
  upstream.script(({ json, body }) => {
    bodies.push(json)
    const refused = { kind: 'refuse', status: 400, body: { error: { message: 'bad prompt: stream_options' } } } as const
    return body.includes('quoted') ? refused : undefined
  })
  expect(await stream({ user: 'quoted' })).toMatchObject({ kind: 'rerun', atOnce: true })
  expect(await stream({ user: 'quoted' })).toMatchObject({ kind: 'stop' })
  expect(await stream()).toMatchObject({ kind: 'answer' })
  expect(bodies.at(-1)?.['stream_options']).toEqual({ include_usage: true })
})

test('a refusal that repeats the request as it came, with what was added, ends that job, and the lane goes on asking', async () => {
  upstream.script(({ json }) => {
    bodies.push(json)
    // As FastAPI does, whatever was wrong.
    const detail = [{ type: 'missing', loc: ['body', 'messages'], msg: 'Field required', input: json }]
    return json['user'] === 'faulty' ? { kind: 'refuse', status: 422, body: { detail } } : undefined
  })
  for (let count = 0; count < 2; count += 1) {
    expect(await stream({ user: 'faulty' })).toMatchObject({ kind: 'rerun', atOnce: true })
    expect(await stream({ user: 'faulty' })).toMatchObject({ kind: 'stop' })
    expect(await stream()).toMatchObject({ kind: 'answer' })
    expect(bodies.at(-1)?.['stream_options']).toEqual({ include_usage: true })
  }
})

test('a server that refuses the option, and a request that it refuses for another reason as well', async () => {
  upstream.script(({ json }) => {
    bodies.push(json)
    if (json['stream_options'] !== undefined) return { kind: 'refuse', status: 422, body: extra }
    return json['user'] === 'faulty' ? { kind: 'refuse', status: 422, body: { detail: 'no' } } : undefined
  })
  expect(await stream({ user: 'faulty' })).toMatchObject({ kind: 'rerun', atOnce: true })
  expect(await stream({ user: 'faulty' })).toMatchObject({ kind: 'stop' })
  expect(await stream()).toMatchObject({ kind: 'rerun', atOnce: true })
  for (let count = 0; count < 3; count += 1) expect(await stream()).toMatchObject({ kind: 'answer' })
  expect(bodies).toHaveLength(6)
})
