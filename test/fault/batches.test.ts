import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { apiKey, startSystem, until, type System } from './system.ts'

/** 20,000 before a release; enough here for every process to die in the middle. */
const lines = Number(process.env['ASKONCE_TEST_BATCH_LINES'] ?? 2_000)
/** One more than workers die: a line may lose each of them, and one that has used up its budget would wait for a decision. */
const maxPaid = 4
const concurrency = 40
const headers = { authorization: `Bearer ${apiKey}` }

interface Batch {
  id: string
  status: string
  output_file_id: string | null
  error_file_id: string | null
  request_counts: { total: number; completed: number; failed: number }
}

// DESIGN.md §1.1 and §1.3 for the lines of a file: every step of a batch is a commit, and any process goes on behind it.
// Not covered: a cancellation, or the end of the window, between two kills, and uploads that are cut off (test/contract/sdk has those
// without kills). Batches of the Anthropic routes have the same driver.
describe('a batch whose processes are killed', () => {
  let system: System
  beforeAll(async () => {
    system = await startSystem('redis')
  })
  afterAll(() => system.stop())

  test('janitors, API, worker and Redis die, again and again: it ends complete, each line once in the output, no line paid beyond its budget', async () => {
    const content = Array.from(
      { length: lines },
      (_, index) =>
        `${JSON.stringify({
          custom_id: `line-${index}`,
          method: 'POST',
          url: '/v1/chat/completions',
          body: { model: 'gpt-test', user: `line-${index}`, messages: [{ role: 'user', content: 'x'.repeat(200) }] },
        })}\n`,
    ).join('')
    await system.upstream.script([{ kind: 'answer', delayMs: 50, times: 1_000_000 }])
    let api = await system.api()
    const call = async <T>(
      path: string,
      init: Omit<RequestInit, 'headers'> & { headers?: Record<string, string> } = {},
    ): Promise<T> =>
      (await (await fetch(api.address + path, { ...init, headers: { ...headers, ...init.headers } })).json()) as T
    const form = new FormData()
    form.set('purpose', 'batch')
    form.set('file', new Blob([content]), 'input.jsonl')
    const file = await call<{ id: string }>('/openai/v1/files', { method: 'POST', body: form })
    const body = JSON.stringify({ input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h' })
    const json = { 'content-type': 'application/json' }
    const { id } = await call<Batch>('/openai/v1/batches', { method: 'POST', headers: json, body })
    const done = async (): Promise<number> =>
      (await system.sql<{ done: number }>('select done from batches'))[0]?.done ?? 0
    const scanned = async (): Promise<number> =>
      (await system.sql<{ total: number }>('select total from batches'))[0]?.total ?? 0
    const environment = {
      ASKONCE_CONCURRENCY: String(concurrency),
      ASKONCE_LEASE_SECONDS: '3',
      ASKONCE_DEFAULT_MAX_PAID_ATTEMPTS: String(maxPaid),
    }

    // In the middle of the validation, or right behind it.
    let janitor = await system.started('janitor', environment)
    await until(scanned, (count) => count > 0, 60_000)
    await janitor.kill()
    // Its lease is what keeps others away for seconds.
    await system.sql('update batches set leased_until = now() where lease is not null')
    janitor = await system.started('janitor', environment)
    let worker = await system.started('worker', environment)
    // Two on one batch, from here to the end: the lease says whose turn it is.
    await system.started('janitor', environment)

    for (const share of [0.1, 0.3, 0.5]) {
      await until(done, (count) => count >= lines * share, 120_000)
      await Promise.all([janitor.kill(), worker.kill()])
      await api.child.kill()
      // Without an append-only file: it comes back without any wake-up.
      if (share === 0.3) await system.redis?.kill()
      if (share === 0.3) await system.redis?.restart()
      ;[api, janitor, worker] = await Promise.all([
        system.api(),
        system.started('janitor', environment),
        system.started('worker', environment),
      ])
    }
    const batch = await until(
      () => call<Batch>(`/openai/v1/batches/${id}`),
      ({ status }) => status === 'completed',
      Math.max(120_000, lines * 30),
    )
    expect(batch.request_counts).toEqual({ total: lines, completed: lines, failed: 0 })
    expect(batch.error_file_id).toBeNull()
    const reply = await fetch(`${api.address}/openai/v1/files/${batch.output_file_id}/content`, { headers })
    const output = (await reply.text()).trimEnd().split('\n')
    const ids = output.map((line) => (JSON.parse(line) as { custom_id: string }).custom_id)
    expect(ids).toHaveLength(lines)
    expect(new Set(ids)).toEqual(new Set(Array.from({ length: lines }, (_, index) => `line-${index}`)))

    // Line by line: each call has its row in the ledger, none is beyond the budget, and a paid row without a call, or a second one, is of a
    // worker that died with it in its hands.
    const calls = await system.upstream.callsBy()
    expect(Object.keys(calls)).toHaveLength(lines)
    const ledger = await system.sql<{ line: string; paid: number; lost: number; answers: number }>(
      `select
        substring(idempotency_key from '[^/]+$') as line,
        count(*) filter (where billing in ('maybe', 'billed'))::int as paid,
        count(*) filter (where outcome = 'lost')::int as lost,
        count(*) filter (where outcome = 'answered' and billing = 'billed')::int as answers
      from attempts group by job_id, idempotency_key`,
    )
    expect(ledger).toHaveLength(lines)
    const wrong = ledger.filter(({ line, paid, lost, answers }) => {
      const called = calls[line] ?? 0
      return answers !== 1 || called > paid || paid > maxPaid || paid - called > lost || called - 1 > lost
    })
    expect(wrong).toEqual([])
    const twice = Object.values(calls).filter((count) => count > 1).length
    expect(twice).toBeLessThanOrEqual(3 * concurrency)
    expect(await system.sql('select 1 from attempts where finished_at is null')).toEqual([])
  }, 900_000)
})
