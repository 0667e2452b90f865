import { leakCheck } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { chat, startHarness, type Harness } from './harness.ts'

let harness: Harness
let id: string

beforeAll(async () => {
  harness = await startHarness()
})
afterAll(async () => {
  await harness.stop()
  await leakCheck()
})

/** What every row of the table must say of an answer that is a job. */
function gist({ status, headers, json }: Awaited<ReturnType<Harness['submit']>>) {
  return {
    status,
    replayed: headers.get('idempotent-replayed'),
    state: json.state,
    generation: json.generation,
    location: headers.get('location') === `/v1/jobs/${json.id}`,
    body: json.replayed,
  }
}

const uncertain = { action: 'unknown', outcome: 'unknown', billing: 'maybe', errorCode: 'timeout' } as const
const rejected = { action: 'stop', outcome: 'rejected', billing: 'none' } as const

// DESIGN.md §3, row by row.
describe('what a submission gets', () => {
  it('400 without a key', async () => {
    const { status, json } = await harness.call('POST', '/v1/jobs', { body: chat() })
    expect([status, json.code, json.error.param]).toEqual([400, 'idempotency_key_missing', 'Idempotency-Key'])
  })

  it('202 and Location for a new key', async () => {
    const reply = await harness.submit('new', chat('new', { metadata: { run: '7' }, priority: 2 }))
    id = reply.json.id
    expect(gist(reply)).toEqual({
      status: 202,
      replayed: 'false',
      state: 'queued',
      generation: 1,
      location: true,
      body: false,
    })
    expect(reply.json).toMatchObject({
      object: 'job',
      key: 'new',
      operation: 'chat.completions',
      model: 'simulated/small',
      attempts: 0,
      response: null,
      error: null,
      flags: [],
      waiting_for: null,
      metadata: { run: '7' },
      usage: { input_tokens: null, output_tokens: null, cost_usd: null, paid_attempts: 0, maybe_paid_attempts: 0 },
      started_at: null,
      completed_at: null,
      expires_at: null,
    })
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7/)
    expect(harness.woken).toContain('simulated')
  })

  it('422 with pointers for another request, whatever the state, and no values', async () => {
    const other = { operation: 'chat.completions', request: { ...chat('secret text').request, temperature: 0.5 } }
    const { status, json, headers, text } = await harness.submit('new', other)
    expect([status, json.code, headers.get('x-should-retry')]).toEqual([422, 'idempotency_key_reused', 'false'])
    expect(json.pointers).toEqual(['/request/messages/0/content', '/request/temperature'])
    expect(json.detail).toContain('/request/temperature')
    expect(text).not.toContain('secret')
    const operation = await harness.submit('new', { ...chat('new'), operation: 'messages' })
    expect([operation.status, operation.json.pointers]).toEqual([422, ['/operation']])
  })

  it('202 and the same job while it is queued or running; options of a later submission change nothing', async () => {
    const attached = await harness.submit('new', { ...chat('new'), priority: 9, metadata: {}, ttl_seconds: 1 })
    expect(gist(attached)).toMatchObject({ status: 202, replayed: 'true', state: 'queued', generation: 1, body: true })
    expect(attached.json).toMatchObject({ id, metadata: { run: '7' } })
    const claim = await harness.claim(id)
    expect(claim).toMatchObject({ id, attempt: 1 })
    const running = await harness.submit('new', chat('new'))
    expect(gist(running)).toMatchObject({ status: 202, replayed: 'true', state: 'running' })
    expect(running.json.usage).toMatchObject({ paid_attempts: 0, maybe_paid_attempts: 0 })
    // Key order, white space and number forms do not make another request.
    const reordered = `{"request": {"messages": [{"content": "new", "role": "user"}], "model": "simulated/small"}, "operation":"chat.completions"}`
    const same = await harness.call('POST', '/v1/jobs', { body: reordered, headers: { 'idempotency-key': '"new"' } })
    expect([same.status, same.json.id]).toEqual([202, id])
    await harness.answer(claim, '{"id": 1.0,  "big":9007199254740993,\n"text":"é"}')
  })

  it('200 and the stored answer once it has succeeded: byte for byte, with the dispatcher down', async () => {
    const reply = await harness.submit('new', chat('new'))
    expect(gist(reply)).toEqual({
      status: 200,
      replayed: 'true',
      state: 'succeeded',
      generation: 1,
      location: true,
      body: true,
    })
    expect(reply.text).toContain('"response":{"id": 1.0,  "big":9007199254740993,\n"text":"é"},"error":null')
    expect(reply.json.usage).toEqual({
      input_tokens: 11,
      output_tokens: 7,
      cost_usd: 0.0025,
      paid_attempts: 1,
      maybe_paid_attempts: 0,
    })
    const stored = await harness.call('GET', `/v1/jobs/${id}/response`)
    expect(stored.text).toBe('{"id": 1.0,  "big":9007199254740993,\n"text":"é"}')
    const mismatch = await harness.submit('new', chat('other'))
    expect(mismatch.status).toBe(422)
  })

  it('202 and a rerun for a failed key that may run unasked; 200 and the failed job for one that may not', async () => {
    const { json: original } = await harness.submit('fails', chat('fails'))
    const claim = await harness.claim(original.id)
    await harness.end(claim, rejected)
    harness.woken.length = 0
    const rerun = await harness.submit('fails', chat('fails'))
    expect(gist(rerun)).toMatchObject({ status: 202, replayed: 'false', state: 'queued', generation: 2, body: false })
    expect(rerun.json.id).toBe(original.id)
    expect(harness.woken).toEqual(['simulated'])

    const body = chat('paid', { on_uncertain: 'fail' })
    const paid = (await harness.submit('paid', body)).json
    const maybe = await harness.claim(paid.id)
    await harness.end(maybe, uncertain)
    const kept = await harness.submit('paid', body)
    expect(gist(kept)).toMatchObject({ status: 200, replayed: 'true', state: 'failed', generation: 1, body: true })
    expect(kept.json.error).toMatchObject({ code: 'provider_rejected', retryable: false })
    expect(kept.json.usage).toMatchObject({ paid_attempts: 0, maybe_paid_attempts: 1 })
  })

  it('202 and the held job while it is uncertain', async () => {
    const body = chat('held', { on_uncertain: 'hold' })
    const job = (await harness.submit('held', body)).json
    const claim = await harness.claim(job.id)
    await harness.end(claim, uncertain)
    expect(gist(await harness.submit('held', body, { prefer: 'wait=30' }))).toMatchObject({
      status: 202,
      replayed: 'true',
      state: 'uncertain',
    })
  })

  it('200 and the cancelled job once it is cancelled; retry runs it again', async () => {
    const job = (await harness.submit('stop', chat('stop'))).json
    await harness.call('POST', `/v1/jobs/${job.id}/cancel`)
    expect(gist(await harness.submit('stop', chat('stop')))).toMatchObject({
      status: 200,
      replayed: 'true',
      state: 'cancelled',
    })
    const retried = await harness.call('POST', `/v1/jobs/${job.id}/retry`)
    expect([retried.status, retried.json.state, retried.json.generation]).toEqual([202, 'queued', 2])
  })

  it('202 and a new id for an expired key, also for another request; the old id is gone', async () => {
    const old = (await harness.submit('short', chat('short', { ttl_seconds: 1 }))).json
    const claim = await harness.claim(old.id)
    await harness.answer(claim, '{}')
    await harness.sql(`update jobs set expires_at = now() - interval '1 second' where id = $1`, [old.id])
    expect((await harness.call('GET', `/v1/jobs/${old.id}`)).status).toBe(404)
    const renewed = await harness.submit('short', chat('another request'))
    expect(gist(renewed)).toMatchObject({ status: 202, replayed: 'false', generation: 1 })
    expect(renewed.json.id).not.toBe(old.id)
    expect((await harness.call('GET', `/v1/jobs/${old.id}/response`)).status).toBe(404)
  })

  it('counts what submissions got', async () => {
    const { text } = await harness.call('GET', '/metrics', { key: null })
    for (const outcome of ['new', 'rerun', 'attached', 'replayed', 'mismatch']) {
      expect(text).toMatch(new RegExp(`askonce_submissions_total\\{outcome="${outcome}"\\} [1-9]`))
    }
  })
})

