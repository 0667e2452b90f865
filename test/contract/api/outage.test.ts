import { createServer, type AddressInfo, type Socket } from 'node:net'
import { leakCheck } from '@askonce/testkit'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { bootstrapKey, callApi, chat, startHarness, startOn, type Harness, type Reply } from './harness.ts'

afterAll(leakCheck)

function expectRetryLater({ status, json, headers }: Reply, code: string): void {
  expect([status, json.code, json.retryable]).toEqual([503, code, true])
  expect(Number(headers.get('retry-after'))).toBeGreaterThanOrEqual(1)
  expect(Number(headers.get('retry-after'))).toBeLessThanOrEqual(60)
  expect(headers.has('x-should-retry')).toBe(false)
}

async function within<T>(limitMs: number, run: Promise<T>): Promise<T> {
  const sinceMs = performance.now()
  const result = await run
  expect(performance.now() - sinceMs).toBeLessThan(limitMs)
  return result
}

describe('Postgres away', () => {
  let harness: Harness
  beforeEach(async () => {
    harness = await startHarness()
    await harness.submit('before', chat('before'))
  })
  afterEach(() => harness.stop())

  it('killed and restarted: 503 meanwhile, back by itself, nothing accepted is lost', async () => {
    await harness.postgres.kill()
    expectRetryLater(await within(12_000, harness.submit('during', chat('during'))), 'unavailable')
    expectRetryLater(await within(12_000, harness.call('GET', '/v1/jobs')), 'unavailable')
    const bulk = {
      jobs: [
        { key: 'b1', ...chat() },
        { key: 'b2', ...chat() },
      ],
    }
    expectRetryLater(await within(12_000, harness.call('POST', '/v1/jobs/bulk', { body: bulk })), 'unavailable')
    expect((await harness.call('GET', '/healthz')).status).toBe(200)
    const ready = await within(5_000, harness.call('GET', '/readyz'))
    expect([ready.status, ready.json.status, ready.json.checks.database.ok]).toEqual([503, 'unavailable', false])
    expect(ready.text).not.toMatch(/password|@127/)
    const metrics = await within(5_000, harness.call('GET', '/metrics'))
    expect(metrics.text).toContain('askonce_database_up 0')

    await harness.postgres.restart()
    await expect
      .poll(async () => (await harness.submit('during', chat('during'))).status, { timeout: 20_000 })
      .toBe(202)
    expect((await harness.submit('before', chat('before'))).headers.get('idempotent-replayed')).toBe('true')
    await expect.poll(() => harness.lines.map(({ event }) => event), { timeout: 10_000 }).toContain('store.recovered')
    await expect.poll(async () => (await harness.call('GET', '/readyz')).status, { timeout: 10_000 }).toBe(200)
    const outages = harness.lines.filter(({ event }) => event === 'store.unavailable')
    expect(outages).toHaveLength(1)
    const failed = harness.lines.find(({ event }) => event === 'request.failed')
    expect(failed).toMatchObject({
      status: 503,
      error_code: 'unavailable',
      route: 'POST /v1/jobs',
      tenant: 'default',
    })
    // LISTEN is back, too: what settles now ends a wait by its notification.
    expect((await harness.call('GET', '/v1/jobs?state=queued')).json.data.length).toBeGreaterThanOrEqual(2)
  })

  it('a short restart is not noticed by a submission', async () => {
    await harness.postgres.kill()
    const submission = harness.submit('patient', chat('patient'))
    await harness.postgres.restart()
    const reply = await submission
    expect([202, 503]).toContain(reply.status)
    expect((await harness.submit('patient', chat('patient'))).status).toBe(202)
    const rows = await harness.sql(`select id from jobs where idempotency_key = 'patient'`)
    expect(rows).toHaveLength(1)
  })

  it('frozen: 503 within seconds, never a hang, and the work goes on when it thaws', async () => {
    harness.postgres.pause()
    const replies = await Promise.all([
      within(12_000, harness.submit('frozen', chat('frozen'))),
      within(12_000, harness.call('GET', '/v1/jobs/01890000-0000-7000-8000-000000000000')),
      within(12_000, harness.call('GET', '/v1/lanes')),
      within(
        8_000,
        harness.call('POST', '/v1/jobs/bulk/cancel', { body: { ids: ['01890000-0000-7000-8000-000000000000'] } }),
      ),
    ])
    for (const reply of replies) expectRetryLater(reply, 'unavailable')
    // A key that was found a moment ago needs no look; an unknown one does.
    expectRetryLater(
      await within(12_000, harness.call('GET', '/v1/jobs', { key: 'ak_never_seen_before' })),
      'unavailable',
    )
    expect((await within(6_000, harness.call('GET', '/readyz'))).status).toBe(503)
    harness.postgres.resume()
    await expect
      .poll(async () => (await harness.submit('frozen', chat('frozen'))).status, { timeout: 30_000 })
      .toBe(202)
    expect(await harness.sql(`select id from jobs where idempotency_key = 'frozen'`)).toHaveLength(1)
  })

  it('away at the start: the API listens, and the key works once it is there', async () => {
    await harness.postgres.kill()
    const key = 'another-key-0123456789'
    const other = await within(10_000, startOn(harness.databaseUrl, { env: { ASKONCE_BOOTSTRAP_KEY: key } }))
    expectRetryLater(await callApi(other.api.address, 'GET', '/v1/jobs', { key }), 'unavailable')
    await harness.postgres.restart()
    const status = async () => (await callApi(other.api.address, 'GET', '/v1/jobs', { key })).status
    await expect.poll(status, { timeout: 20_000 }).toBe(200)
    await other.api.close()
  })

  it('closes in bounded time while Postgres is frozen', async () => {
    const other = await startOn(harness.databaseUrl)
    harness.postgres.pause()
    const hanging = callApi(other.api.address, 'POST', '/v1/jobs', {
      body: chat(),
      headers: { 'idempotency-key': 'x' },
    })
    hanging.catch(() => undefined)
    await expect(within(25_000, other.api.close())).resolves.toBeUndefined()
    harness.postgres.resume()
  })
})

