import { describe, expect, test } from 'vitest'
import { parseBaseUrl } from '../../packages/providers/src/endpoint.ts'
import { createPriceBook } from '../../packages/providers/src/prices.ts'

const chat = { usage: { prompt_tokens: 1_000_000, completion_tokens: 100_000 } }

describe('price list', () => {
  const openai = createPriceBook('openai', parseBaseUrl('openai', null), [])
  const anthropic = createPriceBook('anthropic', parseBaseUrl('anthropic', null), [])

  test.each([
    ['the model of the answer', 'whatever', { model: 'gpt-4o-mini-2024-07-18', ...chat }, 0.21],
    ['the model of the request', 'gpt-4o-mini', { model: 'my-deployment', ...chat }, 0.21],
    ['an unknown model', 'llama3.2', { model: 'llama3.2', ...chat }, null],
    ['an unknown model of a known maker', 'gpt-oss:20b', chat, null],
  ])('%s', (_, model, answer, costUsd) => {
    const usage = { inputTokens: 1_000_000, outputTokens: 100_000, costUsd }
    expect(openai.usageOf('chat.completions', model, answer)).toEqual(usage)
    expect(openai.usageOf('chat.completions', model, answer), 'the same from the cache').toEqual(usage)
  })

  test('cached input is cheaper', () => {
    const details = { ...chat.usage, prompt_tokens_details: { cached_tokens: 1_000_000 } }
    expect(openai.usageOf('chat.completions', 'gpt-4o-mini', { usage: details }).costUsd).toBe(0.135)
  })

  test('Anthropic counts cache tokens apart: they are input too', () => {
    const usage = {
      input_tokens: 1_000,
      cache_creation_input_tokens: 2_000,
      cache_read_input_tokens: 3_000,
      output_tokens: 10,
    }
    const found = anthropic.usageOf('messages', 'claude-sonnet-4-0', { usage })
    // 3, 3.75, 0.30 and 15 dollars a million.
    expect(found).toEqual({ inputTokens: 6_000, outputTokens: 10, costUsd: 0.01155 })
  })

  test('responses and embeddings', () => {
    const responses = { usage: { input_tokens: 1_000_000, output_tokens: 0 } }
    expect(openai.usageOf('responses', 'gpt-4o-mini', responses).costUsd).toBe(0.15)
    const embeddings = { usage: { prompt_tokens: 3, total_tokens: 3 } }
    const expected = { inputTokens: 3, outputTokens: null, costUsd: 0.00000006 }
    expect(openai.usageOf('embeddings', 'text-embedding-3-small', embeddings)).toEqual(expected)
  })

  test.each([
    ['no usage', {}],
    ['null', { usage: null }],
    ['words', { usage: { prompt_tokens: 'many', completion_tokens: {} } }],
    ['negative', { usage: { prompt_tokens: -5, completion_tokens: -1 } }],
    ['parts', { usage: { prompt_tokens: 1.5, completion_tokens: 2 ** 60 } }],
  ])('usage that makes no sense (%s) is unknown, not an exception', (_, answer) => {
    expect(openai.usageOf('chat.completions', 'gpt-4o-mini', answer)).toMatchObject({
      inputTokens: null,
      outputTokens: null,
    })
  })

  test('the list of the host where it is known, else that of the API spoken', () => {
    const costAt = (url: string, model: string): number | null =>
      createPriceBook('openai', parseBaseUrl('openai', url), []).usageOf('chat.completions', model, chat).costUsd
    expect(costAt('http://127.0.0.1:4000/v1', 'gpt-4o-mini')).toBe(0.21)
    expect(costAt('https://api.groq.com/openai/v1', 'llama-3.3-70b-versatile')).toBeGreaterThan(0)
    expect(costAt('https://api.groq.com/openai/v1', 'gpt-4o-mini')).toBeNull()
  })
})

describe('overrides', () => {
  const prices = [
    { model: 'corp/*', inputPerMillionUsd: 1, outputPerMillionUsd: 10 },
    { model: 'gpt-4o-mini', inputPerMillionUsd: 0, outputPerMillionUsd: 0 },
    { model: '*', inputPerMillionUsd: 5, outputPerMillionUsd: 5 },
  ]
  const book = createPriceBook('openai', null, prices)
  test.each([
    ['corp/a.b', 2],
    ['gpt-4o-mini', 0],
    ['corp', 5.5],
  ])('%s: the first that matches', (model, costUsd) => {
    expect(book.usageOf('chat.completions', model, chat).costUsd).toBe(costUsd)
  })

  test('no price without tokens', () => {
    expect(book.usageOf('chat.completions', 'corp/a', {}).costUsd).toBeNull()
  })
})

test('simulated calls cost nothing', () => {
  expect(createPriceBook('simulated', null, []).usageOf('chat.completions', 'gpt-4o-mini', chat).costUsd).toBe(0)
})

test('many model names do not fill the memory, and a lookup is cheap', () => {
  const book = createPriceBook('openai', null, [])
  for (let n = 0; n < 3_000; n += 1) book.usageOf('chat.completions', `gpt-4o-mini-${n}`, chat)
  const started = performance.now()
  for (let n = 0; n < 1_000; n += 1) book.usageOf('chat.completions', 'gpt-4o-mini', chat)
  expect(performance.now() - started).toBeLessThan(500)
})
