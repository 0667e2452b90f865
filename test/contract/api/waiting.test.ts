import { leakCheck } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { at, chat, startHarness, type Harness, type Reply } from './harness.ts'

let harness: Harness

beforeAll(async () => {
  harness = await startHarness()
})
afterAll(async () => {
  await harness.stop()
  await leakCheck()
})

interface WaitingFor {
  kind: string
  name: string
  reason: string
  until: string | null
}

/** A tenant of its own for each test: nothing is known of it yet, so its limits show at once. */
async function tenant(
  name: string,
  limits = '',
): Promise<(method: string, path: string, body?: object) => Promise<Reply>> {
  const key = await harness.keyFor(name)
  if (limits !== '') await harness.sql(`update tenants set ${limits} where id = '${name}'`)
  return (method, path, body) => {
    const headers = path === '/v1/jobs' && method === 'POST' ? { 'idempotency-key': 'one' } : {}
    return harness.call(method, path, { key, headers, ...(body === undefined ? {} : { body }) })
  }
}

const reserve = (name: string, usd: number | null, tokens: number | null = null): Promise<unknown> =>
  harness
    .sql(`update jobs set reserve_usd = $2, reserve_tokens = $3 where tenant_id = $1`, [name, usd, tokens])
    .then(() =>
      harness.sql(`update ready set reserve_usd = $2, reserve_tokens = $3 where tenant_id = $1`, [name, usd, tokens]),
    )
const use = (
  name: string,
  table: 'tenant_days' | 'tenant_seconds',
  columns: string,
  values: string,
): Promise<unknown> => harness.sql(`insert into ${table} (tenant_id, ${columns}) values ('${name}', ${values})`)
const thisSecond = 'floor(extract(epoch from now()))::bigint'
const today = "(now() at time zone 'utc')::date"

/** What the job waits for, read anew until the reading that was cached is old. */
async function untilWaits(
  read: () => Promise<Reply>,
  fits: (waits: WaitingFor | null) => boolean,
): Promise<WaitingFor | null> {
  const startedMs = performance.now()
  for (;;) {
    const waits = (await read()).json.waiting_for as WaitingFor | null
    if (fits(waits)) return waits
    if (performance.now() - startedMs > 5_000) throw new Error(`it still waits for ${JSON.stringify(waits)}`)
  }
}

