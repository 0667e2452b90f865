import { cancelJobs, interruptedChannel, openDatabase } from '@askonce/store'
import type { Child } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  apiKey,
  call,
  chat,
  formOfRun,
  ledger,
  startSystem,
  submit,
  until,
  untilState,
  type Form,
  type System,
} from './system.ts'

/** As the sweep and retries see it; longer than anything here. */
const uncertainTtlSeconds = 2_592_000
/** What a provider that hangs up late could still bill: the promise. */
const promisedMs = 1_000

/**
 * DESIGN.md §1.3, and §2's arrow `cancel`: a call that is under way is aborted wherever it runs, what it may have cost is in the ledger,
 * and of a cancellation and a finish exactly one wins.
 * Not covered: a provider that goes on working, and bills, after the connection is closed. That is why such an attempt is `maybe`.
 */
describe.each<Form>([formOfRun])('cancel anywhere (%s form)', (form) => {
  let system: System
  let address: string
  let workers: Child[]
  beforeAll(async () => {
    system = await startSystem(form)
    address = (await system.api()).address
    await system.started('janitor')
    workers = await startWorkers()
  })
  afterAll(() => system.stop())

  const startWorkers = (): Promise<Child[]> =>
    Promise.all([1, 2].map(() => system.started('worker', { ASKONCE_CONCURRENCY: '6' })))
  const stopWorkers = async (): Promise<void> => {
    for (const worker of workers) worker.signal('SIGTERM')
    for (const worker of workers) expect(await worker.exited).toMatchObject({ code: 0 })
    workers = []
  }
  const inFlight = async (): Promise<number> =>
    ((await (await fetch(`${system.upstream.url}/__calls`)).json()) as { in_flight: number }).in_flight
  /** Resolves when every worker has beaten twice: what followed the first of the two, a reading of the rows, is done. */
  const untilBeatenTwice = async (): Promise<void> => {
    const read = async (): Promise<Map<string, number>> => {
      const rows = await system.sql<{ id: string; beat: string }>('select id, beat from workers where not dead')
      return new Map(rows.map(({ id, beat }) => [id, Number(beat)]))
    }
    const seen = await read()
    await until(read, (now) => [...seen].every(([id, beat]) => (now.get(id) ?? 0) >= beat + 2), 10_000)
  }
  /** Resolves at the moment at which the provider is left with so many calls. */
  const untilInFlight = async (count: number): Promise<number> => {
    const deadline = Date.now() + 30_000
    while ((await inFlight()) !== count) {
      if (Date.now() > deadline) throw new Error(`${await inFlight()} calls in flight, not ${count}`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    return Date.now()
  }
  /** Submits jobs whose calls hang, and waits until the provider has all of them, from both workers. */
  const hanging = async (name: string, count: number): Promise<string[]> => {
    const names = Array.from({ length: count }, (_, index) => `${name}-${index}`)
    await system.upstream.script(names.map((marker) => ({ kind: 'hang', match: { marker } })))
    const replies = await Promise.all(names.map((key) => submit(address, key, chat(key))))
    await untilInFlight(count)
    const [row] = await system.sql<{ workers: number }>(
      'select count(distinct worker_id)::int as workers from attempts where finished_at is null',
    )
    expect(row?.workers).toBe(Math.min(2, count))
    return replies.map(({ body }) => body.id)
  }
  const cancel = (id: string): ReturnType<typeof call> => call(address, 'POST', `/v1/jobs/${id}/cancel`, { body: {} })
  const cancelMany = (ids: readonly string[]): ReturnType<typeof call> =>
    call(address, 'POST', '/v1/jobs/bulk/cancel', { body: { ids } })
  /** What the ledger and the job say once the worker has ended the attempt. */
  const expectAborted = async (id: string): Promise<void> => {
    const rows = await until(
      () => ledger(system, id),
      ([first]) => first !== undefined && first.outcome !== null,
      10_000,
    )
    expect(rows).toEqual([{ attempt: 1, outcome: 'cancelled', billing: 'maybe' }])
    const { body } = await call(address, 'GET', `/v1/jobs/${id}`)
    expect(body).toMatchObject({ state: 'cancelled', usage: { paid_attempts: 0, maybe_paid_attempts: 1 } })
  }

  test('by API: the provider sees the connection closed within a second, singly and in bulk, on both workers', async () => {
    const ids = await hanging('api', 12)
    const single = ids.slice(0, 10)
    let allMs = 0
    for (const [index, id] of single.entries()) {
      const reply = await cancel(id)
      const cancelledAt = Date.now()
      expect([reply.status, reply.body.state]).toEqual([200, 'cancelled'])
      const tookMs = (await untilInFlight(11 - index)) - cancelledAt
      expect(tookMs).toBeLessThan(promisedMs)
      allMs += tookMs
    }
    // Workers are told at once. By beats alone each would take a quarter of a second on average.
    expect(allMs).toBeLessThan(1_500)
    const rest = ids.slice(10)
    expect((await cancelMany(rest)).status).toBe(200)
    const cancelledAt = Date.now()
    expect((await untilInFlight(0)) - cancelledAt).toBeLessThan(promisedMs)
    for (const id of ids) await expectAborted(id)
  })

  test('by CLI: within a second of the commit, with a reason that is kept', async () => {
    const ids = await hanging('cli', 12)
    const args = [...ids, '--reason', 'wrong prompt', '--json']
    const cli = system.spawn('cancel', { ASKONCE_URL: address, ASKONCE_API_KEY: apiKey }, args)
    const [closedAt, ended] = await Promise.all([untilInFlight(0), cli.exited])
    expect(ended).toMatchObject({ code: 0 })
    const rows = await system.sql<{ at: Date; reason: string; name: string; took: number }>(
      `select d.at, d.reason, d.api_key_name as name, $2::float8 - extract(epoch from j.completed_at)::float8 * 1000 as took
       from decisions d join jobs j on j.id = d.job_id where d.job_id = any($1::uuid[])`,
      [ids, closedAt],
    )
    expect(rows).toHaveLength(12)
    for (const { reason, name, took } of rows) {
      expect([reason, name]).toEqual(['wrong prompt', 'bootstrap'])
      expect(took).toBeLessThan(promisedMs)
    }
    for (const id of ids) await expectAborted(id)
  })

  test('without the hint, as when a notification is lost: by the next beat', async () => {
    const ids = await hanging('beat', 12)
    const database = openDatabase({ url: system.database.url, name: 'test', poolSize: 1 })
    const by = { id: '00000000-0000-4000-8000-000000000001', name: 'test' }
    const request = { tenantId: 'default', ids, by, reason: null, generation: null }
    await cancelJobs(database.db, request, uncertainTtlSeconds)
    const cancelledAt = Date.now()
    expect((await untilInFlight(0)) - cancelledAt).toBeLessThan(promisedMs)
    await database.close()
    for (const id of ids) await expectAborted(id)
  })

  test('a hint that comes late, when the job was made to run again, does not abort the call of the new run', async () => {
    const [id = ''] = await hanging('again', 1)
    await cancel(id)
    await untilInFlight(0)
    await system.upstream.script([{ kind: 'hang', match: { marker: 'again-0' } }])
    const retry = { body: { accept_duplicate_charge: true } }
    expect((await call(address, 'POST', `/v1/jobs/${id}/retry`, retry)).status).toBe(202)
    await untilInFlight(1)
    await system.sql('select pg_notify($1, $2)', [interruptedChannel, id])
    await untilBeatenTwice()
    expect(await inFlight()).toBe(1)
    const first = { attempt: 1, outcome: 'cancelled', billing: 'maybe' }
    expect(await ledger(system, id)).toEqual([first, { attempt: 2, outcome: null, billing: null }])
    await cancel(id)
    await untilInFlight(0)
    await until(
      () => ledger(system, id),
      (rows) => rows[1]?.outcome === 'cancelled',
      10_000,
    )
  })

  test('racing the answers: exactly one of both wins, and everybody is told which', async () => {
    const count = 120
    const keys = Array.from({ length: count }, (_, index) => `race-${index}`)
    await system.upstream.script(keys.map((marker) => ({ kind: 'answer', delayMs: 150, match: { marker } })))
    let seed = 4_711
    const random = (): number => {
      seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31
      return seed / 2 ** 31
    }
    const waits = keys.map(() => 100 + random() * 200)
    const race = async (key: string, index: number): Promise<{ id: string; status: number; told: string }> => {
      const { id } = (await submit(address, key, chat(key))).body
      await until(
        async () => (await system.sql<{ state: string }>('select state from jobs where id = $1', [id]))[0]?.state,
        (state) => state !== 'queued',
        30_000,
      )
      await new Promise((resolve) => setTimeout(resolve, waits[index]))
      const { status, body } = await cancel(id)
      return { id, status, told: body.state }
    }
    const results: Awaited<ReturnType<typeof race>>[] = []
    // As many as there are calls at once: a queued job would not race.
    for (let start = 0; start < count; start += 12) {
      results.push(...(await Promise.all(keys.slice(start, start + 12).map((key, at) => race(key, start + at)))))
    }
    await until(
      () => system.sql('select 1 from attempts where finished_at is null'),
      (open) => open.length === 0,
      30_000,
    )
    const calls = await system.upstream.callsBy()
    const ends = {
      succeeded: ['answered billed'],
      cancelled: ['cancelled maybe', 'surplus billed', 'unsent none'],
    }
    for (const [index, { id, status, told }] of results.entries()) {
      const { body } = await call(address, 'GET', `/v1/jobs/${id}`)
      const winner = status === 200 ? 'cancelled' : 'succeeded'
      expect([status, told, body.state]).toEqual([winner === 'cancelled' ? 200 : 409, winner, winner])
      expect(body.response === null).toBe(winner === 'cancelled')
      const rows = await ledger(system, id)
      expect(ends[winner]).toContain(rows.map(({ outcome, billing }) => `${outcome} ${billing}`).join())
      expect(calls[`race-${index}`] ?? 0).toBeLessThanOrEqual(1)
    }
    // Otherwise it was no race.
    const won = results.filter(({ status }) => status === 200).length
    expect(won).toBeGreaterThan(count / 20)
    expect(won).toBeLessThan(count - count / 20)
  })

  test('an attempt that was not sent yet: `none`, nothing paid, and a retry needs no consent', async () => {
    await stopWorkers()
    const held = await system.started('worker', { ASKONCE_TEST_PAUSE: 'worker.claimed' })
    const { id } = (await submit(address, 'unsent', chat('unsent'))).body
    await held.waitForLine(/paused at worker\.claimed/, 30_000)
    expect(await cancel(id)).toMatchObject({ status: 200, body: { state: 'cancelled' } })
    // Told while it still stands there.
    await untilBeatenTwice()
    held.signal('SIGUSR2')
    await until(
      () => ledger(system, id),
      ([first]) => first !== undefined && first.outcome !== null,
      10_000,
    )
    expect(await ledger(system, id)).toEqual([{ attempt: 1, outcome: 'unsent', billing: 'none' }])
    expect((await system.upstream.callsBy())['unsent'] ?? 0).toBe(0)
    await held.kill()

    workers = await startWorkers()
    expect((await call(address, 'POST', `/v1/jobs/${id}/retry`, { body: {} })).status).toBe(202)
    await untilState(address, id, 'succeeded', 30_000)
    expect((await system.upstream.callsBy())['unsent']).toBe(1)
  })

  test('an answer in hand when the job is cancelled: it stays cancelled, and the ledger has the answer as surplus', async () => {
    await stopWorkers()
    const held = await system.started('worker', { ASKONCE_TEST_PAUSE: 'worker.answered' })
    const { id } = (await submit(address, 'surplus', chat('surplus'))).body
    await held.waitForLine(/paused at worker\.answered/, 30_000)
    expect(await cancel(id)).toMatchObject({ status: 200, body: { state: 'cancelled' } })
    held.signal('SIGUSR2')
    const ended = await held.waitForLine(/"event":"attempt\.ended"/, 30_000)
    expect(JSON.parse(ended.input)).toMatchObject({ job_id: id, outcome: 'surplus', state: 'cancelled' })
    expect(await ledger(system, id)).toEqual([{ attempt: 1, outcome: 'surplus', billing: 'billed' }])
    expect((await call(address, 'GET', `/v1/jobs/${id}`)).body).toMatchObject({
      state: 'cancelled',
      response: null,
      usage: { paid_attempts: 1, maybe_paid_attempts: 0 },
    })
    await held.kill()
  })
})
