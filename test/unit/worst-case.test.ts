import { boundsOf, type JsonObject, type Operation } from '@askonce/core'
import { createWorstCase } from '@askonce/providers'
import { findProvider } from '@pydantic/genai-prices'
import { describe, expect, test } from 'vitest'
import { parseBaseUrl } from '../../packages/providers/src/endpoint.ts'
import { createPriceBook } from '../../packages/providers/src/prices.ts'
import { simulatedAnswer } from '../../packages/providers/src/simulated-answer.ts'

const lanes = [
  { name: 'openai', kind: 'openai', baseUrl: null },
  { name: 'anthropic', kind: 'anthropic', baseUrl: null },
  { name: 'simulated', kind: 'simulated', baseUrl: null },
] as const
const own = { model: 'own*', inputPerMillionUsd: 1, outputPerMillionUsd: 10, maxOutputTokens: 1_000 }
const reserveOf = createWorstCase(lanes, [own, { ...own, model: 'simulated/priced' }])

interface Asked extends JsonObject {
  model: string
}

function reserve(request: Asked, operation: Operation = 'chat.completions', lane = 'openai') {
  const bytes = Buffer.byteLength(JSON.stringify(request))
  return reserveOf(lane, request.model, boundsOf(operation, request, bytes))
}

const user = (content: unknown): JsonObject[] => [{ role: 'user', content }] as JsonObject[]
const image = `data:image/png;base64,${'A'.repeat(2_000_000)}`

