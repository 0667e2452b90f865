import { leakCheck } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { at, chat, first, startHarness, type Harness, type Reply } from './harness.ts'

let harness: Harness

beforeAll(async () => {
  harness = await startHarness()
})
afterAll(async () => {
  await harness.stop()
  await leakCheck()
})

const unknownId = '01890000-0000-7000-8000-000000000000'
const maybe = { action: 'unknown', outcome: 'unknown', billing: 'maybe', errorCode: 'timeout' } as const
const rejected = { action: 'stop', outcome: 'rejected', billing: 'none' } as const

async function queued(key: string, extra: object = {}): Promise<string> {
  return (await harness.submit(key, chat(key, extra))).json.id
}

async function succeeded(key: string, answer = '{"ok":true}'): Promise<string> {
  const id = await queued(key)
  const claim = await harness.claim(id)
  await harness.answer(claim, answer)
  return id
}

async function uncertain(key: string, extra: object = { on_uncertain: 'hold' }): Promise<string> {
  const id = await queued(key, extra)
  const claim = await harness.claim(id)
  await harness.end(claim, maybe)
  return id
}

async function failed(key: string): Promise<string> {
  const id = await queued(key)
  const claim = await harness.claim(id)
  await harness.end(claim, rejected)
  return id
}

const get = (path: string) => harness.call('GET', path)
const post = (path: string, body?: object) => harness.call('POST', path, body === undefined ? {} : { body })

describe('GET /v1/jobs/{id}', () => {
  it('reads a job; an id in any form that is not ours is 404', async () => {
    const id = await succeeded('read')
    const { status, json, headers } = await get(`/v1/jobs/${id}`)
    expect([status, json.id, json.replayed, json.response]).toEqual([200, id, false, { ok: true }])
    expect(headers.has('idempotent-replayed')).toBe(false)
    const odd = [
      unknownId,
      'nothing',
      '0',
      id.toUpperCase(),
      `${id}x`,
      'a'.repeat(300),
      '%00',
      "'; drop table jobs; --",
    ]
    for (const other of odd) {
      const reply = await get(`/v1/jobs/${encodeURIComponent(other)}`)
      expect([other, reply.status, reply.json.code]).toEqual([other, 404, 'not_found'])
    }
  })
})

describe('GET /v1/jobs/{id}/response', () => {
  it('sends the provider’s bytes, content type and status', async () => {
    const id = await queued('bytes')
    const early = await get(`/v1/jobs/${id}/response`)
    expect([early.status, early.json.code, early.json.state]).toEqual([404, 'not_found', 'queued'])
    expect(early.json.detail).toContain('queued')
    const claim = await harness.claim(id)
    const answer = '{"n": 1e2 , "s":"\\u00e9é" }\n'
    await harness.answer(claim, answer, 'application/json; charset=UTF-8')
    const { status, text, headers } = await get(`/v1/jobs/${id}/response`)
    expect([status, text]).toEqual([200, answer])
    expect(headers.get('content-type')).toBe('application/json; charset=UTF-8')
    expect(headers.get('x-provider-status')).toBe('200')
    expect(headers.get('content-length')).toBe(String(Buffer.byteLength(answer)))
    const head = await harness.call('HEAD', `/v1/jobs/${id}/response`)
    expect([head.status, head.text]).toEqual([200, ''])
  })
})

