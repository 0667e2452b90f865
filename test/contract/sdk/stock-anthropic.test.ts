import Anthropic from '@anthropic-ai/sdk'
import { anthropicError } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { apiKey, startRunning, type Running } from './running.ts'
import { startFront, startPrompts, type Front, type Prompts, type Trouble } from './stock-upstream.ts'

let prompts: Prompts
let askonce: Running
let front: Front
let anthropic: Anthropic
let keys = 0

beforeAll(async () => {
  prompts = await startPrompts()
  const { url } = prompts.upstream
  askonce = await startRunning({ openai: `${url}/v1`, anthropic: url }, [
    { name: 'limited', kind: 'anthropic', base_url: url, models: ['limited/*'] },
  ])
  front = await startFront(askonce.address)
  anthropic = new Anthropic({ apiKey, baseURL: `${askonce.address}/anthropic` })
})

afterAll(async () => {
  await front.close()
  await askonce.stop()
  await prompts.upstream.close()
})

function keyed(more: Record<string, string> = {}) {
  keys += 1
  return { headers: { 'Idempotency-Key': `stock/${keys}`, ...more } }
}

const ask = (content: string, model = 'claude-sonnet-4-0') => ({
  model,
  max_tokens: 100,
  messages: [{ role: 'user' as const, content }],
})

async function collect<T>(events: AsyncIterable<T>): Promise<T[]> {
  const seen: T[] = []
  for await (const event of events) seen.push(event)
  return seen
}

const textOf = ({ content }: Anthropic.Message): string =>
  content.map((block) => (block.type === 'text' ? block.text : '')).join('')

const textOfEvents = (events: Anthropic.RawMessageStreamEvent[]): string =>
  events
    .map((event) => (event.type === 'content_block_delta' && event.delta.type === 'text_delta' ? event.delta.text : ''))
    .join('')

describe('messages', () => {
  it('are created, and the same key is answered from the store', async () => {
    const options = keyed()
    const { data, response } = await anthropic.messages.create(ask('create'), options).withResponse()
    expect(textOf(data)).toMatch(/^call \d+/)
    expect(data.usage.output_tokens).toBe(16)
    expect(response.headers.get('idempotent-replayed')).toBe('false')
    const again = await anthropic.messages.create(ask('create'), options).withResponse()
    expect(again.data).toEqual(data)
    expect(again.response.headers.get('idempotent-replayed')).toBe('true')
    const derived = { headers: { 'Askonce-Key': 'derive' } }
    const [one, two] = [
      await anthropic.messages.create(ask('same'), derived),
      await anthropic.messages.create(ask('same'), derived),
    ]
    expect(two.id).toBe(one.id)
    expect([prompts.calls('create'), prompts.calls('same')]).toEqual([1, 1])
  })

  it('are streamed, as events and by the SDK’s helper', async () => {
    const options = keyed()
    const events = await collect(await anthropic.messages.create({ ...ask('stream'), stream: true }, options))
    expect(textOfEvents(events)).toMatch(/^call \d+ x+$/)
    expect(events.at(-1)?.type).toBe('message_stop')
    const helper = anthropic.messages.stream(ask('stream'), options)
    const pieces: string[] = []
    helper.on('text', (text) => pieces.push(text))
    const message = await helper.finalMessage()
    expect([textOf(message), pieces.join('')]).toEqual([textOfEvents(events), textOfEvents(events)])
    expect(message).toMatchObject({ stop_reason: 'end_turn', usage: { output_tokens: 16 } })
    expect(prompts.calls('stream')).toBe(1)
  })

  it('of a megabyte come whole, streamed or not', async () => {
    prompts.answer('long', { kind: 'answer', answerBytes: 1_000_000, chunks: 200 })
    expect(textOf(await anthropic.messages.create(ask('long'), keyed()))).toHaveLength(1_000_000)
    expect(await anthropic.messages.stream(ask('long'), keyed()).finalText()).toHaveLength(1_000_000)
  })

  it('use tools and refuse, whole', async () => {
    const content = [{ type: 'tool_use', id: 'toolu_1', name: 'weather', input: { city: 'Mars' } }]
    const usage = { input_tokens: 1, output_tokens: 1 }
    const message = { id: 'msg_t', type: 'message', role: 'assistant', model: 'm', content, stop_sequence: null, usage }
    const answer = (more: object) => ({ kind: 'answer' as const, body: JSON.stringify({ ...message, ...more }) })
    prompts.answer('tool', answer({ stop_reason: 'tool_use' }))
    prompts.answer('refused', answer({ content: [], stop_reason: 'refusal' }))
    expect((await anthropic.messages.create(ask('tool'), keyed())).content).toEqual(content)
    const refused = await anthropic.messages.create(ask('refused'), keyed())
    expect(refused).toMatchObject({ content: [], stop_reason: 'refusal' })
    expect(await askonce.sql(`select flags from jobs where idempotency_key = $1`, [`stock/${keys}`])).toEqual([
      { flags: ['refused'] },
    ])
  })

  it('use tools in deltas, which the SDK puts together', async () => {
    const usage = { input_tokens: 1, output_tokens: 1 }
    const message = { id: 'msg_t', type: 'message', role: 'assistant', model: 'm', content: [], usage }
    const block = { type: 'tool_use', id: 'toolu_1', name: 'weather', input: {} }
    prompts.answer('tool stream', {
      kind: 'answer',
      events: [
        { type: 'message_start', message: { ...message, stop_reason: null, stop_sequence: null } },
        { type: 'content_block_start', index: 0, content_block: block },
        ...['{"ci', 'ty":"', 'Mars"}'].map((json) => ({
          type: 'content_block_delta',
          index: 0,
          delta: { type: 'input_json_delta', partial_json: json },
        })),
        { type: 'content_block_stop', index: 0 },
        { type: 'message_delta', delta: { stop_reason: 'tool_use', stop_sequence: null }, usage },
        { type: 'message_stop' },
      ],
    })
    const streamed = await anthropic.messages.stream(ask('tool stream'), keyed()).finalMessage()
    expect(streamed).toMatchObject({ stop_reason: 'tool_use', content: [{ ...block, input: { city: 'Mars' } }] })
  })
})

