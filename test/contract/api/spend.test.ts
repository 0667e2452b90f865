import { randomUUID } from 'node:crypto'
import { leakCheck } from '@askonce/testkit'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { chat, startHarness, type Harness, type Reply } from './harness.ts'

let harness: Harness

beforeAll(async () => {
  harness = await startHarness()
})
afterAll(async () => {
  await harness.stop()
  await leakCheck()
})
beforeEach(async () => {
  await harness.sql('truncate attempts, open_attempts, jobs')
})

const spend = (query = '', key?: string): Promise<Reply> =>
  harness.call('GET', `/v1/spend${query}`, key === undefined ? {} : { key })

interface Row {
  at: string
  billing?: string
  cost?: string | null
  tenant?: string
  model?: string
}

/** A job that is gone, with one attempt in the ledger. */
async function insert({ at, billing = 'billed', cost = null, tenant = 'default', model = 'm' }: Row): Promise<void> {
  await harness.sql(
    `insert into attempts (job_id, attempt, generation, tenant_id, idempotency_key, fingerprint, operation, lane, model,
       worker_id, started_at, finished_at, outcome, billing, input_tokens, output_tokens, cost_usd)
     values ($1, 1, 1, $2, 'k', 'f', 'embeddings', 'openai', $3, $1, $4, $4, 'unknown', $5, 10, 5, $6)`,
    [randomUUID(), tenant, model, at, billing, cost],
  )
}

const someJob = '0199c0de-0000-7000-8000-000000000001'
const cursorOf = (...parts: (string | number)[]): string => Buffer.from(JSON.stringify(parts)).toString('base64url')

const day = (ago: number): string => new Date(Date.now() - ago * 86_400_000).toISOString().slice(0, 10)

describe('GET /v1/jobs/{id}/attempts', () => {
  const summary = async (id: string): Promise<Reply['json']['summary']> =>
    (await harness.call('GET', `/v1/jobs/${id}/attempts`)).json.summary

  it('says what a key cost, how many calls were paid, and whether one of them was paid for twice', async () => {
    const { id } = (await harness.submit('cost', chat('x'))).json
    expect(await summary(id)).toMatchObject({ calls: 0, duplicate: 'no', cost_usd: 0 })
    const first = await harness.claim(id)
    expect(await summary(id)).toMatchObject({ calls: 1, open: 1, duplicate: 'no' })
    await harness.end(first, { action: 'unknown', outcome: 'unknown', billing: 'maybe' })
    expect(await summary(id)).toMatchObject({ calls: 1, maybe: 1, duplicate: 'no' })
    await harness.answer(await harness.claim(id), '{"a":1}')
    expect(await summary(id)).toEqual({
      duplicate: 'maybe',
      calls: 2,
      billed: 1,
      maybe: 1,
      none: 0,
      open: 0,
      unpriced: 0,
      input_tokens: 11,
      output_tokens: 7,
      duplicates: 0,
      possible_duplicates: 1,
      cost_usd: 0.0025,
      duplicate_cost_usd: 0,
      possible_duplicate_cost_usd: 0.0025,
    })
    // The first answers after all: it is ledger only, and certain.
    await harness.answer(first, '{"a":2}')
    expect(await summary(id)).toMatchObject({
      duplicate: 'yes',
      billed: 2,
      cost_usd: 0.005,
      duplicate_cost_usd: 0.0025,
    })
    const { data } = (await harness.call('GET', `/v1/jobs/${id}/attempts`)).json
    expect(data).toHaveLength(2)
  })

  it('writes dollars with the digits of the database', async () => {
    const { id } = (await harness.submit('exact', chat('x'))).json
    await harness.answer(await harness.claim(id), '{"a":1}')
    await harness.sql('update attempts set cost_usd = 1234567890.0123456789 where job_id = $1', [id])
    const { text } = await harness.call('GET', `/v1/jobs/${id}/attempts`)
    expect(text).toContain('"cost_usd":1234567890.0123456789,"duplicate_cost_usd":0,')
  })

  it('answers for a job that is gone', async () => {
    const { id } = (await harness.submit('gone', chat('x'))).json
    await harness.answer(await harness.claim(id), '{"a":1}')
    await harness.call('DELETE', `/v1/jobs/${id}`)
    expect(await summary(id)).toMatchObject({ billed: 1, cost_usd: 0.0025, duplicate: 'no' })
  })
})