/** What the providers have counted for requests of these shapes, or the most that they publish for them. */
const shapes: [what: string, operation: Operation, lane: string, request: Asked, usage: JsonObject][] = [
  [
    'English',
    'chat.completions',
    'openai',
    { model: 'gpt-4o', messages: user('Why do idempotency keys matter?'), max_tokens: 50 },
    { prompt_tokens: 14, completion_tokens: 50 },
  ],
  [
    'characters that are several tokens each',
    'chat.completions',
    'openai',
    { model: 'gpt-4o', messages: user('𒀀𒁀𒂀'.repeat(20)), max_completion_tokens: 1 },
    { prompt_tokens: 247, completion_tokens: 1 },
  ],
  [
    'nothing but the frame',
    'chat.completions',
    'openai',
    { model: 'gpt-4o', messages: user(''), max_tokens: 1 },
    { prompt_tokens: 7, completion_tokens: 1 },
  ],
  [
    'several answers',
    'chat.completions',
    'openai',
    { model: 'gpt-4o', messages: user('x'), max_tokens: 100, n: 8 },
    { prompt_tokens: 8, completion_tokens: 800 },
  ],
  [
    'reasoning within the limit',
    'chat.completions',
    'openai',
    { model: 'o3', messages: user('x'), max_completion_tokens: 5_000 },
    { prompt_tokens: 7, completion_tokens: 5_000, completion_tokens_details: { reasoning_tokens: 4_990 } },
  ],
  [
    'the dearest image by data',
    'chat.completions',
    'openai',
    {
      model: 'gpt-4o-mini',
      max_tokens: 1,
      messages: user([{ type: 'image_url', image_url: { url: image, detail: 'high' } }]),
    },
    { prompt_tokens: 48_169, completion_tokens: 1 },
  ],
  [
    'the dearest image by address, in the result of a tool',
    'responses',
    'openai',
    {
      model: 'gpt-4o-mini',
      max_output_tokens: 16,
      input: [
        {
          type: 'function_call_output',
          call_id: 'c',
          output: [{ type: 'input_image', image_url: 'https://x.test/i' }],
        },
      ],
    },
    { input_tokens: 48_169, output_tokens: 16 },
  ],
  [
    'minutes of sound',
    'chat.completions',
    'openai',
    {
      model: 'gpt-4o-audio-preview',
      max_tokens: 10,
      messages: user([{ type: 'input_audio', input_audio: { data: 'A'.repeat(1_333 * 600), format: 'mp3' } }]),
    },
    {
      prompt_tokens: 6_010,
      prompt_tokens_details: { audio_tokens: 6_000 },
      completion_tokens: 10,
      completion_tokens_details: { audio_tokens: 10 },
    },
  ],
  [
    'a prediction that does not come true',
    'chat.completions',
    'openai',
    {
      model: 'gpt-4o',
      messages: user('x'),
      max_tokens: 5,
      prediction: { type: 'content', content: 'word '.repeat(50) },
    },
    { prompt_tokens: 8, completion_tokens: 55 },
  ],
  [
    'an earlier response',
    'responses',
    'openai',
    { model: 'gpt-4o', input: 'and?', previous_response_id: 'resp_1', max_output_tokens: 100 },
    { input_tokens: 127_900, output_tokens: 100 },
  ],
  [
    'a file that stands at the provider',
    'responses',
    'openai',
    {
      model: 'gpt-4o',
      max_output_tokens: 100,
      input: user([{ type: 'input_file', file_id: 'file-1' }]),
    },
    { input_tokens: 127_900, output_tokens: 100 },
  ],
  [
    'no limit of output',
    'responses',
    'openai',
    { model: 'gpt-4o', input: 'x' },
    { input_tokens: 8, output_tokens: 16_384 },
  ],
  [
    'embeddings of token ids',
    'embeddings',
    'openai',
    { model: 'text-embedding-3-small', input: [[1, 2, 3, 4, 5, 6, 7, 8, 9]] },
    { prompt_tokens: 9, total_tokens: 9 },
  ],
  [
    'a tool, and all input written to the cache for an hour',
    'messages',
    'anthropic',
    {
      model: 'claude-sonnet-4-0',
      max_tokens: 1_000,
      messages: user([{ type: 'text', text: 'hello', cache_control: { type: 'ephemeral', ttl: '1h' } }]),
      tools: [{ name: 'get', input_schema: { type: 'object' } }],
    },
    {
      input_tokens: 0,
      cache_creation_input_tokens: 735,
      cache_creation: { ephemeral_1h_input_tokens: 735, ephemeral_5m_input_tokens: 0 },
      output_tokens: 1_000,
    },
  ],
  [
    'an editor that the provider describes',
    'messages',
    'anthropic',
    {
      model: 'claude-sonnet-4-0',
      max_tokens: 10,
      messages: user('x'),
      tools: [{ type: 'text_editor_20250728', name: 'str_replace_based_edit_tool' }],
    },
    { input_tokens: 735 + 700 + 9, output_tokens: 10 },
  ],
]

describe('a call never costs or uses more than its worst case', () => {
  const books = {
    openai: createPriceBook('openai', parseBaseUrl('openai', null), []),
    anthropic: createPriceBook('anthropic', parseBaseUrl('anthropic', null), []),
  }
  test.each(shapes)('%s', (_, operation, lane, request, usage) => {
    const { reserveUsd, reserveTokens } = reserve(request, operation, lane)
    const billed = books[lane as 'openai'].usageOf(operation, request.model, { usage })
    expect(billed.costUsd).toBeGreaterThan(0)
    expect(reserveUsd).toBeGreaterThanOrEqual(billed.costUsd ?? Number.POSITIVE_INFINITY)
    // What stands at the provider, and an output without a limit, are corrected at the end.
    const isOpen = ['an earlier response', 'a file that stands at the provider', 'no limit of output'].includes(_)
    const used = isOpen ? 0 : (billed.inputTokens ?? 0) + (billed.outputTokens ?? 0)
    expect(reserveTokens).toBeGreaterThanOrEqual(used)
  })

  test('the bound of a large image is not that of its data', () => {
    const request = {
      model: 'gpt-4o',
      max_tokens: 1,
      messages: user([{ type: 'image_url', image_url: { url: image } }]),
    }
    expect(reserve(request).reserveTokens).toBeLessThan(60_000)
  })

  test('the simulator keeps to its limit too', () => {
    const request = { model: 'simulated/priced', messages: user('hello'), max_tokens: 5 }
    const body = Buffer.from(JSON.stringify(request))
    const { usage } = JSON.parse(simulatedAnswer('/v1/chat/completions', body, 64).body.toString()) as {
      usage: { prompt_tokens: number; completion_tokens: number }
    }
    const cost = (usage.prompt_tokens + 10 * usage.completion_tokens) / 1e6
    expect(usage.completion_tokens).toBe(5)
    expect(reserve(request, 'chat.completions', 'simulated').reserveUsd).toBeGreaterThanOrEqual(cost)
  })
})