describe('a herd', () => {
  it('gets one job, one creator and no error; equal keys of a batch are told apart by their requests', async () => {
    const replies = await Promise.all(Array.from({ length: 100 }, () => harness.submit('herd', chat('herd'))))
    expect(new Set(replies.map(({ json }) => json.id)).size).toBe(1)
    expect(replies.filter(({ headers }) => headers.get('idempotent-replayed') === 'false')).toHaveLength(1)
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([202]))
    const mixed = await Promise.all([1, 2, 1, 2, 1].map((n) => harness.submit('mixed', chat(`mixed ${n}`))))
    expect(mixed.map(({ status }) => status)).not.toContain(500)
    expect(mixed.filter(({ status }) => status === 422).length).toBeGreaterThanOrEqual(2)
  })
})

describe('delivery options', () => {
  it('keeps what was sent, byte for byte, and what was asked for', async () => {
    const text = `{"operation":"embeddings", "request" : { "model":"simulated/e",  "input":["ä", "\\u00e4"], "seed": 12345678901234567890 }, "ttl_seconds": 60,
      "deadline_seconds": 61, "timeout_seconds": 62, "max_attempts": 63, "max_paid_attempts": 4, "on_uncertain": "hold", "delay_seconds": 5}`
    const { json } = await harness.call('POST', '/v1/jobs', { body: text, headers: { 'idempotency-key': 'options' } })
    const [row] = await harness.sql(
      "select *, run_at - created_at = interval '5 seconds' as delayed, deadline_at - run_at = interval '61 seconds' as deadline from jobs join requests on job_id = id where id = $1",
      [json.id],
    )
    expect((row?.['request'] as Buffer | undefined)?.toString()).toBe(
      '{ "model":"simulated/e",  "input":["ä", "\\u00e4"], "seed": 12345678901234567890 }',
    )
    expect(row).toMatchObject({
      ttl_seconds: 60,
      deadline_seconds: 61,
      timeout_ms: 62_000,
      max_attempts: 63,
      max_paid_attempts: 4,
      on_uncertain: 'hold',
      priority: 5,
      delayed: true,
      deadline: true,
    })
    // Two integers that a double cannot tell apart are two requests.
    const other = text.replace('12345678901234567890', '12345678901234567891')
    const reply = await harness.call('POST', '/v1/jobs', { body: other, headers: { 'idempotency-key': 'options' } })
    expect([reply.status, reply.json.pointers]).toEqual([422, ['/request/seed']])
  })

  it('takes a time of its own with any offset; one that has passed means now', async () => {
    const at = new Date(Date.now() + 3_600_000)
    const later = await harness.submit('later', chat('later', { run_at: at.toISOString().replace('Z', '+00:00') }))
    expect(later.json.run_at).toBe(at.toISOString())
    const past = await harness.submit('past', chat('past', { run_at: '2020-01-01T00:00:00Z' }))
    expect(Date.parse(past.json.deadline_at)).toBeGreaterThan(Date.now())
    expect(past.json.run_at).toBe(past.json.created_at)
  })

  it('wakes nobody for what makes no job run', async () => {
    await harness.submit('wakes', chat('wakes'))
    harness.woken.length = 0
    await harness.submit('wakes', chat('wakes'))
    expect(harness.woken).toEqual([])
    await harness.submit('wakes-now', chat('wakes now'))
    expect(harness.woken).toEqual(['simulated'])
  })

  it('says of a job in a stopped lane what it waits for, and wakes its workers when the lane is resumed', async () => {
    await harness.sql(
      `insert into lanes (name, state, code, reason) values ('simulated', 'stopped', 'provider_auth', 'wrong key')`,
    )
    await harness.call('GET', '/v1/lanes')
    const { json } = await harness.submit('closed', chat('closed'))
    const reason = 'The provider refused the credentials; the lane is stopped'
    expect(json.waiting_for).toEqual({ kind: 'lane', name: 'simulated', reason, until: null })
    await harness.call('POST', '/v1/lanes/simulated/resume')
    expect((await harness.call('GET', `/v1/jobs/${json.id}`)).json.waiting_for).toBeNull()
  })

  it('of a paused model’s jobs the readers are told, and of no others; only an operator reads the provider’s words', async () => {
    await harness.sql(
      `insert into lanes (name, model, state, code, reason, until)
       values ('simulated', 'simulated/paused', 'paused', 'provider_rate_limited', 'said about ft:acme', now() + interval '1 hour')`,
    )
    await harness.call('GET', '/v1/lanes')
    const paused = chat('model paused')
    paused.request['model'] = 'simulated/paused'
    const { json } = await harness.submit('model-paused', paused)
    expect(json.waiting_for).toMatchObject({
      kind: 'lane',
      name: 'simulated',
      reason: 'Model simulated/paused: The provider asked to wait',
    })
    const other = await harness.submit('model-other', chat('model other'))
    expect(other.json.waiting_for).toBeNull()
    expect(harness.woken.at(-1)).toBe('simulated')

    const listed = (await harness.call('GET', '/v1/lanes')).json as unknown as { data: unknown[] }
    expect(listed.data).toContainEqual(
      expect.objectContaining({
        name: 'simulated',
        state: 'open',
        models: [expect.objectContaining({ model: 'simulated/paused', reason: 'said about ft:acme' })],
      }),
    )
    const textOf = async (path: string): Promise<string> => (await harness.call('GET', path)).text
    const own = await textOf(`/v1/jobs/${json.id}`)
    const [ready, metrics] = [await textOf('/readyz'), await textOf('/metrics')]
    expect(own + ready + metrics).not.toContain('acme')
    expect(ready + metrics).not.toContain('simulated/paused')
    expect(metrics).toContain('askonce_lane_paused_models{lane="simulated"} 1')

    const resumed = await harness.call('POST', '/v1/lanes/simulated/resume', { body: { model: 'simulated/paused' } })
    expect(resumed.json).toMatchObject({ name: 'simulated', state: 'open', models: [] })
    expect((await harness.call('GET', `/v1/jobs/${json.id}`)).json.waiting_for).toBeNull()
  })
})