describe('waiting_for', () => {
  it('is null of a job that waits for a free place, and of one that runs', async () => {
    const call = await tenant('free')
    const { json } = await call('POST', '/v1/jobs', chat('free'))
    expect(json.waiting_for).toBeNull()
    await harness.claim(json.id)
    await harness.sql(`update tenants set max_running = 0 where id = 'free'`)
    expect((await call('GET', `/v1/jobs/${json.id}`)).json).toMatchObject({ state: 'running', waiting_for: null })
  })

  it('schedule: its own time, or the backoff after an error', async () => {
    const call = await tenant('later')
    const { json } = await call('POST', '/v1/jobs', chat('later', { delay_seconds: 600 }))
    expect(json.waiting_for).toEqual({ kind: 'schedule', name: 'schedule', reason: 'scheduled', until: json.run_at })
    expect(json.run_at > json.created_at).toBe(true)

    const failing = await harness.submit('failing', chat('failing'))
    const claim = await harness.claim(failing.json.id)
    await harness.end(claim, {
      action: 'rerun',
      outcome: 'failed',
      billing: 'none',
      backoff: true,
      delayMs: 60_000,
      error: JSON.stringify({ code: 'provider_error', message: 'no', retryable: true, provider_status: 500 }),
    })
    const after = (await harness.call('GET', `/v1/jobs/${failing.json.id}`)).json
    expect(after.waiting_for).toEqual({
      kind: 'schedule',
      name: 'schedule',
      reason: 'provider_error',
      until: after.run_at,
    })
  })

  it('a limit of its tenant: by name, with its use, and when there is room again', async () => {
    const call = await tenant('limited', 'max_running = 1')
    await use('limited', 'tenant_seconds', 'second, calls, tokens', `${thisSecond} - 20, 5, 900`)
    const { json } = await call('POST', '/v1/jobs', chat('limited'))
    expect(json.waiting_for).toBeNull()
    const read = (): Promise<Reply> => call('GET', `/v1/jobs/${json.id}`)
    const bulk = await call('POST', '/v1/jobs/bulk', { jobs: [{ key: 'first', ...chat('first') }] })
    await harness.claim(at(bulk.json.data, 0).job?.id ?? '')
    const running = await untilWaits(read, (waits) => waits !== null)
    expect(running).toEqual({
      kind: 'tenant_limit',
      name: 'max_running',
      reason: 'max_running of tenant "limited" (1, 1 running)',
      until: null,
    })
    await harness.sql(`update tenants set max_running = null, calls_per_minute = 5 where id = 'limited'`)
    const calls = await untilWaits(read, (waits) => waits?.name === 'calls_per_minute')
    expect(calls).toMatchObject({
      kind: 'tenant_limit',
      reason: 'calls_per_minute of tenant "limited" (5, 5 in the last minute)',
    })
    expect(Math.abs(Date.parse(calls?.until ?? '') - Date.now() - 41_000)).toBeLessThan(10_000)
    await reserve('limited', null, 200)
    await harness.sql(`update tenants set calls_per_minute = null, tokens_per_minute = 1000 where id = 'limited'`)
    const tokens = await untilWaits(read, (waits) => waits?.name === 'tokens_per_minute')
    expect(tokens).toMatchObject({
      kind: 'tenant_limit',
      reason: 'tokens_per_minute of tenant "limited" (1000, 900 in the last minute; this call can use 200)',
    })
    expect(tokens?.until).not.toBeNull()
    await harness.sql(`update tenants set tokens_per_minute = null where id = 'limited'`)
    expect(await untilWaits(read, (waits) => waits === null)).toBeNull()
  })

  it('a budget: of the day, of the month, and what no day helps', async () => {
    const call = await tenant('poor', 'budget_day_usd = 5')
    await use('poor', 'tenant_days', 'day, spent_usd, reserved_usd', `${today}, 4.5, 0.48`)
    const { json } = await call('POST', '/v1/jobs', chat('poor'))
    const read = (): Promise<Reply> => call('GET', `/v1/jobs/${json.id}`)
    const waits = async (usd: number | null): Promise<WaitingFor | null> => {
      await reserve('poor', usd)
      return (await read()).json.waiting_for as WaitingFor | null
    }
    const tomorrow = new Date(Date.now() + 86_400_000).toISOString().slice(0, 10)
    expect(await waits(0.05)).toEqual({
      kind: 'budget',
      name: 'day',
      reason: 'the budget of the day of tenant "poor" ($5.00, $4.98 used; this call can cost $0.0500)',
      until: `${tomorrow}T00:00:00.000Z`,
    })
    expect(await waits(0.02)).toBeNull()
    expect(await waits(6)).toMatchObject({
      name: 'day',
      reason: 'the budget of the day of tenant "poor" ($5.00): this call can cost $6.00, more than all of it',
      until: null,
    })
    expect(await waits(null)).toMatchObject({
      name: 'day',
      reason: 'the budget of the day of tenant "poor" ($5.00): nobody knows what this call can cost',
      until: null,
    })
    await harness.sql(`update tenants set budget_month_usd = 5 where id = 'poor'`)
    await reserve('poor', 0.05)
    const month = await untilWaits(read, (given) => given?.name === 'month')
    expect(month?.until).toMatch(/-01T00:00:00\.000Z$/)
  })

  it('is said by every answer that shows a job', async () => {
    const call = await tenant('shown', 'max_running = 0')
    const waits = { kind: 'tenant_limit', name: 'max_running' }
    const { json } = await call('POST', '/v1/jobs', chat('shown'))
    expect(json.waiting_for).toMatchObject(waits)
    const path = `/v1/jobs/${json.id}`
    expect((await call('POST', '/v1/jobs', chat('shown'))).json.waiting_for).toMatchObject(waits)
    expect((await call('GET', `${path}?wait=1`)).json.waiting_for).toMatchObject(waits)
    expect(at((await call('GET', '/v1/jobs')).json.data, 0).waiting_for).toMatchObject(waits)
    const bulk = await call('POST', '/v1/jobs/bulk', { jobs: [{ key: 'two', ...chat('two') }] })
    expect(at(bulk.json.data, 0).job?.waiting_for).toMatchObject(waits)
    await call('POST', `${path}/cancel`)
    expect((await call('POST', `${path}/retry`)).json.waiting_for).toMatchObject(waits)
    const again = await call('POST', '/v1/jobs/bulk/cancel', { ids: [json.id] })
    expect(at(again.json.data, 0).job?.waiting_for).toBeNull()
  })
})