describe('Redis away', () => {
  it('costs the request nothing: accepted, readable, logged once', async () => {
    const harness = await startHarness({ redisUrl: 'redis://127.0.0.1:1' })
    try {
      const replies = await Promise.all([1, 2, 3].map((n) => harness.submit(`k${n}`, chat())))
      expect(replies.map(({ status }) => status)).toEqual([202, 202, 202])
      expect((await harness.submit('k1', chat())).json.state).toBe('queued')
      await harness.submit('k4', chat())
      const told = (): number => harness.lines.filter(({ event }) => event === 'queue.unavailable').length
      await expect.poll(told, { timeout: 20_000 }).toBe(1)
      await harness.submit('k5', chat())
      await harness.submit('k6', chat())
      expect(told()).toBe(1)
    } finally {
      await harness.stop()
    }
  })

  it('and one that takes connections and never answers: the reply does not wait for it', async () => {
    const sockets = new Set<Socket>()
    const silent = createServer((socket) => sockets.add(socket.on('error', () => undefined)))
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
    const { port } = silent.address() as AddressInfo
    const harness = await startHarness({ redisUrl: `redis://127.0.0.1:${port}` })
    try {
      for (const n of [1, 2, 3, 4, 5]) {
        expect((await within(3_000, harness.submit(`k${n}`, chat()))).status).toBe(202)
      }
    } finally {
      await harness.stop()
      for (const socket of sockets) socket.destroy()
      silent.close()
    }
  })
})

describe('overload', () => {
  it('refuses early what it cannot hold, and accepts nothing of it', async () => {
    const harness = await startHarness({ env: { ASKONCE_MAX_QUEUED_SUBMISSIONS: '20' } })
    try {
      // Known for ten seconds: the crowd below gets past the look for its key.
      await harness.submit('warm', chat())
      harness.postgres.pause()
      const crowd = await Promise.all(
        Array.from({ length: 300 }, (_, index) => harness.submit(`crowd-${index}`, chat())),
      )
      harness.postgres.resume()
      const refused = crowd.filter(({ json }) => json.code === 'overloaded')
      expect(refused.length).toBeGreaterThan(100)
      for (const reply of crowd) expectRetryLater(reply, reply.json.code)
      await expect.poll(async () => (await harness.submit('after', chat())).status, { timeout: 20_000 }).toBe(202)
      const keys = (await harness.sql('select idempotency_key from jobs')).map((row) => row.idempotency_key)
      expect(refused.length + keys.filter((key) => String(key).startsWith('crowd')).length).toBeLessThanOrEqual(300)
      const logged = harness.lines.filter(({ event }) => event === 'submission.overloaded')
      expect(logged.length).toBeGreaterThanOrEqual(1)
      expect(logged.length).toBeLessThan(10)
    } finally {
      harness.postgres.resume()
      await harness.stop()
    }
  })
})

describe('starting', () => {
  let harness: Harness
  beforeAll(async () => {
    harness = await startHarness()
  })
  afterAll(() => harness.stop())

  it('says which port is in use and what to set, and leaves nothing open', async () => {
    const other = createServer()
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve))
    const { port } = other.address() as AddressInfo
    await expect(startOn(harness.databaseUrl, { env: { PORT: String(port) } })).rejects.toThrow(
      `127.0.0.1:${port} is in use by another program; set PORT`,
    )
    other.close()
  })

  it('is reached at the address that it names, on every interface too', async () => {
    const other = await startOn(harness.databaseUrl, { env: { HOST: '0.0.0.0' } })
    expect(other.api.address).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/)
    expect((await callApi(other.api.address, 'GET', '/v1/jobs', { key: bootstrapKey })).status).toBe(200)
    await other.api.close()
  })
})
