import { randomUUID } from 'node:crypto'
import { leakCheck } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { chat, startHarness, type Harness, type Reply } from './harness.ts'

let harness: Harness

beforeAll(async () => {
  harness = await startHarness()
})
afterAll(async () => {
  await harness.stop()
  await leakCheck()
})

const get = (path: string, key?: string): Promise<Reply> => harness.call('GET', path, key === undefined ? {} : { key })
const keysOf = ({ json }: Reply): unknown[] => json.data.map(({ key }) => key)

async function held(key: string): Promise<string> {
  const { id } = (await harness.submit(key, chat(key, { on_uncertain: 'hold' }))).json
  await harness.end(await harness.claim(id), { action: 'unknown', outcome: 'unknown', billing: 'maybe' })
  return id
}

describe('GET /v1/jobs', () => {
  it('by metadata: all of the pairs, of the own tenant', async () => {
    await harness.submit('m-1', chat('1', { metadata: { run: '7', customer: '17' } }))
    await harness.submit('m-2', chat('2', { metadata: { run: '7', customer: '18' } }))
    await harness.submit('m-3', chat('3'))
    expect(keysOf(await get('/v1/jobs?metadata=run=7'))).toEqual(['m-2', 'm-1'])
    expect(keysOf(await get('/v1/jobs?metadata=run=7&metadata=customer=17'))).toEqual(['m-1'])
    expect(keysOf(await get('/v1/jobs?metadata=run=8'))).toEqual([])
    expect(keysOf(await get('/v1/jobs?metadata=run=7', await harness.keyFor('neighbour')))).toEqual([])
  })

  it('by the beginning of keys, in their order, from page to page', async () => {
    for (const name of ['p/b', 'p/a', 'p', 'p/~', 'q/a']) await harness.submit(name, chat(name))
    const first = await get('/v1/jobs?key_prefix=p/&limit=2')
    expect(keysOf(first)).toEqual(['p/a', 'p/b'])
    const second = await get(`/v1/jobs?key_prefix=p/&limit=2&cursor=${first.json.next_cursor}`)
    expect([keysOf(second), second.json.has_more]).toEqual([['p/~'], false])
    // A place in one list is none in the other.
    expect((await get(`/v1/jobs?cursor=${first.json.next_cursor}`)).status).toBe(400)
  })

  it('by what may have been paid, and what may have been paid twice; a call that runs says nothing yet', async () => {
    await held('once')
    const twice = await held('twice')
    await harness.call('POST', `/v1/jobs/${twice}/retry`, { body: { accept_duplicate_charge: true } })
    const second = await harness.claim(twice)
    expect(keysOf(await get('/v1/jobs?paid=maybe'))).toEqual(['twice', 'once'])
    expect(keysOf(await get('/v1/jobs?paid=twice'))).toEqual([])
    await harness.answer(second, '{"a":1}')
    expect(keysOf(await get('/v1/jobs?paid=twice'))).toEqual(['twice'])
    expect(keysOf(await get('/v1/jobs?paid=maybe&state=uncertain'))).toEqual(['once'])
  })

  it.each([
    ['metadata=run', 'metadata'],
    ['metadata==x', 'metadata'],
    ['key_prefix=', 'key_prefix'],
    ['key_prefix=%00', 'key_prefix'],
    ['paid=thrice', 'paid'],
  ])('refuses %s', async (query, param) => {
    const { status, json } = await get(`/v1/jobs?${query}`)
    expect([status, json.code, json.error.param?.split('/')[0]]).toEqual([400, 'invalid_request', param])
  })
})

describe('consent', () => {
  it('a held job that is cancelled, deleted and submitted again is paid for again only with consent, which is a decision', async () => {
    const id = await held('round')
    await harness.call('POST', `/v1/jobs/${id}/cancel`)
    const refused = await harness.call('DELETE', `/v1/jobs/${id}`)
    expect([refused.status, refused.json.code]).toEqual([400, 'consent_required'])
    expect((await harness.submit('round', chat('round', { on_uncertain: 'hold' }))).json).toMatchObject({ id })
    const many = await harness.call('POST', '/v1/jobs/bulk/delete', { body: { ids: [id] } })
    expect(many.json.data).toMatchObject([{ id, status: 400, error: { code: 'consent_required' } }])
    const gone = await harness.call('DELETE', `/v1/jobs/${id}?accept_duplicate_charge=true`)
    expect(gone.json).toEqual({ id, object: 'job', deleted: true })
    const { json } = await get(`/v1/jobs/${id}/decisions`)
    expect(json.data.map(({ action, to_state: to }) => [action, to])).toEqual([
      ['cancel', 'cancelled'],
      ['delete', 'deleted'],
    ])
  })

  it('so is one whose call still runs', async () => {
    const { id } = (await harness.submit('runs', chat('runs'))).json
    await harness.claim(id)
    await harness.call('POST', `/v1/jobs/${id}/cancel`)
    expect((await harness.call('DELETE', `/v1/jobs/${id}`)).json.code).toBe('consent_required')
  })

  it('and a background response of the OpenAI SDK', async () => {
    const headers = { 'idempotency-key': 'background' }
    const body = { model: 'simulated/small', input: 'x', background: true }
    const made = await harness.call('POST', '/openai/v1/responses', { body, headers })
    const [row] = await harness.sql(`select id from jobs where idempotency_key = 'background'`)
    await harness.claim(String(row?.['id']))
    await harness.call('POST', `/openai/v1/responses/${made.json.id}/cancel`)
    const path = `/openai/v1/responses/${made.json.id}`
    expect((await harness.call('DELETE', path)).json.code).toBe('consent_required')
    expect((await harness.call('DELETE', `${path}?accept_duplicate_charge=true`)).status).toBe(200)
  })
})

