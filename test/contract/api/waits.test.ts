import { notify, settledChannel } from '@askonce/store'
import { leakCheck } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { at, callApi, chat, startHarness, startOn, type Harness } from './harness.ts'

let harness: Harness

beforeAll(async () => {
  harness = await startHarness()
})
afterAll(async () => {
  await harness.stop()
  await leakCheck()
})

const waiters = async (): Promise<number> => (await harness.metrics.waiters.get()).values[0]?.value ?? 0
async function untilWaiting(count: number): Promise<void> {
  await expect.poll(waiters, { interval: 5, timeout: 20_000 }).toBe(count)
}

async function timed<T>(run: Promise<T>): Promise<{ result: T; tookMs: number }> {
  const sinceMs = performance.now()
  const result = await run
  return { result, tookMs: performance.now() - sinceMs }
}

describe('waiting', () => {
  it('ends when the answer comes, by a notification or without one', async () => {
    for (const announced of [true, false]) {
      const key = `arrives-${announced}`
      const waiting = timed(harness.submit(key, chat(key), { prefer: 'respond-async, wait=20; x=y' }))
      await untilWaiting(1)
      const [row] = await harness.sql('select id from jobs where idempotency_key = $1', [key])
      const id = row?.id as string
      const alsoWaiting = harness.call('GET', `/v1/jobs/${id}?wait=20`)
      await untilWaiting(2)
      const claim = await harness.claim(id)
      await harness.answer(claim, '{"ok":1}')
      if (announced) await notify(harness.database.db, settledChannel, [id])
      const { result, tookMs } = await waiting
      expect([result.status, result.json.state, result.json.response]).toEqual([200, 'succeeded', { ok: 1 }])
      expect(result.headers.get('preference-applied')).toBe('wait=20')
      expect(result.headers.get('idempotent-replayed')).toBe('false')
      expect(tookMs).toBeLessThan(10_000)
      const read = await alsoWaiting
      expect([read.status, read.json.state, read.headers.has('preference-applied')]).toEqual([200, 'succeeded', false])
      await untilWaiting(0)
    }
  })

  it('ends for a failed, uncertain, cancelled or deleted job', async () => {
    const jobs = await Promise.all(
      ['a', 'b', 'c'].map((key) => harness.submit(key, chat(key, { on_uncertain: 'hold' }))),
    )
    const ids = jobs.map(({ json }) => json.id)
    const waiting = ids.map((id) => harness.call('GET', `/v1/jobs/${id}`, { headers: { prefer: 'wait="20"' } }))
    await untilWaiting(3)
    const [fails, held] = [await harness.claim(at(ids, 0)), await harness.claim(at(ids, 1))]
    await harness.end(fails, { action: 'stop', outcome: 'rejected' })
    await harness.end(held, { action: 'unknown', outcome: 'unknown', billing: 'maybe' })
    await harness.call('POST', `/v1/jobs/${ids[2]}/cancel`)
    const states = (await Promise.all(waiting)).map(({ json }) => json.state)
    expect(states).toEqual(['failed', 'uncertain', 'cancelled'])

    const { json } = await harness.submit('d', chat('d'))
    const gone = harness.call('GET', `/v1/jobs/${json.id}?wait=20`)
    await untilWaiting(1)
    await harness.sql('delete from jobs where id = $1', [json.id])
    expect((await gone).status).toBe(404)
  })

  it('answers with the present state when the time is up', async () => {
    const { result, tookMs } = await timed(harness.submit('slow', chat('slow'), { prefer: 'wait=1' }))
    expect([result.status, result.json.state]).toEqual([202, 'queued'])
    expect(tookMs).toBeGreaterThan(950)
    expect(tookMs).toBeLessThan(20_000)
    const none = await harness.submit('slow', chat('slow'), { prefer: 'wait=0' })
    expect(none.headers.get('preference-applied')).toBe('wait=0')
    const settled = await timed(harness.call('GET', `/v1/jobs/${result.json.id}?wait=0`))
    expect(settled.result.json.state).toBe('queued')
  })

  it('is given up when the client goes; the job stays', async () => {
    const leaving = new AbortController()
    const call = harness.call('POST', '/v1/jobs', {
      body: chat('leaving'),
      headers: { 'idempotency-key': 'leaving', prefer: 'wait=60' },
      signal: leaving.signal,
    })
    call.catch(() => undefined)
    await untilWaiting(1)
    leaving.abort()
    await untilWaiting(0)
    await expect(call).rejects.toThrow('aborted')
    expect((await harness.submit('leaving', chat('leaving'))).json).toMatchObject({ state: 'queued', replayed: true })
  })

  it('serves a crowd with few statements', async () => {
    const { json } = await harness.submit('crowd', chat('crowd'))
    const waiting = Array.from({ length: 300 }, () => harness.call('GET', `/v1/jobs/${json.id}?wait=30`))
    await untilWaiting(300)
    const claim = await harness.claim(json.id)
    await harness.answer(claim, '{}')
    const states = new Set((await Promise.all(waiting)).map((reply) => reply.json.state))
    expect(states).toEqual(new Set(['succeeded']))
    const reads = (await harness.metrics.groupRows.get()).values.filter(
      ({ metricName, labels }) => metricName?.endsWith('_max') !== true && labels.group === 'read',
    )
    expect(reads.length).toBeGreaterThan(0)
  })

  it('ends with the present state when the server closes, and the connection with it', async () => {
    const other = await startOn(harness.databaseUrl)
    const { json } = await callApi(other.api.address, 'POST', '/v1/jobs', {
      body: chat('closing'),
      headers: { 'idempotency-key': 'closing' },
    })
    const waiting = callApi(other.api.address, 'GET', `/v1/jobs/${json.id}?wait=60`)
    await expect.poll(async () => (await other.metrics.waiters.get()).values[0]?.value, { timeout: 20_000 }).toBe(1)
    const closing = timed(Promise.all([other.api.close(), other.api.close()]))
    const reply = await waiting
    expect([reply.status, reply.json.state]).toEqual([200, 'queued'])
    expect((await closing).tookMs).toBeLessThan(5_000)
    await expect(callApi(other.api.address, 'GET', '/healthz')).rejects.toThrow('fetch failed')
    expect(other.lines.map(({ event }) => event)).toContain('api.stopped')
  })
})
