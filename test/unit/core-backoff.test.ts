import fc from 'fast-check'
import {
  backoffBaseMs,
  backoffCapMs,
  backoffMs,
  backoffOverloadedBaseMs,
  errorRegistry,
  jobError,
  routeModel,
  type ErrorCode,
  type RoutableLane,
} from '@askonce/core'
import { describe, expect, it } from 'vitest'

const unit = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
const reruns = fc.integer({ min: 0, max: 1_000_000 })

describe('backoffMs', () => {
  it('is full jitter over a doubling window with a cap', () => {
    fc.assert(
      fc.property(reruns, fc.boolean(), unit, (count, overloaded, random) => {
        const base = overloaded ? backoffOverloadedBaseMs : backoffBaseMs
        const window = Math.min(backoffCapMs, base * 2 ** Math.min(count, 60))
        const ms = backoffMs({ reruns: count, overloaded, retryAfterMs: null, random })
        expect(ms).toBe(Math.floor(window * random))
      }),
    )
  })

  it.each([
    [0, false, 1_000],
    [1, false, 2_000],
    [0, true, 2_000],
    [3, true, 16_000],
    [8, false, 256_000],
    [9, false, 300_000],
    [1_000_000, true, 300_000],
  ])('rerun %i, overloaded %s: the window is %i ms', (count, overloaded, window) => {
    const at = (random: number): number => backoffMs({ reruns: count, overloaded, retryAfterMs: null, random })
    expect([at(0), at(0.5), at(1)]).toEqual([0, window / 2, window])
  })

  it('is never less than the provider asked for, and not much more', () => {
    fc.assert(
      fc.property(reruns, fc.integer({ min: 0, max: 10_000_000 }), unit, (count, retryAfterMs, random) => {
        const ms = backoffMs({ reruns: count, overloaded: false, retryAfterMs, random })
        expect(ms).toBeGreaterThanOrEqual(retryAfterMs)
        expect(ms).toBeLessThanOrEqual(Math.max(backoffCapMs, retryAfterMs + backoffCapMs / 10))
        // What the provider asks for is the minimum: our own backoff is not cut short by it.
        expect(ms).toBeGreaterThanOrEqual(backoffMs({ reruns: count, overloaded: false, retryAfterMs: null, random }))
      }),
    )
  })
})

describe('routeModel', () => {
  const lane = (name: string, kind: RoutableLane['kind'], models: string[] = []): RoutableLane => ({
    name,
    kind,
    models,
  })
  const simulated = lane('simulated', 'simulated')
  const openai = lane('openai', 'openai')
  const anthropic = lane('anthropic', 'anthropic')

  it.each<[string, string, RoutableLane[], string]>([
    ['simulated/small', 'to the simulated provider when no real one is on', [simulated], 'simulated'],
    ['claude-x', 'to Anthropic', [simulated, openai, anthropic], 'anthropic'],
    ['gpt-x', 'to OpenAI', [simulated, openai, anthropic], 'openai'],
    ['simulated/fast', 'to the simulated provider beside real ones', [openai, simulated], 'simulated'],
    ['llama-3', 'to the lane that claims it', [openai, lane('local', 'openai', ['llama-*', 'qwen*'])], 'local'],
    [
      'claude-x',
      'to the first lane that claims it',
      [anthropic, lane('a', 'openai', ['*']), lane('b', 'openai', ['claude*'])],
      'a',
    ],
    ['a.b', 'by a pattern without wildcards', [openai, lane('exact', 'openai', ['a.b'])], 'exact'],
    ['axb', 'not by a pattern whose dot is a dot', [openai, lane('exact', 'openai', ['a.b'])], 'openai'],
    ['org/model:7b+(x)', 'by a pattern with special characters', [lane('local', 'openai', ['org/*:7b+(x)'])], 'local'],
    ['a\nb', 'whatever the characters', [lane('local', 'openai', ['a*b'])], 'local'],
  ])('%j goes %s', (model, _, lanes, name) => {
    expect(routeModel(model, lanes)).toEqual({ ok: true, lane: name })
  })

  it.each([
    ['claude-x', [simulated], 'ANTHROPIC_API_KEY'],
    ['gpt-4.1', [simulated], 'OPENAI_API_KEY'],
    ['simulated', [simulated], 'OPENAI_API_KEY'],
    ['claude-x', [simulated, openai], 'ANTHROPIC_API_KEY'],
    ['gpt-x', [simulated, anthropic], 'OPENAI_API_KEY'],
    ['gpt-x', [lane('local', 'openai', ['llama*'])], 'OPENAI_BASE_URL'],
  ])('%j without its provider is refused, naming the variable', (model, lanes, variable) => {
    const route = routeModel(model, lanes)
    expect(route).toMatchObject({ ok: false, detail: expect.stringContaining(variable) as string })
    expect(route).toMatchObject({ detail: expect.stringContaining(JSON.stringify(model)) as string })
  })

  it('gives the simulated provider nothing but simulated/*, whatever is on', () => {
    const lanes = fc.subarray([openai, anthropic, lane('local', 'openai', ['llama-*'])])
    fc.assert(
      fc.property(fc.string(), lanes, (model, on) => {
        const route = routeModel(model, [...on, simulated])
        expect(route.ok && route.lane === 'simulated').toBe(model.startsWith('simulated/'))
      }),
    )
    expect(routeModel('simulated/x', [openai, simulated])).toEqual({ ok: true, lane: 'simulated' })
  })

  it('finds some lane or says why, for any model', () => {
    fc.assert(
      fc.property(fc.string(), (model) => {
        const route = routeModel(model, [simulated, openai, anthropic])
        expect(route.ok).toBe(true)
      }),
    )
  })
})

describe('the error registry', () => {
  it('gives each job error the registry’s word on retrying', () => {
    for (const [code, { retryable, title }] of Object.entries(errorRegistry)) {
      expect(jobError(code as ErrorCode)).toEqual({ code, message: title, retryable, provider_status: null })
    }
    expect(jobError('provider_error', 'why', 500)).toMatchObject({ message: 'why', provider_status: 500 })
  })

  it('answers retryable statuses with retryable codes only', () => {
    for (const [code, { status, retryable }] of Object.entries(errorRegistry)) {
      // 502: the SDKs would run a failed job again.
      expect(status === null || retryable === (status === 429 || (status >= 500 && status !== 502)), code).toBe(true)
    }
  })
})