describe('rates', () => {
  test('every rate of every model of the list is covered', () => {
    const usage = { input_tokens: 1_000_000, output_tokens: 1_000_000 }
    let checked = 0
    for (const lane of ['openai', 'anthropic'] as const) {
      for (const { id, prices } of findProvider({ providerId: lane })?.models ?? []) {
        // Two entries are for names that end in a date, and do not name themselves.
        if (Array.isArray(prices) || id.startsWith('ft:')) continue
        const operation = lane === 'openai' ? 'chat.completions' : 'messages'
        const request = { model: id, messages: user('x'), max_tokens: usage.output_tokens }
        const found = reserveOf(lane, id, boundsOf(operation, request, usage.input_tokens))
        for (const [name, rate] of Object.entries(prices)) {
          if (!name.endsWith('_mtok') || rate === undefined) continue
          const dearest = typeof rate === 'number' ? rate : Math.max(rate.base, ...rate.tiers.map(({ price }) => price))
          expect(found.reserveUsd, `${id} ${name}`).toBeGreaterThanOrEqual(dearest)
          checked += 1
        }
      }
    }
    expect(checked).toBeGreaterThan(200)
  })

  test('the simulator costs nothing unless it has a price', () => {
    const ask = (model: string) => reserve({ model, messages: user('x') }, 'chat.completions', 'simulated')
    expect(ask('simulated/small').reserveUsd).toBe(0)
    expect(ask('simulated/priced').reserveUsd).toBeGreaterThanOrEqual(0.01)
  })

  test("the operator's price wins, with the model's own limit", () => {
    const request = { model: 'own-1', messages: user('x') }
    const bytes = JSON.stringify(request).length
    expect(reserve(request).reserveUsd).toBeCloseTo((bytes + 1_024) / 1e6 + 0.01, 10)
    expect(reserve({ ...request, max_tokens: 10 }).reserveUsd).toBeCloseTo((bytes + 16 + 1_024) / 1e6 + 0.0001, 10)
  })

  test.each([
    ['an unknown model', { model: 'llama3.2', messages: user('x'), max_tokens: 1 }],
    ['a limit that is none', { model: 'own-1', messages: user('x'), max_tokens: 'many' }, 0.01],
    ['a search of the provider', { model: 'gpt-4o', input: 'x', tools: [{ type: 'web_search' }], max_tokens: 1 }],
    ['a search, also at the price of the operator', { model: 'own-1', messages: user('x'), web_search_options: {} }],
    ['a dearer tier', { model: 'gpt-4o', messages: user('x'), max_tokens: 1, service_tier: 'priority' }],
    ['a file, of a model whose context nobody knows', { model: 'own-1', messages: user([{ type: 'file', file: {} }]) }],
  ] as [string, Asked, number?][])('%s', (_, request, least) => {
    const { reserveUsd, reserveTokens } = reserve(request)
    expect(reserveUsd === null ? null : reserveUsd >= (least ?? Number.POSITIVE_INFINITY)).toBe(
      least === undefined ? null : true,
    )
    expect(reserveTokens).toBeGreaterThan(1_024)
  })

  test('absurd limits stay within the columns', () => {
    const found = reserve({ model: 'gpt-4o', messages: user('x'), max_tokens: 1e300 })
    expect(found).toEqual({ reserveUsd: 999_999_999, reserveTokens: 2_147_483_647 })
  })
})
