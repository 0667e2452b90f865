import Anthropic from '@anthropic-ai/sdk'
import { LLMock } from '@copilotkit/aimock'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { apiKey, startRunning, type Running } from './running.ts'

// A mock of both providers that somebody else wrote, behind the whole of Askonce, and the stock SDKs before it.
const mock = new LLMock({ port: 0, logLevel: 'silent', chunkSize: 4 })
let askonce: Running
let openai: OpenAI
let anthropic: Anthropic
let keys = 0

beforeAll(async () => {
  mock.onMessage(/hello/, { content: 'Hi there, and welcome to Mars!' })
  mock.onMessage(/weather/, { toolCalls: [{ name: 'weather', arguments: '{"city":"Mars"}' }] })
  mock.onMessage(/endless/, { content: 'and then', finishReason: 'length' })
  mock.onEmbedding(/vector/, { embedding: [0.5, -0.25, 3] })
  await mock.start()
  // A lane of its own for what pauses a lane.
  askonce = await startRunning({ openai: `${mock.url}/v1`, anthropic: mock.url }, [
    { name: 'limited', kind: 'openai', base_url: `${mock.url}/v1`, models: ['limited/*'] },
  ])
  openai = new OpenAI({ apiKey, baseURL: `${askonce.address}/openai/v1` })
  anthropic = new Anthropic({ apiKey, baseURL: `${askonce.address}/anthropic` })
})

afterAll(async () => {
  await askonce.stop()
  await mock.stop()
})

function keyed(options: object = {}) {
  keys += 1
  return { headers: { 'Idempotency-Key': `mock/${keys}`, 'Askonce-Options': JSON.stringify(options) } }
}

/** Requests that the mock has had with this text in them. */
const calls = (text: string): number =>
  mock.getRequests().filter(({ body }) => JSON.stringify(body).includes(text)).length

const chat = (content: string, model = 'gpt-4o-mini') => ({ model, messages: [{ role: 'user' as const, content }] })
const ask = (content: string) => ({ ...chat(content, 'claude-sonnet-4-0'), max_tokens: 100 })

describe('whole and streamed, the same words; asked once', () => {
  it('chat completions', async () => {
    const options = keyed()
    const whole = await openai.chat.completions.create(chat('hello 1'), options)
    expect(whole.choices[0]?.message.content).toBe('Hi there, and welcome to Mars!')
    expect(await openai.chat.completions.create(chat('hello 1'), options)).toEqual(whole)
    const streamed = keyed()
    for (const _ of [1, 2]) {
      const stream = openai.chat.completions.stream(chat('hello 2'), streamed)
      expect(await stream.finalContent()).toBe('Hi there, and welcome to Mars!')
    }
    expect([calls('hello 1'), calls('hello 2')]).toEqual([1, 1])
  })

  it('responses', async () => {
    const whole = await openai.responses.create({ model: 'gpt-4o-mini', input: 'hello 3' }, keyed())
    expect(whole.output_text).toBe('Hi there, and welcome to Mars!')
    expect((await openai.responses.retrieve(whole.id)).output_text).toBe(whole.output_text)
    const options = keyed()
    for (const _ of [1, 2]) {
      const stream = openai.responses.stream({ model: 'gpt-4o-mini', input: 'hello 4' }, options)
      expect((await stream.finalResponse()).output_text).toBe(whole.output_text)
    }
    expect([calls('hello 3'), calls('hello 4')]).toEqual([1, 1])
  })

  it('messages', async () => {
    const whole = await anthropic.messages.create(ask('hello 5'), keyed())
    expect(whole.content).toMatchObject([{ type: 'text', text: 'Hi there, and welcome to Mars!' }])
    const options = keyed()
    for (const _ of [1, 2]) {
      expect(await anthropic.messages.stream(ask('hello 6'), options).finalText()).toBe(
        'Hi there, and welcome to Mars!',
      )
    }
    expect([calls('hello 5'), calls('hello 6')]).toEqual([1, 1])
  })

  it('embeddings', async () => {
    // It writes numbers whatever is asked for; the SDK would take them for base64.
    const asked = { model: 'text-embedding-3-small', input: 'vector', encoding_format: 'float' as const }
    const { data } = await openai.embeddings.create(asked, keyed())
    expect(data[0]?.embedding).toEqual([0.5, -0.25, 3])
  })
})

describe('tool calls', () => {
  const called = [{ function: { name: 'weather', arguments: '{"city":"Mars"}' } }]

  it('of OpenAI', async () => {
    const whole = await openai.chat.completions.create(chat('weather 1'), keyed())
    expect(whole.choices[0]).toMatchObject({ finish_reason: 'tool_calls', message: { tool_calls: called } })
    const stream = openai.chat.completions.stream(chat('weather 2'), keyed())
    expect((await stream.finalMessage()).tool_calls).toMatchObject(called)
    const response = openai.responses.stream({ model: 'gpt-4o-mini', input: 'weather 3' }, keyed())
    expect((await response.finalResponse()).output).toMatchObject([{ type: 'function_call', name: 'weather' }])
  })

  it('of Anthropic', async () => {
    const used = { stop_reason: 'tool_use', content: [{ type: 'tool_use', name: 'weather', input: { city: 'Mars' } }] }
    expect(await anthropic.messages.create(ask('weather 4'), keyed())).toMatchObject(used)
    expect(await anthropic.messages.stream(ask('weather 5'), keyed()).finalMessage()).toMatchObject(used)
  })
})

describe('its errors and chaos', () => {
  it('a length limit is an answer', async () => {
    const answer = await openai.chat.completions.create(chat('endless'), keyed())
    expect(answer.choices[0]?.finish_reason).toBe('length')
  })

  it('a rate limit is waited for, and the client sees the answer only', async () => {
    mock.nextRequestError(429, { message: 'Slower', type: 'rate_limit_error', code: 'rate_limit_exceeded' })
    const answer = await openai.chat.completions.create(chat('hello 7', 'limited/model'), keyed())
    expect(answer.choices[0]?.message.content).toContain('Mars')
  })

  it('an unknown prompt is its 404, in the SDK’s class, and not sent again', async () => {
    const error = await openai.chat.completions.create(chat('nobody knows'), keyed()).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(OpenAI.NotFoundError)
    expect(calls('nobody knows')).toBe(1)
    const other = await anthropic.messages.create(ask('nobody else'), keyed()).catch((e: unknown) => e)
    expect(other).toBeInstanceOf(Anthropic.NotFoundError)
    expect(calls('nobody else')).toBe(1)
  })

  it.each([
    ['malformed JSON', { malformedRate: 1 }],
    ['a disconnect', { disconnectRate: 1 }],
  ])('%s may have been billed: held, and never sent again by the SDK', async (name, chaos) => {
    mock.setChaos(chaos)
    try {
      const error = await openai.chat.completions
        .create(chat(`hello ${name}`), keyed({ on_uncertain: 'hold' }))
        .catch((e: unknown) => e)
      expect(error).toBeInstanceOf(OpenAI.BadRequestError)
      expect(error).toMatchObject({ code: 'job_uncertain' })
    } finally {
      mock.clearChaos()
    }
    const [row] = await askonce.sql('select attempt, paid from jobs where idempotency_key = $1', [`mock/${keys}`])
    expect(row).toEqual({ attempt: 1, paid: 1 })
  })
})
