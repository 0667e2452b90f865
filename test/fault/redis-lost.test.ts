import { startTestRedis } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { call, chat, startSystem, submit, until, type System } from './system.ts'

const jobs = 10_000

/** Submits jobs by the thousand and looks what became of them. */
function jobsOf(of: () => { system: System; address: string }) {
  const submitAll = async (prefix: string, count: number): Promise<void> => {
    for (let from = 0; from < count; from += 2_000) {
      const list = Array.from({ length: Math.min(2_000, count - from) }, (_, index) => ({
        key: `${prefix}-${from + index}`,
        ...chat(`${prefix}-${from + index}`),
      }))
      const reply = await call(of().address, 'POST', '/v1/jobs/bulk', { body: { jobs: list } })
      expect(reply.status).toBe(200)
    }
  }
  const finished = async (prefix: string): Promise<number> => {
    const [row] = await of().system.sql<{ count: string }>(
      `select count(*) from jobs where idempotency_key like $1 and state = 'succeeded'`,
      [`${prefix}-%`],
    )
    return Number(row?.count)
  }
  const expectOneCallEach = async (prefix: string, count: number): Promise<void> => {
    const calls = Object.entries(await of().system.upstream.callsBy()).filter(([marker]) =>
      marker.startsWith(`${prefix}-`),
    )
    expect(calls.filter(([, made]) => made !== 1)).toEqual([])
    expect(calls).toHaveLength(count)
  }
  return { submitAll, finished, expectOneCallEach }
}

// DESIGN.md §1.1 and §1.5: Postgres is the truth, Redis is a wake-up, and may be flushed at any moment.
// Not covered: the wait. While Redis is away, a job that comes alone is called by a worker's next look, up to a second later. Clusters and sentinels are in redis-forms.test.ts.
describe('FAULTS 9, Redis lost with 10,000 jobs queued and some running', () => {
  let system: System
  let address: string
  beforeAll(async () => {
    system = await startSystem('redis')
    address = (await system.api()).address
    await system.started('janitor')
  })
  afterAll(() => system.stop())

  const { submitAll, finished, expectOneCallEach } = jobsOf(() => ({ system, address }))

  test('FLUSHALL, then away until all is done, then back without data: every job ends, none runs twice, stored answers are served meanwhile', async () => {
    await submitAll('lost', jobs)
    // The first calls are under way while Redis is flushed.
    await system.upstream.script([{ kind: 'answer', delayMs: 15_000, times: 50 }])
    const worker = await system.started('worker', { ASKONCE_CONCURRENCY: '100' })
    await until(
      () => finished('lost'),
      (count) => count > 300,
      30_000,
    )
    await system.redis?.flushAll()
    const running = await system.sql('select 1 from attempts where finished_at is null')
    expect(running.length).toBeGreaterThanOrEqual(50)
    await until(
      () => finished('lost'),
      (count) => count > 3_000,
      60_000,
    )

    await system.redis?.kill()
    const [stored] = await system.sql<{ id: string; key: string }>(
      `select id, idempotency_key as key from jobs where state = 'succeeded' limit 1`,
    )
    const replay = await submit(address, stored?.key as string, chat(stored?.key as string))
    expect([replay.status, replay.headers.get('idempotent-replayed')]).toEqual([200, 'true'])
    expect((await call(address, 'GET', `/v1/jobs/${stored?.id}`)).status).toBe(200)
    const accepted = await submit(address, 'lost-during', chat('lost-during'))
    expect(accepted.status).toBe(202)
    expect(await finished('lost')).toBeLessThan(jobs)
    await until(
      () => finished('lost'),
      (count) => count === jobs + 1,
      130_000,
    )
    await system.redis?.restart()
    expect((await submit(address, 'after', chat('after'), 30)).body.state).toBe('succeeded')
    await expectOneCallEach('lost', jobs + 1)
    expect(await system.sql(`select 1 from attempts where billing <> 'billed'`)).toEqual([])
    worker.signal('SIGTERM')
    expect(await worker.exited).toMatchObject({ code: 0 })
  }, 240_000)

  test('out of memory with 1,000 jobs queued and some running: submissions are accepted, answers served, and all runs once there is room', async () => {
    await submitAll('full', 1_000)
    await system.upstream.script([{ kind: 'answer', delayMs: 100, times: 1_001 }])
    await system.started('worker', { ASKONCE_CONCURRENCY: '20' })
    await until(
      () => finished('full'),
      (count) => count > 50,
      30_000,
    )
    await system.redis?.command('CONFIG SET maxmemory 1')
    expect(await finished('full')).toBeLessThan(1_000)
    const accepted = await submit(address, 'full-during', chat('full-during'))
    expect(accepted.status).toBe(202)
    const [stored] = await system.sql<{ key: string }>(
      `select idempotency_key as key from jobs where idempotency_key like 'full-%' and state = 'succeeded' limit 1`,
    )
    const replay = await submit(address, stored?.key as string, chat(stored?.key as string))
    expect([replay.status, replay.headers.get('idempotent-replayed')]).toEqual([200, 'true'])
    await system.redis?.command('CONFIG SET maxmemory 0')
    await until(
      () => finished('full'),
      (count) => count === 1_001,
      60_000,
    )
    await expectOneCallEach('full', 1_001)
  }, 180_000)
})

describe('FAULTS 9, one server of Redis', () => {
  let system: System
  let address: string
  beforeAll(async () => {
    system = await startSystem('redis', {}, () => startTestRedis())
  })
  afterAll(() => system.stop())
  const { submitAll, finished, expectOneCallEach } = jobsOf(() => ({ system, address }))

  test('that is not there at boot is found when it comes', async () => {
    await system.redis?.kill()
    address = (await system.api()).address
    await Promise.all([system.started('worker'), system.started('janitor')])
    const accepted = await submit(address, 'boot', chat('boot'))
    expect(accepted.status).toBe(202)
    await system.redis?.restart()
    expect((await call(address, 'GET', `/v1/jobs/${accepted.body.id}`, { wait: 30 })).body.state).toBe('succeeded')
  })

  test('that turns into a read-only replica of an empty one, and is promoted again', async () => {
    const other = await startTestRedis({})
    const command = async (line: string): Promise<string> => (await system.redis?.command(line))?.[0] ?? ''
    await system.upstream.script([{ kind: 'answer', delayMs: 300, times: 501 }])
    await submitAll('failover', 500)
    await until(
      () => finished('failover'),
      (count) => count > 50,
      60_000,
    )
    await command(`REPLICAOF 127.0.0.1 ${other.port}`)
    await until(
      () => command('INFO replication'),
      (info) => info.includes('master_link_status:up'),
      30_000,
    )
    const accepted = await submit(address, 'failover-during', chat('failover-during'))
    expect(accepted.status).toBe(202)
    await command('REPLICAOF NO ONE')
    await until(
      () => finished('failover'),
      (count) => count === 501,
      60_000,
    )
    await expectOneCallEach('failover', 501)
    await other.stop()
  }, 180_000)
})