describe('GET /v1/attempts', () => {
  const ledger = (query: string, key?: string): Promise<Reply> =>
    harness.call('GET', `/v1/attempts${query}`, key === undefined ? {} : { key })

  /** The key of an answered job whose time is over. */
  async function expired(key: string): Promise<string> {
    const { id } = (await harness.submit(key, chat('x'))).json
    await harness.answer(await harness.claim(id), '{"a":1}')
    await harness.sql(`update jobs set expires_at = now() - interval '1 second' where id = $1`, [id])
    return id
  }

  it('has what a key cost, whatever became of its jobs: expired, taken over, swept', async () => {
    const first = await expired('k')
    expect((await harness.call('GET', '/v1/jobs?key=k')).json.data).toEqual([])
    const one = await ledger('?key=k')
    expect(one.status).toBe(200)
    expect(one.json).toMatchObject({
      object: 'list',
      data: [{ job_id: first, attempt: 1, outcome: 'answered', billing: 'billed', cost_usd: 0.0025 }],
      has_more: false,
      next_cursor: null,
      summary: { duplicate: 'no', calls: 1, billed: 1, cost_usd: 0.0025 },
    })
    // Another request may have the key now; its attempts are not duplicates of those before.
    const { id: second } = (await harness.submit('k', chat('y'))).json
    await harness.answer(await harness.claim(second), '{"a":2}')
    const { json } = await ledger('?key=k')
    expect(json.data.map(({ job_id: id, attempt }) => [id, attempt])).toEqual([
      [first, 1],
      [second, 1],
    ])
    expect(json.summary).toMatchObject({ duplicate: 'no', calls: 2, billed: 2, cost_usd: 0.005 })
    await harness.call('DELETE', `/v1/jobs/${second}`)
    expect((await ledger('?key=k')).text).toBe(JSON.stringify(json))
  })

  it('shows a job that is there beside its own ledger, and nothing of a key without attempts', async () => {
    const { id } = (await harness.submit('open', chat('x'))).json
    const empty = { data: [], has_more: false, next_cursor: null, summary: { calls: 0, duplicate: 'no' } }
    expect((await ledger('?key=open')).json).toMatchObject(empty)
    expect((await ledger('?key=never')).json).toMatchObject(empty)
    await harness.claim(id)
    const [own] = (await harness.call('GET', `/v1/jobs/${id}/attempts`)).json.data
    expect((await ledger('?key=open')).json.data).toEqual([{ job_id: id, ...own }])
    // As the header may have it.
    expect((await ledger('?key=%22open%22')).json.data).toHaveLength(1)
  })

  it('goes from page to page, with the sums of all of them', async () => {
    const ids = [await expired('k'), await expired('k'), await expired('k')]
    const seen: unknown[] = []
    let cursor: string | null = ''
    while (cursor !== null) {
      const more: string = cursor === '' ? '' : `&cursor=${cursor}`
      const { json } = await ledger(`?key=k&limit=2${more}`)
      expect(json.summary).toMatchObject({ calls: 3, billed: 3 })
      expect(json.has_more).toBe(json.next_cursor !== null)
      seen.push(...json.data.map(({ job_id: id }) => id))
      cursor = json.next_cursor
    }
    expect(seen).toEqual(ids)
  })

  it('is for the tenant alone, and for keys that may read', async () => {
    await expired('k')
    const other = await harness.keyFor('other', ['read'])
    expect((await ledger('?key=k', other)).json).toMatchObject({ data: [], summary: { calls: 0, cost_usd: 0 } })
    expect((await ledger('?key=k', await harness.keyFor('default', ['submit']))).status).toBe(403)
  })

  it.each([
    ['', 'key', 'invalid_request'],
    ['?key=a&key=b', 'key', 'invalid_request'],
    ['?key=', 'key', 'idempotency_key_invalid'],
    ['?key=%C3%A4', 'key', 'idempotency_key_invalid'],
    ['?key=k&limit=0', 'limit', 'invalid_request'],
    ['?key=k&limit=201', 'limit', 'invalid_request'],
    ['?key=k&cursor=x', 'cursor', 'invalid_request'],
    // That of another list, and one with a number that no column holds.
    [`?key=k&cursor=${cursorOf('2026-03-01 00:00:00+00', someJob)}`, 'cursor', 'invalid_request'],
    [`?key=k&cursor=${cursorOf('2026-03-01 00:00:00+00', someJob, 2 ** 31)}`, 'cursor', 'invalid_request'],
    ['?key=k&state=failed', 'state', 'invalid_request'],
  ])('refuses %s', async (query, param, code) => {
    const { status, json } = await ledger(query)
    expect([status, json.code, json.error.param]).toEqual([400, code, param])
  })
})