describe('GET /v1/jobs/{id}/attempts', () => {
  it('shows the ledger, also when the job is gone', async () => {
    const id = await queued('ledger')
    expect((await get(`/v1/jobs/${id}/attempts`)).json).toMatchObject({
      object: 'list',
      data: [],
      has_more: false,
      next_cursor: null,
    })
    const earlier = await harness.claim(id)
    const open = await get(`/v1/jobs/${id}/attempts`)
    expect(open.json.data).toMatchObject([{ attempt: 1, outcome: null, billing: null, finished_at: null }])
    await harness.end(earlier, maybe)
    const later = await harness.claim(id)
    await harness.answer(later, '{}')
    await harness.call('DELETE', `/v1/jobs/${id}`)
    const { json } = await get(`/v1/jobs/${id}/attempts`)
    expect(json.data).toMatchObject([
      { attempt: 1, generation: 1, outcome: 'unknown', billing: 'maybe', error_code: 'timeout', cost_usd: null },
      {
        attempt: 2,
        outcome: 'answered',
        billing: 'billed',
        provider: 'simulated',
        model: 'simulated/small',
        provider_status: 200,
        input_tokens: 11,
        output_tokens: 7,
        cost_usd: 0.0025,
      },
    ])
    expect((await get(`/v1/jobs/${unknownId}/attempts`)).status).toBe(404)
    const stranger = await harness.keyFor('stranger')
    expect((await harness.call('GET', `/v1/jobs/${id}/attempts`, { key: stranger })).status).toBe(404)
  })
})

describe('GET /v1/jobs', () => {
  it('pages newest first by a cursor, without gaps or repeats', async () => {
    const key = await harness.keyFor('pages')
    const call = (query: string) => harness.call('GET', `/v1/jobs?${query}`, { key })
    const bulk = { jobs: Array.from({ length: 25 }, (_, index) => ({ key: `page-${index}`, ...chat() })) }
    await harness.call('POST', '/v1/jobs/bulk', { key, body: bulk })
    const seen: string[] = []
    let cursor: string | null = null
    for (let page = 0; page < 5; page += 1) {
      const { json }: Reply = await call(cursor === null ? 'limit=10' : `limit=10&cursor=${cursor}`)
      seen.push(...json.data.map((job: { id: string }) => job.id))
      cursor = json.next_cursor
      expect(json.has_more).toBe(cursor !== null)
      if (cursor === null) break
    }
    expect(seen).toHaveLength(25)
    expect(new Set(seen).size).toBe(25)
    const all = (await call('')).json.data as { created_at: string; response: null }[]
    expect(all.map((job) => job.created_at)).toEqual(
      all
        .map((job) => job.created_at)
        .toSorted()
        .toReversed(),
    )
  })

  it('filters by key (quoted or not), state and time', async () => {
    const id = await succeeded('list me')
    const byKey = await get('/v1/jobs?key=list%20me')
    expect(byKey.json.data).toMatchObject([{ id, response: { ok: true } }])
    expect((await get(`/v1/jobs?key=${encodeURIComponent('"list me"')}`)).json.data).toHaveLength(1)
    expect((await get('/v1/jobs?key=nobody')).json.data).toEqual([])
    const states = (await get('/v1/jobs?state=succeeded')).json.data as { state: string; response: unknown }[]
    expect(new Set(states.map(({ state }) => state))).toEqual(new Set(['succeeded']))
    expect(states.every(({ response }) => response === null)).toBe(true)
    const { created_at: created } = first(byKey.json.data)
    const after = (await get(`/v1/jobs?created_after=${created}`)).json.data as { id: string }[]
    expect(after.map((job) => job.id)).toEqual([id])
    expect((await get('/v1/jobs?created_after=2999-01-01T00:00:00+02:00')).json.data).toEqual([])
  })

  it.each([
    ['state=done', 'state'],
    ['limit=0', 'limit'],
    ['limit=201', 'limit'],
    ['limit=ten', 'limit'],
    ['limit=1&limit=2', 'limit'],
    ['cursor=abc', 'cursor'],
    [`cursor=${Buffer.from('["2026-13-45 99:99:99+00","x"]').toString('base64url')}`, 'cursor'],
    [`cursor=${Buffer.from(`["2026-13-45 99:99:99+00","${unknownId}"]`).toString('base64url')}`, 'cursor'],
    ['created_after=yesterday', 'created_after'],
    ['stat=queued', 'stat'],
    ['key=', 'key'],
    [`key=${'k'.repeat(256)}`, 'key'],
  ])('400 for a bad query (%#)', async (query, param) => {
    const { status, json } = await get(`/v1/jobs?${query}`)
    expect([status, json.error.param]).toEqual([400, param])
  })
})

