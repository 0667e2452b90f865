import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import Anthropic from '@anthropic-ai/sdk'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bootstrapKey, startHarness, type Harness } from '../api/harness.ts'

interface Seen {
  method: string | undefined
  url: string | undefined
  headers: IncomingMessage['headers']
  body: string
}

const seen: Seen[] = []
/** What the provider answers next. */
let next: { status: number; body: string } | 'cut' | 'endless' | 'silent' = { status: 200, body: '{}' }

const provider = createServer((request, response) => {
  void (async () => {
    let body = ''
    for await (const chunk of request) body += String(chunk)
    seen.push({ method: request.method, url: request.url, headers: request.headers, body })
    if (next === 'cut') return void response.destroy()
    if (next === 'silent') return
    if (next !== 'endless') {
      return void response
        .writeHead(next.status, { 'content-type': 'application/json', 'x-request-id': 'theirs' })
        .end(next.body)
    }
    response.on('error', () => undefined)
    const block = Buffer.alloc(1024 * 1024, ' ')
    const write = (): void => {
      while (!response.destroyed) if (!response.write(block)) return void response.once('drain', write)
    }
    write()
  })()
})

let harness: Harness
let openai: OpenAI
let anthropic: Anthropic

beforeAll(async () => {
  await new Promise<void>((resolve) => provider.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(provider.address() as AddressInfo).port}`
  harness = await startHarness({
    env: {
      OPENAI_BASE_URL: `${url}/v1`,
      OPENAI_API_KEY: 'key-of-openai-1',
      ANTHROPIC_BASE_URL: url,
      ANTHROPIC_API_KEY: 'key-of-anthropic-1',
    },
  })
  openai = new OpenAI({ apiKey: bootstrapKey, baseURL: `${harness.api.address}/openai/v1`, maxRetries: 0 })
  anthropic = new Anthropic({ apiKey: bootstrapKey, baseURL: `${harness.api.address}/anthropic`, maxRetries: 0 })
})

afterAll(async () => {
  await harness.stop()
  provider.closeAllConnections()
  await new Promise((resolve) => provider.close(resolve))
})

const ask = { model: 'claude-sonnet-4-0', messages: [{ role: 'user' as const, content: 'x' }] }

describe('what costs nothing', () => {
  it('goes to the provider with its key, and comes back as it is; there is no job of it', async () => {
    next = { status: 200, body: '{"object":"list","data":[{"id":"theirs","object":"model"}]}' }
    expect((await openai.models.list()).data.map(({ id }) => id)).toEqual(['theirs'])
    next = { status: 200, body: '{"id":"ft:gpt/1","object":"model"}' }
    expect(await openai.models.retrieve('ft:gpt/1')).toMatchObject({ id: 'ft:gpt/1' })
    next = { status: 200, body: '{"data":[],"has_more":false}' }
    await anthropic.models.list({ limit: 3 })
    next = { status: 200, body: '{"input_tokens":7}' }
    expect(await anthropic.beta.messages.countTokens({ ...ask, betas: ['b-1', 'a-1'] })).toMatchObject({
      input_tokens: 7,
    })
    expect(seen.map(({ method, url }) => `${method} ${url}`)).toEqual([
      'GET /v1/models',
      'GET /v1/models/ft%3Agpt/1',
      'GET /v1/models?limit=3',
      'POST /v1/messages/count_tokens',
    ])
    expect(seen[0]?.headers['authorization']).toBe('Bearer key-of-openai-1')
    expect(seen[3]?.headers['x-api-key']).toBe('key-of-anthropic-1')
    expect(seen[3]?.headers['anthropic-beta']).toMatch(/^a-1,b-1(,|$)/)
    expect(JSON.parse(seen[3]?.body ?? '')).toEqual(ask)
    expect(await harness.sql('select count(*)::int as jobs from jobs')).toEqual([{ jobs: 0 }])
    expect(await harness.sql('select count(*)::int as attempts from attempts')).toEqual([{ attempts: 0 }])
  })

  it('a refusal keeps its status and words', async () => {
    next = { status: 404, body: '{"error":{"message":"no such model","code":"model_not_found"}}' }
    await expect(openai.models.retrieve('none')).rejects.toMatchObject({ status: 404, code: 'model_not_found' })
  })

  it.each(['cut', 'endless'] as const)(
    'no answer (%s) is 502, in the words of the SDK, and not held in memory',
    async (how) => {
      next = how
      await expect(openai.models.list()).rejects.toMatchObject({ status: 502, code: 'upstream_failed' })
      await expect(anthropic.messages.countTokens(ask)).rejects.toMatchObject({
        status: 502,
        error: { error: { code: 'upstream_failed' } },
      })
    },
  )

  it('of one tenant waits for providers eight times at once, and leaves others their places', async () => {
    next = 'silent'
    const callers = new AbortController()
    const before = seen.length
    const greedy = await harness.keyFor('greedy')
    const list = (key: string) => harness.call('GET', '/openai/v1/models', { key, signal: callers.signal })
    const waiting = Promise.allSettled(Array.from({ length: 8 }, () => list(greedy)))
    await expect.poll(() => seen.length).toBe(before + 8)
    expect(await list(greedy)).toMatchObject({ status: 503, json: { code: 'overloaded' } })
    next = { status: 200, body: '{"object":"list","data":[]}' }
    expect((await list(await harness.keyFor('other'))).status).toBe(200)
    callers.abort()
    await waiting
    await expect.poll(async () => (await harness.call('GET', '/openai/v1/models', { key: greedy })).status).toBe(200)
  })

  it('of a model whose provider does not have it is refused with its name', async () => {
    const asked = anthropic.messages.countTokens({ ...ask, model: 'gpt-4o' })
    await expect(asked).rejects.toMatchObject({ status: 400, error: { error: { param: '/model' } } })
  })
})

describe('a route that is not here', () => {
  it.each([
    ['/openai/v1/images/generations', 'POST /openai/v1/images/generations'],
    ['/openai/chat/completions', '/openai/v1'],
    ['/openai/v1/v1/chat/completions', 'leave one of them out'],
    ['/v1/chat/completions', '/openai/v1'],
    ['/chat/completions', '/openai/v1'],
    ['/v1/messages', '/anthropic'],
  ])('%s is named, with what to do', async (path, said) => {
    const { status, json } = await harness.call('POST', path, { body: {} })
    expect([status, json['error']]).toMatchObject([404, { code: 'not_found' }])
    expect(json['detail']).toContain(said)
  })

  it('in Anthropic’s words on its paths', async () => {
    const reply = await harness.call('POST', '/anthropic/v1/v1/messages', { body: {} })
    expect(reply).toMatchObject({ status: 404, json: { type: 'error', error: { type: 'not_found_error' } } })
    expect(reply.text).toContain('adds /v1 itself')
  })
})
