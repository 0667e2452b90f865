import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTenant } from '@askonce/store'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bootstrapKey, callApi, chat, startHarness, startOn, type Harness, type Reply } from './harness.ts'

let harness: Harness
let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'askonce-tenants-'))
  const prices = [
    { model: 'simulated/priced', input_per_million_usd: 1, output_per_million_usd: 1, max_output_tokens: 1_000_000 },
    { model: 'simulated/open', input_per_million_usd: 1, output_per_million_usd: 1 },
  ]
  await writeFile(join(directory, 'config.json'), JSON.stringify({ prices }))
  harness = await startHarness({ env: { ASKONCE_CONFIG: join(directory, 'config.json') } })
})
afterAll(async () => {
  await harness.stop()
  await rm(directory, { recursive: true })
})

const make = (body: object, key = bootstrapKey): Promise<Reply> => harness.call('POST', '/v1/tenants', { body, key })
const patch = (id: string, body: object): Promise<Reply> => harness.call('PATCH', `/v1/tenants/${id}`, { body })

let number = 0
/** A tenant with these limits, and a key of it that has not been used: the first request sees them. */
async function limited(settings: Parameters<typeof setTenant>[2]): Promise<string> {
  const name = `limits-${(number += 1)}`
  const key = await harness.keyFor(name, ['submit', 'read'])
  await setTenant(harness.database.db, name, settings)
  return key
}

const submit = (key: string, name: string, extra: object = {}, model = 'simulated/small'): Promise<Reply> =>
  harness.call('POST', '/v1/jobs', {
    key,
    body: { ...chat(), request: { ...chat().request, model, ...extra } },
    headers: { 'idempotency-key': name },
  })

describe('/v1/tenants', () => {
  it('makes, shows, lists and changes a tenant', async () => {
    const made = await make({ id: 'acme', max_running: 20, budget_usd: { day: 5 } })
    const tenant = {
      object: 'tenant',
      id: 'acme',
      weight: 1,
      max_running: 20,
      max_queued: null,
      submissions_per_second: null,
      calls_per_minute: null,
      tokens_per_minute: null,
      budget_usd: { day: 5, month: null },
      derive_keys: false,
      on_uncertain: null,
      max_attempts: null,
      max_paid_attempts: null,
      ttl_seconds: null,
      timeout_seconds: null,
    }
    expect(made.status).toBe(201)
    expect(made.json).toMatchObject(tenant)
    const changed = await patch('acme', { weight: 7, max_running: null, budget_usd: { month: 100 }, ttl_seconds: 60 })
    const after = { ...tenant, weight: 7, max_running: null, budget_usd: { day: 5, month: 100 }, ttl_seconds: 60 }
    expect(changed.json).toMatchObject(after)
    const got = await harness.call('GET', '/v1/tenants/acme')
    const use = { running: 0, queued: 0, usd_day: 0, usd_month: 0, reserved_usd: 0 }
    expect(got.json).toEqual({ ...after, created_at: expect.any(String) as string, use })
    const listed = await harness.call('GET', '/v1/tenants')
    expect(listed.json.data).toContainEqual({ ...after, created_at: expect.any(String) as string })
    expect((await patch('acme', { weight: null, budget_usd: null, ttl_seconds: null })).json).toMatchObject({
      weight: 1,
      budget_usd: { day: null, month: null },
      ttl_seconds: null,
    })
    const lines = harness.lines.filter(({ event }) => event === 'tenant.changed')
    expect(lines).toHaveLength(3)
    expect(lines[0]).toMatchObject({
      tenant: 'acme',
      reason: expect.stringMatching(/^by the key [0-9a-f-]{36}$/) as string,
    })
  })

  it('shows what it uses', async () => {
    const key = await limited({ maxRunning: 1 })
    const name = `limits-${number}`
    const { json } = await submit(key, 'running')
    await submit(key, 'queued')
    await harness.claim(json.id)
    const got = await harness.call('GET', `/v1/tenants/${name}`)
    expect(got.json).toMatchObject({ use: { running: 1, queued: 1 } })
    // What runs goes on below a new limit.
    expect((await patch(name, { max_running: 0 })).status).toBe(200)
    expect((await harness.call('GET', `/v1/jobs/${json.id}`, { key })).json.state).toBe('running')
  })

  it.each([
    ['max_running', -1],
    ['max_running', 100_001],
    ['max_running', 1.5],
    ['max_running', '20'],
    ['max_queued', -1],
    ['submissions_per_second', 0],
    ['calls_per_minute', 0],
    ['tokens_per_minute', 1e13],
    ['weight', 0],
    ['weight', 101],
    ['budget_usd', 5],
    ['budget_usd', { day: -0.01 }],
    ['budget_usd', { month: 1e9 }],
    ['budget_usd', { week: 1 }],
    ['on_uncertain', 'perhaps'],
    ['max_calls', 1],
  ])('refuses %s %j, and changes nothing', async (member, value) => {
    const before = (await harness.call('GET', '/v1/tenants/default')).text
    const reply = await patch('default', { derive_keys: true, [member]: value })
    expect(reply.status).toBe(400)
    expect(reply.json.code).toBe('invalid_request')
    expect((reply.json['error'] as { param: string }).param).toMatch(new RegExp(`^/${member}`))
    expect((await harness.call('GET', '/v1/tenants/default')).text).toBe(before)
    expect((await make({ id: 'bad', [member]: value })).status).toBe(400)
    expect((await harness.call('GET', '/v1/tenants/bad')).status).toBe(404)
  })

  it('refuses bad names, names that are taken, names that are not there, and a change of nothing', async () => {
    for (const id of ['', 'No', 'a b', 'x'.repeat(64), '-a', 7, undefined])
      expect((await make({ id })).status).toBe(400)
    const twice = await make({ id: 'default' })
    expect([twice.status, twice.json.code]).toEqual([409, 'already_exists'])
    for (const [method, body] of [
      ['GET', undefined],
      ['PATCH', { weight: 2 }],
    ] as const) {
      for (const id of ['nobody', '%00', 'a%2Fb', '..']) {
        const reply = await harness.call(method, `/v1/tenants/${id}`, body === undefined ? {} : { body })
        expect([400, 404, 405]).toContain(reply.status)
      }
      expect((await harness.call(method, '/v1/tenants/nobody', body === undefined ? {} : { body })).status).toBe(404)
    }
    expect((await patch('default', {})).status).toBe(400)
  })
})