describe('cancel', () => {
  it('cancels what has not ended: queued, running, uncertain', async () => {
    for (const id of [await queued('c1'), await uncertain('c3')]) {
      const { status, json } = await post(`/v1/jobs/${id}/cancel`)
      expect([status, json.state]).toEqual([200, 'cancelled'])
      expect(json.expires_at).not.toBeNull()
    }
    const id = await queued('c2')
    const claim = await harness.claim(id)
    expect((await post(`/v1/jobs/${id}/cancel`, {})).json.usage).toMatchObject({ maybe_paid_attempts: 1 })
    // A later success is in the ledger only.
    expect((await harness.answer(claim, '{}')).state).toBe('cancelled')
    expect((await get(`/v1/jobs/${id}`)).json).toMatchObject({ state: 'cancelled', usage: { paid_attempts: 1 } })
  })

  it('409 with the state for what has ended, 404 for what is unknown', async () => {
    const id = await succeeded('c4')
    const { status, json, headers } = await post(`/v1/jobs/${id}/cancel`)
    expect([status, json.code, json.state, headers.get('x-should-retry')]).toEqual([
      409,
      'state_conflict',
      'succeeded',
      'false',
    ])
    expect((await post(`/v1/jobs/${unknownId}/cancel`)).status).toBe(404)
    expect((await post('/v1/jobs/x/cancel')).status).toBe(404)
    expect((await post(`/v1/jobs/${id}/cancel`, { force: true })).json.error.param).toBe('/force')
  })
})

describe('retry', () => {
  it('runs a failed job again, unasked if nothing was paid', async () => {
    const id = await failed('r1')
    const { status, json } = await post(`/v1/jobs/${id}/retry`)
    expect([status, json.state, json.generation]).toEqual([202, 'queued', 2])
    expect((await post(`/v1/jobs/${id}/retry`)).status).toBe(409)
  })

  it('asks for consent where it may be charged twice, and takes it once', async () => {
    const id = await uncertain('r2')
    const refused = await post(`/v1/jobs/${id}/retry`)
    expect([refused.status, refused.json.code, refused.json.error.param]).toEqual([
      400,
      'consent_required',
      '/accept_duplicate_charge',
    ])
    expect((await post(`/v1/jobs/${id}/retry`, { accept_duplicate_charge: false })).status).toBe(400)
    const wrong = await post(`/v1/jobs/${id}/retry`, { accept_duplicate_charge: 'yes' })
    expect([wrong.json.code, wrong.json.error.param]).toEqual(['invalid_request', '/accept_duplicate_charge'])
    const { status, json } = await post(`/v1/jobs/${id}/retry`, { accept_duplicate_charge: true })
    expect([status, json.state]).toEqual([202, 'queued'])
    const claim = await harness.claim(id)
    await harness.end(claim, maybe)
    expect((await get(`/v1/jobs/${id}`)).json.state).toBe('uncertain')
    expect((await post(`/v1/jobs/${id}/retry`)).json.code).toBe('consent_required')
  })
})

describe('fail', () => {
  it('ends an uncertain job, and nothing else', async () => {
    const id = await uncertain('f1')
    const { status, json } = await post(`/v1/jobs/${id}/fail`)
    expect([status, json.state, json.error.code]).toEqual([200, 'failed', 'failed_on_request'])
    expect((await post(`/v1/jobs/${id}/fail`)).json.code).toBe('state_conflict')
  })
})