describe('errors are of the SDK’s own classes', () => {
  const refusals: [number, string, new (...args: never[]) => Error][] = [
    [400, 'invalid_request_error', Anthropic.BadRequestError],
    [403, 'permission_error', Anthropic.PermissionDeniedError],
    [404, 'not_found_error', Anthropic.NotFoundError],
    [413, 'request_too_large', Anthropic.APIError],
    [422, 'invalid_request_error', Anthropic.UnprocessableEntityError],
  ]
  it.each(refusals)('a refusal with %i, streamed or not', async (status, type, errorClass) => {
    for (const stream of [false, true]) {
      const prompt = `refuse ${status} ${stream}`
      prompts.answer(prompt, { kind: 'refuse', status, body: anthropicError(type, 'No.') })
      const error = await anthropic.messages.create({ ...ask(prompt), stream }, keyed()).catch((e: unknown) => e)
      expect(error).toBeInstanceOf(errorClass)
      expect(error).toMatchObject({ status, error: { type: 'error', error: { type, message: 'No.' } } })
      expect((error as { requestID: string }).requestID).toMatch(/^[0-9a-f-]{36}$/)
      expect(prompts.calls(prompt)).toBe(1)
    }
  })

  it('a 5xx of the provider after all tries; a 429 is waited for', async () => {
    prompts.answer('broken', { kind: 'refuse', status: 500, body: anthropicError('api_error', 'It broke') })
    const options = keyed({ 'Askonce-Options': '{"max_attempts":2}' })
    const error = await anthropic.messages.create(ask('broken'), options).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(Anthropic.InternalServerError)
    expect(error).toMatchObject({ status: 500, error: { error: { type: 'api_error', message: 'It broke' } } })
    expect(prompts.calls('broken')).toBe(2)
    const pause = { kind: 'refuse' as const, status: 429, body: anthropicError('rate_limit_error', 'Slower') }
    prompts.answer('slower', { ...pause, headers: { 'retry-after-ms': '50' } }, { kind: 'answer' })
    expect(textOf(await anthropic.messages.create(ask('slower', 'limited/model'), keyed()))).toMatch(/^call \d+/)
    expect(prompts.calls('slower')).toBe(2)
  })

  it('an error in the middle of a stream is thrown by the iterator', async () => {
    const held = prompts.upstream.hold({ model: 'claude-error' }, 4)
    prompts.answer('stream error', { kind: 'stream_error', afterEvents: 4 })
    const body = { ...ask('stream error', 'claude-error'), stream: true as const }
    const stream = await anthropic.messages.create(body, keyed({ 'Askonce-Options': '{"on_uncertain":"hold"}' }))
    held.release()
    const error = await collect(stream).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(Anthropic.APIError)
    expect((error as Error).message).toContain('job_uncertain')
  })

  it('our own: no key, a used key, a wrong API key, a route that is not here', async () => {
    const used = keyed()
    await anthropic.messages.create(ask('used'), used)
    const stranger = new Anthropic({ apiKey: 'no-key-of-ours-0123', baseURL: anthropic.baseURL })
    const { messages } = anthropic
    const expected: [() => Promise<unknown>, new (...args: never[]) => Error, object][] = [
      [() => messages.create(ask('x')), Anthropic.BadRequestError, { code: 'idempotency_key_missing' }],
      [() => messages.create(ask('y'), used), Anthropic.BadRequestError, { code: 'idempotency_key_reused' }],
      [() => stranger.messages.create(ask('x'), keyed()), Anthropic.AuthenticationError, { code: 'unauthorized' }],
      [() => anthropic.beta.files.list(), Anthropic.NotFoundError, { code: 'not_found' }],
    ]
    for (const [call, errorClass, members] of expected) {
      const error = await call().catch((e: unknown) => e)
      expect(error).toBeInstanceOf(errorClass)
      expect(error).toMatchObject({ error: { type: 'error', error: members } })
      expect((error as { requestID: string }).requestID).toMatch(/^[0-9a-f-]{36}$/)
    }
  })
})