describe('scopes', () => {
  const operators: [method: string, path: string, body?: object][] = [
    ['GET', '/v1/lanes'],
    ['POST', '/v1/lanes/simulated/resume', {}],
    ['GET', '/v1/tenants'],
    ['POST', '/v1/tenants', { id: 'mine' }],
    ['GET', '/v1/tenants/default'],
    ['PATCH', '/v1/tenants/default', { weight: 2 }],
  ]

  it.each(operators)('%s %s is for operators: an admin of a tenant gets 403', async (method, path, body) => {
    const key = await harness.keyFor(`admins-${(number += 1)}`, ['submit', 'read', 'admin'])
    const given = body === undefined ? {} : { body }
    const refused = await harness.call(method, path, { key, ...given })
    expect([refused.status, refused.json.code]).toEqual([403, 'forbidden'])
    const operator = await harness.keyFor(`operators-${number}`, ['operator'])
    const allowed = await harness.call(method, path, { key: operator, ...given })
    expect(allowed.status).toBeLessThan(300)
  })

  it('every route that acts for more than its own tenant is among them', async () => {
    const { paths } = (await harness.call('GET', '/openapi.json')).json as unknown as {
      paths: Record<string, Record<string, { description?: string; summary: string }>>
    }
    const own = operators.map(([method, path]) => `${method.toLowerCase()} ${path.replace(/simulated|default$/, '{}')}`)
    const described = Object.entries(paths)
      .filter(([path]) => /^\/v1\/(?:lanes|tenants)/.test(path))
      .flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method} ${path.replace(/\{\w+\}/, '{}')}`))
    expect(described.toSorted()).toEqual(own.toSorted())
  })

  it('an operator without other scopes neither submits nor reads', async () => {
    const key = await harness.keyFor('operators', ['operator'])
    expect((await submit(key, 'x')).status).toBe(403)
    expect((await harness.call('GET', '/v1/jobs', { key })).status).toBe(403)
  })

  it('nothing that needs no key says which tenants there are, or what a provider said', async () => {
    await make({ id: 'secretive' })
    for (const path of ['/readyz', '/metrics', '/healthz', '/']) {
      expect((await harness.call('GET', path, { key: null })).text).not.toContain('secretive')
    }
  })
})

describe('limits of submissions', () => {
  it('max_queued: 429 backlog_full, by item in bulk; attaches and replays pass', async () => {
    const key = await limited({ maxQueued: 2 })
    expect((await submit(key, 'a')).status).toBe(202)
    const bulk = await harness.call('POST', '/v1/jobs/bulk', {
      key,
      body: { jobs: ['a', 'b', 'c', 'd'].map((name) => Object.assign(chat(), { key: name })) },
    })
    expect(bulk.json.data.map(({ status }) => status)).toEqual([202, 202, 429, 429])
    expect(bulk.json.data[3]?.['error']).toMatchObject({ code: 'backlog_full', retryable: true })
    const refused = await submit(key, 'e')
    expect([refused.status, refused.json.code, refused.json['retryable']]).toEqual([429, 'backlog_full', true])
    const wait = Number(refused.headers.get('retry-after'))
    expect(wait).toBeGreaterThanOrEqual(1)
    expect(wait).toBeLessThanOrEqual(60)
    expect((await submit(key, 'a')).headers.get('idempotent-replayed')).toBe('true')
    const sdk = await harness.call('POST', '/openai/v1/chat/completions', {
      key,
      body: chat().request,
      headers: { 'idempotency-key': 'sdk', prefer: 'respond-async' },
    })
    expect([sdk.status, (sdk.json['error'] as { type: string }).type]).toEqual([429, 'rate_limit_error'])
    const anthropic = await harness.call('POST', '/anthropic/v1/messages', {
      key,
      body: { ...chat().request, max_tokens: 5 },
      headers: { 'idempotency-key': 'sdk', prefer: 'respond-async' },
    })
    expect(anthropic.json['error']).toMatchObject({ type: 'rate_limit_error', code: 'backlog_full' })
    expect(anthropic.headers.get('retry-after')).toBe('5')
  })

  it('submissions_per_second: 429 rate_limited, and room again in the next second', async () => {
    const key = await limited({ submissionsPerSecond: 1 })
    const replies = await Promise.all(Array.from({ length: 20 }, (_, n) => submit(key, `k${n}`)))
    const refused = replies.filter(({ status }) => status === 429)
    expect(refused.length).toBeGreaterThan(0)
    for (const { json, headers } of refused) {
      expect([json.code, headers.get('retry-after')]).toEqual(['rate_limited', '1'])
    }
    await expect.poll(async () => (await submit(key, 'later')).status, { timeout: 3_000, interval: 50 }).toBe(202)
  })

  it('hold within a second of being set, and no longer when they are taken away', async () => {
    const key = await limited({})
    const name = `limits-${number}`
    expect((await submit(key, 'first')).status).toBe(202)
    let tried = 0
    const next = async (): Promise<number> => (await submit(key, `n${(tried += 1)}`)).status
    await patch(name, { max_queued: 0 })
    await expect.poll(next, { timeout: 1_000, interval: 20 }).toBe(429)
    await patch(name, { max_queued: null })
    await expect.poll(next, { timeout: 1_000, interval: 20 }).toBe(202)
  })

  it('hold to the unit over two APIs on one database', async () => {
    const key = await limited({ maxQueued: 50 })
    const second = await startOn(harness.databaseUrl)
    try {
      const replies = await Promise.all(
        Array.from({ length: 300 }, (_, n) =>
          callApi(n % 2 === 0 ? harness.api.address : second.api.address, 'POST', '/v1/jobs', {
            key,
            body: chat(),
            headers: { 'idempotency-key': `k${n}` },
          }),
        ),
      )
      const counts: Record<number, number> = {}
      for (const { status } of replies) counts[status] = (counts[status] ?? 0) + 1
      expect(counts).toEqual({ 202: 50, 429: 250 })
    } finally {
      await second.api.close()
    }
  })
})

describe('a budget', () => {
  it('refuses what has no price or no limit of output with 400 no_price, on every way in', async () => {
    const key = await limited({ budgetMonthUsd: 0.5 })
    expect((await submit(key, 'free')).status).toBe(202)
    expect((await submit(key, 'small', { max_tokens: 100 }, 'simulated/priced')).status).toBe(202)
    const open = await submit(key, 'open', {}, 'simulated/open')
    expect([open.status, open.json.code]).toEqual([400, 'no_price'])
    expect(open.json['detail']).toMatch(/"prices".*ASKONCE_CONFIG/s)
    expect(open.headers.get('x-should-retry')).toBe('false')
    expect((await submit(key, 'open', { max_completion_tokens: 5 }, 'simulated/open')).status).toBe(202)
    const whole = await submit(key, 'whole', {}, 'simulated/priced')
    expect([whole.status, whole.json.code]).toEqual([400, 'invalid_request'])
    expect(whole.json['detail']).toContain('whole budget')
    const item = { key: 'bulk', ...chat(), request: { ...chat().request, model: 'simulated/open' } }
    const bulk = await harness.call('POST', '/v1/jobs/bulk', { key, body: { jobs: [item, { key: 'b2', ...chat() }] } })
    expect(bulk.json.data.map(({ status }) => status)).toEqual([400, 202])
    expect(bulk.json.data[0]?.['error']).toMatchObject({ code: 'no_price', retryable: false })
  })

  it('never refuses a replay or an attach', async () => {
    const key = await limited({})
    const name = `limits-${number}`
    const first = await submit(key, 'a', {}, 'simulated/open')
    await harness.answer(await harness.claim(first.json.id), '{"ok":1}')
    await submit(key, 'waits', {}, 'simulated/open')
    await patch(name, { budget_usd: { day: 0.01 } })
    await expect
      .poll(async () => (await submit(key, `n${(number += 1)}`, {}, 'simulated/open')).status, { timeout: 1_000 })
      .toBe(400)
    expect((await submit(key, 'a', {}, 'simulated/open')).status).toBe(200)
    expect((await submit(key, 'waits', {}, 'simulated/open')).status).toBe(202)
  })

  it('the most that a call can cost stands in its row', async () => {
    const key = await limited({ budgetDayUsd: 5 })
    const { json } = await submit(key, 'row', { max_tokens: 1_000 }, 'simulated/priced')
    const [row] = await harness.sql('select reserve_usd::float8 as usd, reserve_tokens from ready where job_id = $1', [
      json.id,
    ])
    expect(row?.['usd']).toBeCloseTo(Number(row?.['reserve_tokens']) / 1e6, 10)
    expect(row?.['reserve_tokens']).toBeGreaterThan(2_000)
  })
})
