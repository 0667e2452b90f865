import { describe, expect, test } from 'vitest'
import type { Operation, Verdict } from '@askonce/core'
import { createProvider, type ProviderCall } from '@askonce/providers'

const lane = { name: 'simulated', kind: 'simulated', baseUrl: null, apiKey: null } as const

interface Seen {
  verdict: Verdict
  shown: string
  /** Milliseconds from the start to each call of onEvents. */
  times: number[]
  ids: string[]
}

async function simulate(
  operation: Operation,
  { latencyMs = 0, failureRate = 0 } = {},
  more: Partial<ProviderCall> & { onEvents?: () => void } = {},
): Promise<Seen> {
  const provider = createProvider(lane, { simulated: { latencyMs, tokens: 20, failureRate }, prices: [] })
  const seen: Omit<Seen, 'verdict'> = { shown: '', times: [], ids: [] }
  const { onEvents, ...call } = more
  const started = performance.now()
  const verdict = await provider.call({
    operation,
    model: 'simulated/a',
    request: Buffer.from('{"model":"simulated/a","stream":true}'),
    timeoutMs: 5_000,
    signal: new AbortController().signal,
    stream: {
      onEvents: (events) => {
        seen.shown += events.toString()
        seen.times.push(performance.now() - started)
        onEvents?.()
      },
      onAnswerId: (id) => seen.ids.push(id),
    },
    ...call,
  })
  return { ...seen, verdict }
}

describe.each(['chat.completions', 'responses', 'messages'] as const)('a simulated stream of %s', (operation) => {
  test('is an answer that says that it is simulated, and costs nothing', async () => {
    const { verdict, shown, ids } = await simulate(operation)
    const usage = { inputTokens: Math.ceil('{"model":"simulated/a"}'.length / 4), outputTokens: 20, costUsd: 0 }
    expect(verdict).toMatchObject({ kind: 'answer', flags: ['simulated'], usage, answerId: ids[0] })
    expect(ids).toEqual([expect.stringMatching(/^sim_/)])
    const body = verdict.kind === 'answer' ? verdict.body.toString() : ''
    expect(body).toContain('"system_fingerprint":"simulated"')
    expect(body.startsWith(shown)).toBe(true)
    expect(body.length).toBeGreaterThan(shown.length)
  })

  test('begins at once and is spread over its time', async () => {
    const { verdict, times } = await simulate(operation, { latencyMs: 400 })
    expect(verdict.kind).toBe('answer')
    // At least 320 ms in steps of 20 words.
    const last = times.at(-1) ?? 0
    expect(last, 'the last event is late').toBeGreaterThan(200)
    expect(times[0], 'the first is early').toBeLessThan(last / 2)
    expect(times.length, 'they come one by one').toBeGreaterThan(3)
  })

  test('times out, is aborted, and fails as a plain one does', async () => {
    const unknown = { kind: 'unknown', billing: 'maybe', sent: true, providerStatus: 200 }
    const late = await simulate(operation, { latencyMs: 10_000 }, { timeoutMs: 50 })
    expect(late.verdict).toMatchObject({ ...unknown, code: 'timeout' })
    expect(late.times.length).toBeGreaterThan(0)
    const abort = new AbortController()
    const more = { signal: abort.signal, onEvents: () => abort.abort() }
    const aborted = await simulate(operation, { latencyMs: 10_000 }, more)
    expect(aborted.verdict).toMatchObject({ ...unknown, code: 'connection_lost' })
    expect(aborted.times).toHaveLength(1)
    const failed = await simulate(operation, { failureRate: 1 })
    expect(failed.verdict).toMatchObject({ billing: 'none', sent: true, body: { contentType: 'application/json' } })
    expect(failed.times).toEqual([])
  })
})

test('embeddings have no streams: the plain answer is one', async () => {
  const { verdict, shown } = await simulate('embeddings')
  expect(verdict).toMatchObject({ kind: 'answer', contentType: 'application/json', answerId: null })
  expect(shown).toBe('')
})