describe('GET /v1/jobs?waiting_for=', () => {
  it('lists what waits for one kind of thing, newest first, page by page, for its own tenant alone', async () => {
    const call = await tenant('lister', 'tokens_per_minute = 100')
    await use('lister', 'tenant_seconds', 'second, calls, tokens', `${thisSecond}, 1, 100`)
    const items = Array.from({ length: 7 }, (_, index) => ({ key: `l/${index}`, ...chat(`l/${index}`) }))
    const later = { key: 'l/later', ...chat('later', { delay_seconds: 600 }) }
    await call('POST', '/v1/jobs/bulk', { jobs: [...items, later] })
    await reserve('lister', null, 10)
    await (
      await tenant('neighbour', 'max_running = 0')
    )('POST', '/v1/jobs', chat('neighbour'))
    const pages: string[][] = []
    let cursor: string | null = ''
    while (cursor !== null) {
      const query = cursor === '' ? '' : `&cursor=${cursor}`
      const { status, json } = await call('GET', `/v1/jobs?waiting_for=tenant_limit&limit=3${query}`)
      expect(status).toBe(200)
      expect(json.has_more).toBe(json.next_cursor !== null)
      for (const { waiting_for: waits } of json.data) {
        expect(waits).toMatchObject({ kind: 'tenant_limit', name: 'tokens_per_minute' })
      }
      pages.push(json.data.map(({ key }) => key))
      cursor = json.next_cursor
    }
    expect(pages.map(({ length }) => length)).toEqual([3, 3, 1])
    const all = await call('GET', '/v1/jobs?state=queued')
    expect(pages.flat()).toEqual(all.json.data.map(({ key }) => key).filter((key) => key !== 'l/later'))
    const scheduled = await call('GET', '/v1/jobs?waiting_for=schedule')
    expect(scheduled.json.data.map(({ key }) => key)).toEqual(['l/later'])
    expect((await call('GET', '/v1/jobs?waiting_for=budget')).json).toMatchObject({ data: [], has_more: false })
  })

  it('lists what a closed lane keeps, in our words', async () => {
    const call = await tenant('laned')
    const { json } = await call('POST', '/v1/jobs', chat('laned'))
    await harness.sql(
      `insert into lanes (name, state, code, reason) values ('simulated', 'stopped', 'provider_auth', 'said about acme')`,
    )
    const { text, json: page } = await call('GET', '/v1/jobs?waiting_for=lane')
    expect(at(page.data, 0)).toMatchObject({ id: json.id, waiting_for: { kind: 'lane', name: 'simulated' } })
    expect(text).not.toContain('acme')
    await harness.sql('delete from lanes')
    expect((await call('GET', '/v1/jobs?waiting_for=lane')).json.data).toEqual([])
  })

  it.each(['key=x', 'state=queued', 'key_prefix=x', 'metadata=a=b', 'paid=maybe'])(
    'does not go with %s',
    async (other) => {
      const { status, json } = await harness.call('GET', `/v1/jobs?waiting_for=lane&${other}`)
      expect([status, json.code]).toEqual([400, 'invalid_request'])
      expect(json.detail).toContain(`${other.split('=')[0]}: does not go together with waiting_for`)
    },
  )

  it('refuses what is no kind', async () => {
    const { status, json } = await harness.call('GET', '/v1/jobs?waiting_for=godot')
    expect([status, json.detail]).toEqual([400, expect.stringContaining('lane, tenant_limit, budget, schedule')])
  })
})

describe('/metrics', () => {
  it('counts queued jobs by what they wait for, with no name of a tenant', async () => {
    await (
      await tenant('counted-tenant', 'max_running = 0')
    )('POST', '/v1/jobs', chat('counted'))
    const { text } = await harness.call('GET', '/metrics', { key: null })
    for (const reason of ['lane', 'tenant_limit', 'budget', 'schedule', 'place'])
      expect(text).toMatch(new RegExp(`^askonce_jobs_waiting\\{reason="${reason}"\\} \\d+$`, 'm'))
    expect(text).not.toContain('counted-tenant')
  })
})
