import { waitKinds } from '@askonce/core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { requestsAbout, type OpenApi } from './tenants-requests.ts'
import { apiKey, chat, run, startSystem, until, type System } from './system.ts'

interface Answer {
  status: number
  headers: Record<string, string>
  text: string
}

interface Ask {
  path: string
  method: string
  body?: object
  headers?: Record<string, string>
}

const states = ['queued', 'running', 'succeeded', 'failed', 'uncertain', 'cancelled'] as const
const secret = 'the-first-tenants-own-words'

/** What differs between any two answers: ids, times, the request's own id and how long it took. */
function normal({ status, headers, text }: Answer, key: string): Answer {
  const plain = (value: string): string =>
    value
      .replaceAll(key, '<key>')
      .replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, '<id>')
      .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '<time>')
  const { date: _date, 'x-request-id': _id, ...rest } = headers
  const kept = Object.entries(rest).map(([name, value]) => [name, plain(value)])
  return { status, headers: Object.fromEntries(kept) as Record<string, string>, text: plain(text) }
}

// DESIGN.md §1.2 and API.md: a key belongs to its tenant, and nothing tells one tenant about another.
// Not covered: load. A tenant that submits much makes all others wait, and they can see that.
describe('FAULTS 12, two tenants, one key, one body (redis form)', () => {
  let system: System
  let address: string
  let otherKey: string
  let openapi: OpenApi
  /** Jobs of the first tenant, by state. Their keys are `a-<state>`. */
  const ids = new Map<string, string>()

  const ask = async (credential: string, { method, path, body, headers = {} }: Ask): Promise<Answer> => {
    const response = await fetch(address + path, {
      method,
      headers: {
        authorization: `Bearer ${credential}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(60_000),
    })
    return { status: response.status, headers: Object.fromEntries(response.headers), text: await response.text() }
  }
  const submit = (credential: string, key: string, body: object, prefer?: string): Promise<Answer> =>
    ask(credential, {
      method: 'POST',
      path: '/v1/jobs',
      body,
      headers: { 'idempotency-key': key, ...(prefer === undefined ? {} : { prefer }) },
    })
  const jobIn = ({ text }: Answer) => JSON.parse(text) as { id: string; state: string; response: unknown }

  beforeAll(async () => {
    system = await startSystem('redis')
    address = (await system.api()).address
    await Promise.all([system.started('worker'), system.started('janitor')])
    const made = await run(system, [
      'keys',
      'create',
      '--tenant',
      'other',
      '--name',
      'b',
      '--scopes',
      'submit,read,admin',
    ])
    otherKey = made.stdout.split('\n').find((line) => line.startsWith('ak_')) as string
    openapi = JSON.parse((await ask(apiKey, { method: 'GET', path: '/openapi.json' })).text) as OpenApi

    const refusal = { kind: 'refuse', status: 400, body: { error: { message: secret, type: 'invalid_request_error' } } }
    await system.upstream.script([
      { ...refusal, match: { marker: 'a-failed' } },
      { kind: 'reset', match: { marker: 'a-uncertain' } },
      { kind: 'hang', match: { marker: 'a-running' } },
    ])
    for (const state of states) {
      const later = state === 'queued' || state === 'cancelled' ? { delay_seconds: 3_600 } : {}
      const body = { ...chat(`a-${state}`, secret), on_uncertain: 'hold', metadata: { note: secret }, ...later }
      ids.set(state, jobIn(await submit(apiKey, `a-${state}`, body)).id)
    }
    await ask(apiKey, { method: 'POST', path: `/v1/jobs/${ids.get('cancelled')}/cancel`, body: { reason: secret } })
    await until(
      () => system.sql<{ state: string; key: string }>('select state, idempotency_key as key from jobs'),
      (rows) => rows.every(({ state, key }) => key === `a-${state}`),
      20_000,
    )
  })
  afterAll(() => system.stop())

  test('one key and one body are two jobs, two calls and two answers, each replayed to its own tenant', async () => {
    const body = chat('shared')
    const mine = await submit(apiKey, 'shared', body, 'wait=30')
    const theirs = await submit(otherKey, 'shared', body, 'wait=30')
    expect([mine, theirs].map(({ status, headers }) => [status, headers['idempotent-replayed']])).toEqual([
      [200, 'false'],
      [200, 'false'],
    ])
    expect(jobIn(mine).id).not.toBe(jobIn(theirs).id)
    // The upstream numbers its answers.
    expect(jobIn(mine).response).not.toEqual(jobIn(theirs).response)
    expect((await system.upstream.callsBy())['shared']).toBe(2)
    for (const [credential, first] of [
      [apiKey, mine],
      [otherKey, theirs],
    ] as const) {
      const again = await submit(credential, 'shared', body)
      expect([again.headers['idempotent-replayed'], jobIn(again).response]).toEqual(['true', jobIn(first).response])
    }
    expect((await system.upstream.callsBy())['shared']).toBe(2)
  })

  test('the key of another tenant with another body is no conflict', async () => {
    for (const state of states) {
      const reply = await submit(otherKey, `a-${state}`, { ...chat(`b-${state}`), delay_seconds: 3_600 })
      expect([reply.status, reply.headers['idempotent-replayed']]).toEqual([202, 'false'])
    }
    await system.sql(`delete from jobs where tenant_id = 'other'`)
  })

  test('no route tells an id or a key of another tenant from one that does not exist, and none changes a row', async () => {
    const before = await rowsOf('default')
    const seen = new Set<string>()
    for (const state of states) {
      const id = ids.get(state) as string
      const known = requestsAbout(openapi, { id, key: `a-${state}` })
      // Of the same length, so that every header can be compared.
      const unknown = requestsAbout(openapi, { id: `${id.slice(0, -6)}000000`, key: `z-${state}` })
      for (const [index, { route, ...request }] of known.entries()) {
        seen.add(route)
        const about = await ask(otherKey, request)
        const nothing = await ask(otherKey, unknown[index] as Ask)
        expect([route, state, normal(about, `a-${state}`)]).toEqual([route, state, normal(nothing, `z-${state}`)])
        expect([route, about.status < 500, about.text.includes(secret)]).toEqual([route, true, false])
        // Both submissions are the other tenant's own by now.
        await system.sql(`delete from jobs where tenant_id = 'other'`)
      }
    }
    // The requests are about something: their owner gets other answers.
    const id = ids.get('succeeded') as string
    const reads = requestsAbout(openapi, { id, key: 'a-succeeded' }).filter(({ method }) => method === 'GET')
    const absent = requestsAbout(openapi, { id: `${id.slice(0, -6)}000000`, key: 'z' })
    expect(reads.length).toBeGreaterThan(4)
    for (const { route, ...request } of reads) {
      const twin = absent.find((other) => other.route === route) as Ask
      const [own, none] = [await ask(apiKey, request), await ask(apiKey, twin)]
      expect([route, normal(own, 'a-succeeded')]).not.toEqual([route, normal(none, 'z')])
    }
    const described = Object.entries(openapi.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    )
    expect([...seen].toSorted()).toEqual(described.filter((route) => route.includes('/v1/jobs')).toSorted())
    expect(await rowsOf('default')).toEqual(before)
  })

  test('lists, filters, cursors, spend and what needs no key hold nothing of another tenant', async () => {
    await submit(otherKey, 'own', { ...chat('own'), delay_seconds: 3_600 })
    const page = JSON.parse((await ask(apiKey, { method: 'GET', path: '/v1/jobs?limit=1' })).text) as {
      next_cursor: string
    }
    const reads = ['/v1/jobs', '/v1/jobs?limit=200', `/v1/jobs?limit=200&cursor=${page.next_cursor}`, '/v1/spend']
    const ledgers = ['/v1/attempts?key=a-succeeded', '/v1/attempts?key=own']
    const all = [...states].map((state) => `/v1/jobs?state=${state}`)
    const waiting = waitKinds.map((kind) => `/v1/jobs?waiting_for=${kind}`)
    const open = ['/healthz', '/readyz', '/metrics', '/openapi.json']
    for (const path of [...reads, ...ledgers, ...all, ...waiting, ...open]) {
      const { status, text } = await ask(otherKey, { method: 'GET', path })
      expect([path, status]).toEqual([path, 200])
      const words = [secret, apiKey, 'a-succeeded', ...ids.values()].filter((word) => text.includes(word))
      expect([path, words]).toEqual([path, []])
    }
    // The providers' words about anybody's request are for operators, and an administrator of a tenant is none.
    const lanes = await ask(otherKey, { method: 'GET', path: '/v1/lanes' })
    expect([lanes.status, lanes.text.includes(secret)]).toEqual([403, false])
    const before = await rowsOf('default')
    for (const change of ['cancel', 'retry', 'fail']) {
      for (const filter of [
        { metadata: { note: secret } },
        { created_before: new Date(Date.now() + 60_000).toISOString() },
      ]) {
        const reply = await ask(otherKey, { method: 'POST', path: `/v1/jobs/bulk/${change}`, body: { filter } })
        const { data } = JSON.parse(reply.text) as { data: unknown[] }
        expect([change, reply.status, JSON.stringify(data).includes(secret)]).toEqual([change, 200, false])
      }
    }
    expect(await rowsOf('default')).toEqual(before)
    // What was just retried runs: both sums are read when it has ended.
    await until(
      () => system.sql(`select from jobs where tenant_id = 'other' and state in ('queued', 'running')`),
      (rows) => rows.length === 0,
      20_000,
    )
    const spend = JSON.parse((await ask(otherKey, { method: 'GET', path: '/v1/spend' })).text) as {
      summary: { calls: number }
    }
    const [{ count } = { count: '' }] = await system.sql<{ count: string }>(
      `select count(*) from attempts where tenant_id = 'other'`,
    )
    expect(spend.summary.calls).toBe(Number(count))
    expect(Number(count)).toBeGreaterThan(0)
  })

  // What it can show: that no path does visibly more work for what belongs to somebody else (a lock that is waited for, an answer that is
  // read, a call to another server). What it cannot: differences of a few per cent, which one machine under load hides, and which an
  // attacker with many more samples on a quiet one might see.
  test('and no time does: 500 interleaved pairs each of reads, look-ups and submissions, by their medians', async () => {
    const rounds = 500
    const theirs = Array.from({ length: rounds }, (_, index) => ({
      key: `t-${index}`,
      ...chat(`t-${index}`),
      delay_seconds: 3_600,
    }))
    const bulk = await ask(apiKey, { method: 'POST', path: '/v1/jobs/bulk', body: { jobs: theirs } })
    expect(bulk.status).toBe(200)
    const body = { ...chat('timing'), delay_seconds: 3_600 }
    const pairs: Record<string, (index: number, foreign: boolean) => Promise<Answer>> = {
      read: (index, foreign) => {
        const id = ids.get('succeeded') as string
        const path = `/v1/jobs/${foreign ? id : `${id.slice(0, -6)}${100_000 + index}`}`
        return ask(otherKey, { method: 'GET', path })
      },
      'look-up': (index, foreign) =>
        ask(otherKey, { method: 'GET', path: `/v1/jobs?key=${foreign ? 't' : 'u'}-${index}` }),
      submission: (index, foreign) => submit(otherKey, `${foreign ? 't' : 'u'}-${index}`, body),
    }
    for (const [name, send] of Object.entries(pairs)) {
      const times: Record<'foreign' | 'absent', number[]> = { foreign: [], absent: [] }
      for (let index = 0; index < rounds; index += 1) {
        // Who goes first alternates, so that neither always pays for what the other left behind.
        const order = index % 2 === 0 ? (['foreign', 'absent'] as const) : (['absent', 'foreign'] as const)
        for (const which of order) {
          const startedAt = performance.now()
          await send(index, which === 'foreign')
          times[which].push(performance.now() - startedAt)
        }
      }
      const ratio = median(times.foreign) / median(times.absent)
      expect(ratio, `${name}: ${median(times.foreign)} and ${median(times.absent)} ms`).toBeGreaterThan(0.67)
      expect(ratio, `${name}: ${median(times.foreign)} and ${median(times.absent)} ms`).toBeLessThan(1.5)
    }
  })

  /** Everything that is stored for a tenant. */
  const rowsOf = async (tenant: string): Promise<unknown[]> => [
    await system.sql('select * from jobs where tenant_id = $1 order by idempotency_key', [tenant]),
    await system.sql('select r.* from requests r join jobs on id = job_id where tenant_id = $1 order by job_id', [
      tenant,
    ]),
    await system.sql('select * from answers where tenant_id = $1 order by job_id', [tenant]),
    await system.sql('select * from ready where tenant_id = $1 order by job_id', [tenant]),
    await system.sql('select * from job_lists where tenant_id = $1 order by job_id, list', [tenant]),
    await system.sql('select * from attempts where tenant_id = $1 order by job_id, attempt', [tenant]),
    await system.sql('select * from decisions where tenant_id = $1 order by id', [tenant]),
  ]
})

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}