describe('DELETE /v1/jobs/{id}', () => {
  it('forgets a job that has ended and frees its key', async () => {
    const id = await succeeded('d1')
    const { status, json } = await harness.call('DELETE', `/v1/jobs/${id}`)
    expect([status, json]).toEqual([200, { id, object: 'job', deleted: true }])
    expect((await get(`/v1/jobs/${id}`)).status).toBe(404)
    expect((await harness.call('DELETE', `/v1/jobs/${id}`)).status).toBe(404)
    expect((await harness.submit('d1', chat('something else'))).status).toBe(202)
  })

  it('409 for one that has not', async () => {
    const id = await queued('d2')
    const { status, json } = await harness.call('DELETE', `/v1/jobs/${id}`)
    expect([status, json.code, json.state]).toEqual([409, 'state_conflict', 'queued'])
  })
})

describe('many jobs at once', () => {
  it('changes them by ids, with an outcome each, in order', async () => {
    const ids = [await failed('m1'), await uncertain('m2'), await succeeded('m3'), unknownId, 'x']
    const { status, json } = await post('/v1/jobs/bulk/retry', { ids: [...ids, ids[0]] })
    expect(status).toBe(200)
    expect(json).toMatchObject({ object: 'list', has_more: false, next_cursor: null })
    const gist = json.data.map((item) => [item.index, item.id, item.status, item.job?.state ?? item.error.code])
    expect(gist).toEqual([
      [0, ids[0], 202, 'queued'],
      [1, ids[1], 400, 'consent_required'],
      [2, ids[2], 409, 'state_conflict'],
      [3, ids[3], 404, 'not_found'],
      [4, 'x', 404, 'not_found'],
      [5, ids[0], 202, 'queued'],
    ])
    expect(at(json.data, 2).error).toMatchObject({ retryable: false, state: 'succeeded' })
    const consented = await post('/v1/jobs/bulk/retry', { ids: [ids[1]], accept_duplicate_charge: true })
    expect(at(consented.json.data, 0).status).toBe(202)
  })

  it('changes them by filter: state, time and metadata', async () => {
    const run = { metadata: { run: 'f' }, on_uncertain: 'hold' }
    const mine = [await uncertain('n1', run), await uncertain('n2', run), await queued('n3', run)]
    const other = await uncertain('n4', { ...run, metadata: { run: 'g' } })
    const dry = await post('/v1/jobs/bulk/fail', {
      filter: { metadata: { run: 'f' }, created_before: '2020-01-01T00:00:00Z' },
    })
    expect(dry.json.data).toEqual([])
    const { json } = await post('/v1/jobs/bulk/fail', { filter: { state: 'uncertain', metadata: { run: 'f' } } })
    expect(json.data.map((item) => [item.id, item.status])).toEqual([
      [mine[1], 200],
      [mine[0], 200],
    ])
    expect((await get(`/v1/jobs/${other}`)).json.state).toBe('uncertain')
    const cancelled = await post('/v1/jobs/bulk/cancel', { filter: { metadata: { run: 'f' } } })
    expect(cancelled.json.data.map((item) => item.id)).toEqual([mine[2]])
  })

  it.each([
    ['cancel', {}, ''],
    ['cancel', { ids: [] }, '/ids'],
    ['cancel', { ids: 'all' }, '/ids'],
    ['cancel', { ids: [5] }, '/ids/0'],
    ['cancel', { ids: ['x'], filter: { state: 'queued' } }, ''],
    ['cancel', { ids: Array.from({ length: 10_001 }, () => 'x') }, '/ids'],
    ['cancel', { filter: {} }, '/filter'],
    ['cancel', { filter: { state: 'succeeded' } }, '/filter/state'],
    ['cancel', { filter: { stat: 'queued' } }, '/filter/stat'],
    ['cancel', { filter: { state: 'queued' }, cursor: 'queued.x' }, '/cursor'],
    ['cancel', { ids: ['x'], accept_duplicate_charge: true }, '/accept_duplicate_charge'],
    ['retry', { filter: { created_before: 'now' } }, '/filter/created_before'],
  ])('400 for a bad body (%#)', async (change, body, pointer) => {
    const { status, json } = await post(`/v1/jobs/bulk/${change}`, body)
    expect([status, json.code, json.error.param]).toEqual([400, 'invalid_request', pointer])
  })

  it('handles ten thousand at once and goes on by cursor', async () => {
    const key = await harness.keyFor('crowd')
    const jobs = Array.from({ length: 10_000 }, (_, index) => ({ key: `crowd-${index}`, ...chat() }))
    await harness.call('POST', '/v1/jobs/bulk', { key, body: { jobs } })
    await harness.call('POST', '/v1/jobs/bulk', { key, body: { jobs: [{ key: 'last', ...chat() }] } })
    const body = { filter: { state: 'queued' } }
    const start = await harness.call('POST', '/v1/jobs/bulk/cancel', { key, body })
    expect(start.json.data).toHaveLength(10_000)
    expect(start.json.has_more).toBe(true)
    const next = { ...body, cursor: start.json.next_cursor }
    const second = await harness.call('POST', '/v1/jobs/bulk/cancel', { key, body: next })
    expect([second.json.data.length, second.json.has_more]).toEqual([1, false])
    expect(at(second.json.data, 0)).toMatchObject({ index: 0, status: 200, job: { state: 'cancelled' } })
  })
})

