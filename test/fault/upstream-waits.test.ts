import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { apiKey, call, chat, startSystem, submit, until, type System } from './system.ts'

const page = '<html><body><h1>502 Bad Gateway</h1><hr>nginx</body></html>'
const limited = { error: { message: 'Rate limit reached', type: 'requests', code: 'rate_limit_exceeded' } }

// DESIGN.md §4: a refusal is waited for and never met in a tight loop, a proxy's bad seconds do not hold every job, and what one model
// is refused stops no other.
// Not covered: how long a real provider wants us to wait when it does not say, and upstreams that are slow and refuse nothing.
describe('upstreams that refuse for a while (redis form)', { timeout: 120_000 }, () => {
  let system: System
  let address: string
  beforeAll(async () => {
    system = await startSystem('redis')
    address = (await system.api()).address
    await Promise.all([system.started('worker'), system.started('janitor')])
  })
  afterEach(async () => {
    await system.upstream.script([])
    // What still waits for a test's model would call in the next one.
    await system.sql(`delete from jobs where state = 'queued'`)
    await system.sql('delete from lanes')
  })
  afterAll(() => system.stop())

  const jobOf = (key: string, model: string) => {
    const { operation, request } = chat(key)
    return { key, operation, request: { ...request, model } }
  }
  const submitMany = async (prefix: string, model: string, count: number): Promise<void> => {
    const jobs = Array.from({ length: count }, (_, index) => jobOf(`${prefix}-${index}`, model))
    expect((await call(address, 'POST', '/v1/jobs/bulk', { body: { jobs } })).status).toBe(200)
  }
  const submitOne = ({ key, ...body }: ReturnType<typeof jobOf>) => submit(address, key, body, 20)
  /** Requests that reached the upstream, refused ones included. */
  const arrivals = async (): Promise<number> =>
    ((await (await fetch(`${system.upstream.url}/__calls`)).json()) as { arrivals: number }).arrivals
  const refusalsInARow = async (model: string): Promise<number> =>
    (await system.sql<{ failures: number }>('select failures from lanes where model = $1', [model]))[0]?.failures ?? 0
  const states = async (prefix: string): Promise<Record<string, number>> => {
    const rows = await system.sql<{ state: string; count: number }>(
      `select state, count(*)::int as count from jobs where idempotency_key like $1 group by state`,
      [`${prefix}-%`],
    )
    return Object.fromEntries(rows.map(({ state, count }) => [state, count]))
  }

  const ledgerRows = async (prefix: string): Promise<number> =>
    (await system.sql(`select 1 from attempts where idempotency_key like $1`, [`${prefix}-%`])).length

  test('30 jobs whose model answers 429 with a wait of zero make few calls, and run once it lets them', async () => {
    const before = await arrivals()
    await system.upstream.script([
      {
        kind: 'refuse',
        status: 429,
        body: limited,
        headers: { 'retry-after': '0' },
        match: { model: 'gpt-limited' },
        times: 100_000,
      },
    ])
    await submitMany('zero', 'gpt-limited', 30)
    await until(
      () => refusalsInARow('gpt-limited'),
      (count) => count >= 4,
      60_000,
    )
    // The first call of each, which were under way together, and then one at a time after waits that double.
    expect((await arrivals()) - before).toBeLessThanOrEqual(30 + 15)
    expect((await submitOne(jobOf('zero-other-model', 'gpt-other'))).body.state).toBe('succeeded')

    await system.upstream.script([])
    const resumed = await call(address, 'POST', '/v1/lanes/openai/resume', { body: { model: 'gpt-limited' } })
    expect(resumed.status).toBe(200)
    await until(
      () => states('zero'),
      ({ succeeded }) => succeeded === 31,
      30_000,
    )
    expect(await system.sql(`select distinct tries, paid from jobs where idempotency_key like 'zero-%'`)).toEqual([
      { tries: 1, paid: 1 },
    ])
  })

  test('a wait of a day for one model is an hour for that model, and nothing for the others', async () => {
    await system.upstream.script([
      { kind: 'refuse', status: 429, body: limited, headers: { 'retry-after': '86000' }, match: { model: 'gpt-day' } },
    ])
    await submitMany('day', 'gpt-day', 1)
    await until(
      () => refusalsInARow('gpt-day'),
      (count) => count === 1,
      10_000,
    )
    const [row] = await system.sql<{ seconds: number }>(
      `select extract(epoch from until - now())::float8 as seconds from lanes where model = 'gpt-day'`,
    )
    expect(row?.seconds).toBeGreaterThan(3_500)
    expect(row?.seconds).toBeLessThanOrEqual(3_600)
    expect((await submitOne(jobOf('day-other-model', 'gpt-other'))).body.state).toBe('succeeded')
    const { key: again, ...sameModel } = jobOf('day-again', 'gpt-day')
    const waiting = await submit(address, again, sameModel)
    expect(waiting.body).toMatchObject({
      state: 'queued',
      waiting_for: { kind: 'lane', name: 'openai', reason: expect.stringContaining('gpt-day') as string },
    })
  })

  test('seconds of a proxy’s 502 page open the breaker, make few calls, hold few jobs, and the rest is answered', async () => {
    const before = await system.upstream.calls()
    await system.upstream.script([{ kind: 'refuse', status: 502, body: page, billed: true, times: 100_000 }])
    await submitMany('proxy', 'gpt-test', 40)
    // Open since the fifth; two probes have met the same.
    await until(
      () => refusalsInARow(''),
      (count) => count >= 7,
      60_000,
    )
    const [row] = await system.sql(`select state from lanes where name = 'openai' and model = ''`)
    expect(row).toEqual({ state: 'breaker' })
    expect((await system.upstream.calls()) - before).toBeLessThanOrEqual(40 + 4)

    await system.upstream.script([])
    const ended = await until(
      () => states('proxy'),
      ({ queued = 0, running = 0 }) => queued + running === 0,
      60_000,
    )
    expect(ended['uncertain'] ?? 0).toBeLessThanOrEqual(4)
    expect(ended['succeeded']).toBeGreaterThanOrEqual(36)
    expect(await ledgerRows('proxy')).toBe((await system.upstream.calls()) - before)
  })

  test.each([
    ['a page', 413, '<html>413 Request Entity Too Large</html>', 'text/html'],
    ['another shape', 422, { detail: [{ loc: ['body', 'n'], msg: 'no' }] }, 'application/json'],
    ['100 kB', 400, { error: { message: 'x'.repeat(100_000), type: 'invalid_request_error' } }, 'application/json'],
    ['nothing', 405, '', 'text/html'],
  ])('a refusal of %s goes to the caller of an SDK route as it is', async (name, status, body, type) => {
    for (const stream of [false, true]) {
      const key = `as-it-is-${name}-${stream}`.replaceAll(' ', '-')
      await system.upstream.script([{ kind: 'refuse', status, body, match: { marker: key } }])
      const { request } = jobOf(key, 'gpt-test')
      const response = await fetch(`${address}/openai/v1/chat/completions`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${apiKey}`,
          'content-type': 'application/json',
          'idempotency-key': key,
        },
        body: JSON.stringify({ ...request, stream }),
      })
      expect(response.status).toBe(status)
      expect(response.headers.get('content-type')).toContain(type)
      expect(response.headers.get('x-should-retry')).toBe('false')
      expect(await response.text()).toBe(typeof body === 'string' ? body : JSON.stringify(body))
    }
  })

  test('a stream of a server that refuses stream_options is answered, and the refused call is neither a try nor paid', async () => {
    await system.upstream.script([
      {
        kind: 'refuse',
        status: 400,
        body: { error: { message: 'Unrecognized request argument supplied: stream_options' } },
        match: { marker: 'no-usage' },
      },
    ])
    const response = await fetch(`${address}/openai/v1/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json', 'idempotency-key': 'no-usage' },
      body: JSON.stringify({ ...jobOf('no-usage', 'gpt-test').request, stream: true }),
    })
    expect(response.status).toBe(200)
    expect(await response.text()).toContain('data: [DONE]')
    expect(await system.sql(`select state, tries, paid from jobs where idempotency_key = 'no-usage'`)).toEqual([
      { state: 'succeeded', tries: 1, paid: 1 },
    ])
  })
})