describe('retries by the SDK', () => {
  const troubles: Trouble[] = ['503 before', '503 after', 'cut before', 'cut after']
  it.each(troubles)('%s: the upstream is called once', async (trouble) => {
    const through = anthropic.withOptions({ baseURL: `${front.url}/anthropic` })
    const before = front.requests()
    front.trouble(trouble)
    expect(await through.messages.stream(ask(trouble), keyed()).finalText()).toMatch(/^call \d+/)
    expect(front.requests() - before).toBe(2)
    expect(prompts.calls(trouble)).toBe(1)
  })

  it('after our wait limit: it asks again, and the same call continues', async () => {
    prompts.answer('slow', { kind: 'answer', delayMs: 1_300 })
    const hasty = anthropic.withOptions({ baseURL: `${askonce.hastyAddress}/anthropic` })
    expect(textOf(await hasty.messages.create(ask('slow'), keyed()))).toMatch(/^call \d+/)
    expect(prompts.calls('slow')).toBe(1)
  })
})

describe('a client that goes away', () => {
  const points: [string, number, number][] = [
    ['in the headers', 1, 0],
    ['in mid-stream', 5, 3],
    // Start, block, ping, four pieces, the block’s end, delta, stop; the last two are not shown before the answer is stored.
    ['just before the end', 10, 7],
  ]
  it.each(points)('%s: others get the whole answer, of the same call', async (name, afterEvents, takes) => {
    const model = `claude-left-${name.replaceAll(' ', '-')}`
    const body = { ...ask(`left ${name}`, model), stream: true as const }
    const held = prompts.upstream.hold({ model }, afterEvents)
    const options = keyed()
    const leaving = new AbortController()
    const stream = await anthropic.messages.create(body, { ...options, signal: leaving.signal })
    const taken: unknown[] = []
    if (takes > 0) {
      for await (const event of stream) {
        if (taken.push(event) === takes) break
      }
    }
    expect(taken).toHaveLength(takes)
    leaving.abort()
    const follower = await anthropic.messages.create(body, options)
    held.release()
    const followed = await collect(follower)
    expect(textOfEvents(followed)).toMatch(/^call \d+ x+$/)
    expect(followed.at(-1)?.type).toBe('message_stop')
    expect(await collect(await anthropic.messages.create(body, options))).toEqual(followed)
    expect(prompts.calls(`left ${name}`)).toBe(1)
  })

  it('before the answer: the same key gets it', async () => {
    const held = prompts.upstream.hold({ model: 'claude-gone' })
    const options = keyed()
    const leaving = new AbortController()
    const body = ask('gone', 'claude-gone')
    const asked = anthropic.messages.create(body, { ...options, signal: leaving.signal }).catch((e: unknown) => e)
    await held.arrived(1)
    leaving.abort()
    expect(await asked).toBeInstanceOf(Anthropic.APIUserAbortError)
    held.release()
    expect(textOf(await anthropic.messages.create(body, options))).toMatch(/^call \d+ x+$/)
    expect(prompts.calls('gone')).toBe(1)
  })
})