describe('GET /v1/spend', () => {
  it('has a row for each day, and a summary of all', async () => {
    await insert({ at: '2026-03-01T00:00:00Z', cost: '0.1' })
    await insert({ at: '2026-03-01T23:59:59.999Z', cost: '0.2' })
    await insert({ at: '2026-03-03T12:00:00Z', billing: 'maybe' })
    const { status, json } = await spend('?from=2026-03-01&to=2026-03-31')
    expect(status).toBe(200)
    const zero = {
      calls: 0,
      billed: 0,
      maybe: 0,
      none: 0,
      open: 0,
      unpriced: 0,
      input_tokens: 0,
      output_tokens: 0,
      duplicates: 0,
      possible_duplicates: 0,
      cost_usd: 0,
      duplicate_cost_usd: 0,
      possible_duplicate_cost_usd: 0,
    }
    expect(json).toEqual({
      object: 'list',
      data: [
        { ...zero, date: '2026-03-01', calls: 2, billed: 2, input_tokens: 20, output_tokens: 10, cost_usd: 0.3 },
        { ...zero, date: '2026-03-03', calls: 1, maybe: 1, input_tokens: 10, output_tokens: 5, cost_usd: null },
      ],
      has_more: false,
      next_cursor: null,
      summary: {
        ...zero,
        from: '2026-03-01',
        to: '2026-03-31',
        since: '2026-03-01T00:00:00.000Z',
        until: '2026-04-01T00:00:00.000Z',
        tz: 'UTC',
        twice: [],
        calls: 3,
        billed: 2,
        maybe: 1,
        input_tokens: 30,
        output_tokens: 15,
        cost_usd: 0.3,
      },
    })
  })

  it('is the last 30 days unless told otherwise', async () => {
    for (const ago of [0, 29, 30]) await insert({ at: `${day(ago)}T00:00:00Z` })
    const { json } = await spend()
    expect(json.data.map(({ date }) => date)).toEqual([day(29), day(0)])
    expect(json.summary).toMatchObject({ from: day(29), to: day(0), calls: 2 })
    expect((await spend(`?from=${day(40)}`)).json.summary).toMatchObject({ from: day(40), to: day(0), calls: 3 })
    expect((await spend('?to=2026-03-30')).json.summary).toMatchObject({ from: '2026-03-01', to: '2026-03-30' })
  })

  it('divides days by lane and model', async () => {
    await insert({ at: '2026-03-01T00:00:00Z', model: 'b', cost: '1' })
    await insert({ at: '2026-03-01T00:00:00Z', model: 'a', cost: '2' })
    const { json } = await spend('?from=2026-03-01&to=2026-03-01&group_by=model')
    expect(json.data.map(({ date, provider, model, cost_usd: cost }) => [date, provider, model, cost])).toEqual([
      ['2026-03-01', 'openai', 'a', 2],
      ['2026-03-01', 'openai', 'b', 1],
    ])
    expect(json.summary).toMatchObject({ cost_usd: 3 })
  })

  it('shows a tenant its own money only, and to keys that may read', async () => {
    await insert({ at: '2026-03-01T00:00:00Z', tenant: 'rich', cost: '9' })
    expect((await spend('?from=2026-03-01&to=2026-03-01')).json.summary).toMatchObject({ calls: 0 })
    const rich = await harness.keyFor('rich', ['read'])
    expect((await spend('?from=2026-03-01&to=2026-03-01', rich)).json.summary).toMatchObject({ cost_usd: 9 })
    expect((await spend('', await harness.keyFor('rich', ['submit']))).status).toBe(403)
  })

  it('takes a year and not a day more', async () => {
    expect((await spend('?from=2025-01-01&to=2026-01-01')).status).toBe(200)
    expect((await spend('?from=2024-01-01&to=2024-12-31')).json.summary).toMatchObject({ from: '2024-01-01' })
    const { status, json } = await spend('?from=2025-01-01&to=2026-01-02')
    expect([status, json.code, json.error.param]).toEqual([400, 'invalid_request', 'from'])
    expect(json.detail).toContain('367 days; at most 366')
  })

  it.each([
    ['?from=2026-03-02&to=2026-03-01', 'from'],
    ['?from=2025-02-29', 'from'],
    ['?from=2026-3-1', 'from'],
    ['?from=2026-03-01T00:00:00Z', 'from'],
    ['?to=yesterday', 'to'],
    ['?to=', 'to'],
    ['?from=2026-03-01&from=2026-03-02', 'from'],
    ['?group_by=lane', 'group_by'],
    ['?days=5', 'days'],
  ])('refuses %s', async (query, param) => {
    const { status, json } = await spend(query)
    expect([status, json.code, json.error.param]).toEqual([400, 'invalid_request', param])
  })

  it('refuses days that no database knows, as a fault of the request', async () => {
    for (const query of ['?from=0000-01-01&to=0000-12-31', '?to=0000-01-01']) {
      expect([query, (await spend(query)).status]).toEqual([query, 400])
    }
  })

  it('refuses more rows than anybody reads', async () => {
    await harness.sql(
      `insert into attempts (job_id, attempt, generation, tenant_id, idempotency_key, fingerprint, operation, lane, model,
         worker_id, started_at)
       select gen_random_uuid(), 1, 1, 'default', 'k', 'f', 'embeddings', 'openai', 'm' || n, gen_random_uuid(), '2026-03-01'
       from generate_series(1, 10001) n`,
    )
    const query = '?from=2026-02-20&to=2026-03-05'
    const { status, json } = await spend(`${query}&group_by=model`)
    expect([status, json.code, json.error.param]).toEqual([400, 'invalid_request', 'group_by'])
    expect((await spend(query)).json.summary).toMatchObject({ calls: 10_001, open: 10_001 })
  })
})