describe('lanes', () => {
  it('lists them and opens a stopped one', async () => {
    const open = {
      object: 'lane',
      name: 'simulated',
      kind: 'simulated',
      state: 'open',
      reason: null,
      code: null,
      until: null,
      models: [],
    }
    expect((await get('/v1/lanes')).json.data).toEqual([open])
    await harness.sql(
      `insert into lanes (name, state, code, reason) values ('simulated', 'stopped', 'provider_quota', 'no money'), ('gone', 'open', null, null)`,
    )
    const listed = (await get('/v1/lanes')).json.data
    expect(listed).toContainEqual({ ...open, state: 'stopped', code: 'provider_quota', reason: 'no money' })
    expect(listed).toContainEqual({ ...open, name: 'gone', kind: null })
    const ready = await harness.call('GET', '/readyz', { key: null })
    expect([ready.status, ready.json.status]).toEqual([200, 'degraded'])
    // The provider's own words may quote another tenant: they are for administrators.
    const reason = 'The provider account has reached a spend limit; the lane is stopped'
    // Names of models are the callers' words: here is none.
    const { models: _names, ...shown } = open
    expect(ready.json.lanes).toContainEqual({ ...shown, state: 'stopped', code: 'provider_quota', reason })
    expect((await harness.call('GET', '/metrics', { key: null })).text).toContain(
      'askonce_lane_state{lane="simulated",state="stopped"} 1',
    )
    const { status, json } = await post('/v1/lanes/simulated/resume')
    expect([status, json]).toEqual([200, open])
    expect((await post('/v1/lanes/simulated/resume')).status).toBe(200)
    expect((await post('/v1/lanes/nobody/resume')).status).toBe(404)
  })

  it('shows a pause with its end, and not when it is over', async () => {
    await harness.sql(
      `update lanes set state = 'paused', code = 'provider_rate_limited', reason = 'wait', until = now() + interval '1 hour' where name = 'simulated'`,
    )
    const paused = (await get('/v1/lanes')).json.data.find((lane) => lane.name === 'simulated')
    expect(paused).toMatchObject({ state: 'paused', reason: 'wait' })
    expect(Date.parse(paused?.until ?? '')).toBeGreaterThan(Date.now())
    await harness.sql(`update lanes set until = now() - interval '1 second' where name = 'simulated'`)
    const over = (await get('/v1/lanes')).json.data.find((lane) => lane.name === 'simulated')
    expect(over).toMatchObject({ state: 'open', reason: null, until: null })
  })
})
