import { openDatabase, sweepExpired, type Database } from '@askonce/store'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { apiKey, call, chat, run, startSystem, submit, until, untilState, type System } from './system.ts'

// DESIGN.md §1.2 and §2: a stored answer is there until it expires; the sweep only removes what no request can see any more.
// Not covered: a clock of the database that jumps ahead, by which answers expire early. Files, batches and the ledger have sweeps of their
// own, in test/integration/store.
describe('FAULTS 7, sweep races (redis form)', () => {
  let system: System
  let address: string
  let database: Database
  beforeAll(async () => {
    system = await startSystem('redis')
    database = openDatabase({ url: system.database.url, name: 'sweeper', poolSize: 2 })
    address = (await system.api()).address
    await Promise.all([system.started('worker'), system.started('janitor', { ASKONCE_SWEEP_INTERVAL_SECONDS: '3600' })])
  })
  afterAll(async () => {
    await database.close()
    await system.stop()
  })
  const sweep = (): Promise<unknown> => sweepExpired(database.db, 1_000)

  const expire = (key: string): Promise<unknown> =>
    system.sql(`update jobs set expires_at = now() - interval '1 second' where idempotency_key like $1`, [key])

  test('a job that runs longer than its whole ttl is not swept, and its answer is kept for the ttl', async () => {
    await system.upstream.script([{ kind: 'answer', delayMs: 4_000, match: { marker: 'long' } }])
    const { body } = await submit(address, 'long', { ...chat('long'), ttl_seconds: 1 })
    await until(
      async () => (await system.upstream.callsBy())['long'] ?? 0,
      (calls) => calls === 1,
      10_000,
    )
    // Older than the whole ttl, by the clock of the database.
    await system.sql(
      `update jobs set created_at = now() - interval '1 hour', started_at = now() - interval '1 hour' where id = $1`,
      [body.id],
    )
    await sweep()
    const running = await call(address, 'GET', `/v1/jobs/${body.id}`)
    expect(running.body.state).toBe('running')
    const done = await call(address, 'GET', `/v1/jobs/${body.id}`, { wait: 30 })
    expect(done.body.state).toBe('succeeded')
    expect((await system.upstream.callsBy())['long']).toBe(1)
  })

  test('an answer that is read while it is swept is whole or absent, never torn', async () => {
    const size = 4_000_000
    await system.upstream.script([{ kind: 'answer', answerBytes: size, match: { marker: 'big' } }])
    const { body } = await submit(address, 'big', chat('big'), 30)
    expect(body.state).toBe('succeeded')
    const read = async (): Promise<[number, number]> => {
      const response = await fetch(`${address}/v1/jobs/${body.id}/response`, {
        headers: { authorization: `Bearer ${apiKey}` },
      })
      return [response.status, (await response.arrayBuffer()).byteLength]
    }
    const whole = (await read())[1]
    expect(whole).toBeGreaterThan(size)
    const reads = Array.from({ length: 30 }, async (_, index) => {
      if (index === 10) await expire('big')
      if (index === 12) await sweep()
      return read()
    })
    const seen = await Promise.all(reads)
    const torn = seen.filter(([status, bytes]) => !(status === 200 ? bytes === whole : status === 404))
    expect(torn).toEqual([])
    expect(seen.filter(([status]) => status === 200).length).toBeGreaterThan(0)
    expect((await read())[0]).toBe(404)
  })

  test('an expired key behaves as new before, during and after the sweep: a new id each time, one call each', async () => {
    const ids = new Set<string>()
    for (let round = 1; round <= 10; round += 1) {
      const [reply] = await Promise.all([submit(address, 'again', chat('again'), 30), sweep()])
      expect([reply.status, reply.headers.get('idempotent-replayed')]).toEqual([200, 'false'])
      ids.add(reply.body.id)
      await expire('again')
      expect((await call(address, 'GET', `/v1/jobs/${reply.body.id}`)).status).toBe(404)
      expect((await system.upstream.callsBy())['again']).toBe(round)
    }
    expect(ids.size).toBe(10)
  })

  test('two sweepers and one killed in the middle: every expired row goes once, no live row goes', async () => {
    const fill = `
      insert into jobs (id, tenant_id, idempotency_key, fingerprint, operation, model, lane, priority, timeout_ms,
        ttl_seconds, deadline_seconds, state, on_uncertain, max_attempts, max_paid_attempts, run_at, deadline_at,
        response_status, answer_attempt, attempt, completed_at, expires_at)
      select gen_random_uuid(), 'default', $1 || n, sha256('x'), 'chat.completions', 'm', 'openai', 5, 1000, 60, 60,
        'succeeded', 'rerun', 5, 2, now(), now(), 200, 1, 1, now(), now() + $2::interval
      from generate_series(1, $3::int) n`
    await system.sql(fill, ['old-', '-1 second', 60_000])
    await system.sql(fill, ['live-', '1 hour', 1_000])
    const count = async (like: string): Promise<number> => {
      const rows = await system.sql<{ count: string }>('select count(*) from jobs where idempotency_key like $1', [
        like,
      ])
      return Number(rows[0]?.count)
    }
    const doomed = system.spawn('sweep')
    await until(
      () => count('old-%'),
      (left) => left < 60_000,
      30_000,
    )
    await doomed.kill()
    expect(await count('old-%')).toBeGreaterThan(0)
    const both = await Promise.all([run(system, ['sweep', '--json']), run(system, ['sweep', '--json'])])
    expect(both.map(({ code }) => code)).toEqual([0, 0])
    expect(await count('old-%')).toBe(0)
    expect(await count('live-%')).toBe(1_000)
  }, 120_000)

  test('a failed key that is submitted while it is swept ends as one job', async () => {
    await system.upstream.script([
      {
        kind: 'refuse',
        status: 400,
        body: { error: { message: 'no', type: 'invalid_request_error' } },
        match: { marker: 'failed' },
      },
    ])
    const first = await submit(address, 'failed', chat('failed'), 30)
    expect([first.status, first.body.state]).toEqual([200, 'failed'])
    await expire('failed')
    const [reply] = await Promise.all([submit(address, 'failed', chat('failed')), sweep()])
    expect([reply.status, reply.headers.get('idempotent-replayed')]).toEqual([202, 'false'])
    await untilState(address, reply.body.id, 'succeeded', 30_000)
    expect(await system.sql(`select id from jobs where idempotency_key = 'failed'`)).toEqual([{ id: reply.body.id }])
  })

  test('after all of it no call is without a row in the ledger', async () => {
    const rows = await system.sql<{ key: string; attempts: number }>(
      `select idempotency_key as key, count(*)::int as attempts from attempts where outcome = 'answered' group by 1`,
    )
    const calls = await system.upstream.callsBy()
    expect(Object.keys(calls).length).toBeGreaterThan(3)
    expect(Object.fromEntries(rows.map(({ key, attempts }) => [key, attempts]))).toEqual(calls)
  })
})