describe('GET /v1/spend', () => {
  const insert = async (given: Record<string, unknown>): Promise<string> => {
    const id = randomUUID()
    const row = {
      job_id: id,
      attempt: 1,
      generation: 1,
      tenant_id: 'default',
      idempotency_key: 'k',
      fingerprint: 'f',
      operation: 'embeddings',
      lane: 'openai',
      model: 'm',
      worker_id: id,
      started_at: '2026-03-01T12:00:00Z',
      finished_at: '2026-03-01T12:00:00Z',
      outcome: 'unknown',
      billing: 'billed',
      ...given,
    }
    const names = Object.keys(row)
    await harness.sql(
      `insert into attempts (${names.join(',')}) values (${names.map((_, at) => `$${at + 1}`).join(',')})`,
      Object.values(row),
    )
    return id
  }
  const spent = async (query: string): Promise<Reply['json']> => (await get(`/v1/spend?${query}`)).json

  it('of a run, of keys, of any span in any time zone, without the simulator, and names what was paid twice', async () => {
    await harness.sql('truncate attempts, open_attempts, jobs')
    const late = await insert({
      started_at: '2026-03-01T23:30:00Z',
      cost_usd: 1,
      metadata: '{"run":"7"}',
      idempotency_key: 'n/1',
    })
    await insert({
      job_id: late,
      attempt: 2,
      started_at: '2026-03-01T23:40:00Z',
      billing: 'maybe',
      metadata: '{"run":"7"}',
      idempotency_key: 'n/1',
    })
    await insert({ cost_usd: 2, metadata: '{"run":"8"}', idempotency_key: 'd/1' })
    await insert({ lane: 'simulated', idempotency_key: 's/1' })
    const march = 'from=2026-03-01&to=2026-03-02'
    expect((await spent(march)).summary).toMatchObject({ calls: 3, cost_usd: 3, tz: 'UTC' })
    expect((await spent(`${march}&simulated=true`)).summary).toMatchObject({ calls: 1, cost_usd: 0, unpriced: 0 })
    expect((await spent(`${march}&metadata=run=7`)).summary).toMatchObject({ calls: 2, cost_usd: 1 })
    expect((await spent(`${march}&key_prefix=d/`)).summary).toMatchObject({ calls: 1, cost_usd: 2, twice: [] })
    expect((await spent(march)).summary).toMatchObject({
      possible_duplicates: 1,
      twice: [{ key: 'n/1', job_id: late, possible_duplicates: 1, possible_duplicate_cost_usd: 1 }],
    })
    const berlin = await spent(`${march}&tz=Europe/Berlin`)
    expect(berlin.data.map((row: unknown) => (row as { date: string }).date)).toEqual(['2026-03-01', '2026-03-02'])
    expect(berlin.summary).toMatchObject({ since: '2026-02-28T23:00:00.000Z', until: '2026-03-02T23:00:00.000Z' })
    expect((await spent('since=2026-03-01T23:35:00Z&until=2026-03-02')).summary).toMatchObject({ calls: 1, maybe: 1 })
    expect((await spent('since=2026-03-02T00:35&until=2026-03-02T01:00&tz=Europe/Berlin')).summary).toMatchObject({
      calls: 1,
    })
    expect((await spent('until=2026-03-02T00:00:00%2B01:00')).summary).toMatchObject({ calls: 1, cost_usd: 2 })
  })

  it('says that a cost is not known, and never $0, where no price is', async () => {
    await harness.sql('truncate attempts, open_attempts, jobs')
    await insert({ idempotency_key: 'u' })
    expect((await spent('from=2026-03-01&to=2026-03-01')).summary).toMatchObject({ unpriced: 1, cost_usd: null })
    expect((await get('/v1/attempts?key=u')).json.summary).toMatchObject({ unpriced: 1, cost_usd: null })
    await insert({ idempotency_key: 'u', cost_usd: 1 })
    expect((await get('/v1/attempts?key=u')).json.summary).toMatchObject({ unpriced: 1, cost_usd: 1 })
  })

  it.each([
    ['tz=Mars/Olympus', 'tz'],
    ['tz=%2B02:00', 'tz'],
    ['since=yesterday', 'since'],
    ['since=2026-03-02&until=2026-03-01', 'since'],
    ['since=2024-03-02&until=2026-03-01', 'since'],
    ['from=2026-03-02&until=2026-03-01', 'from'],
  ])('refuses %s', async (query, param) => {
    const { code, error } = await spent(query)
    expect([code, error.param]).toEqual(['invalid_request', param])
  })
})
