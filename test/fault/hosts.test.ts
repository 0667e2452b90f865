import { startTcpProxy, startTestRedis, type Child, type TcpProxy, type TestRedis } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { call, chat, ledger, startSystem, submit, until, untilState, type System } from './system.ts'

const leaseSeconds = 3

interface Host {
  address: string
  worker: Child
  postgres: TcpProxy
  redis: TcpProxy
  /** Neither server hears of this host any more, nor it of them; no connection is closed. */
  cutOff(): void
  comeBack(): void
}

/**
 * DESIGN.md §1.3 and §8, where processes share no machine: a host that is cut off costs what its policies allow, and no more.
 * Two hosts, each with an API, a worker and a janitor on an address and with a data directory of its own, that share nothing but Postgres
 * and Redis and reach those over links of their own.
 * Not covered: clocks that differ (clocks.test.ts has them), and hosts that see different servers.
 */
describe('two hosts', () => {
  let system: System
  let redis: TestRedis
  let a: Host
  let b: Host
  beforeAll(async () => {
    const starting = startTestRedis()
    system = await startSystem('redis', {}, () => starting)
    redis = await starting
    // On Linux all of 127.0.0.0/8 is this machine.
    ;[a, b] = await Promise.all([startHost('127.0.0.1'), startHost(process.platform === 'linux' ? '127.0.0.2' : '::1')])
  })
  afterAll(async () => {
    const proxies = [a, b].flatMap(({ postgres, redis: link }) => [postgres, link])
    await Promise.all(proxies.map((proxy) => proxy.close()))
    await system.stop()
  })

  const startHost = async (host: string): Promise<Host> => {
    const links = await Promise.all([startTcpProxy(system.postgres.port), startTcpProxy(redis.port)])
    const [toPostgres, toRedis] = links
    const database = new URL(system.database.url)
    database.port = String(toPostgres.port)
    const env = {
      HOST: host,
      DATABASE_URL: database.href,
      REDIS_URL: `redis://127.0.0.1:${toRedis.port}`,
      ASKONCE_LEASE_SECONDS: String(leaseSeconds),
      ASKONCE_CONCURRENCY: '8',
    }
    const [{ address }, worker] = await Promise.all([
      system.api(env),
      system.started('worker', env),
      system.started('janitor', env),
    ])
    return {
      address,
      worker,
      postgres: toPostgres,
      redis: toRedis,
      cutOff: () => links.forEach((link) => link.hold()),
      comeBack() {
        for (const link of links) {
          link.accept()
          link.cutAll()
        }
      },
    }
  }
  /** Jobs whose last attempt was made by the worker of a host. */
  const madeBy = async ({ worker }: Host, prefix: string): Promise<string[]> => {
    const rows = await system.sql<{ id: string }>(
      `select j.id from jobs j join attempts t on t.job_id = j.id and t.attempt = j.attempt join workers w on w.id = t.worker_id
       where w.pid = $1 and j.idempotency_key like $2`,
      [worker.pid, `${prefix}-%`],
    )
    return rows.map(({ id }) => id)
  }
  const keys = (prefix: string, count: number): string[] =>
    Array.from({ length: count }, (_, index) => `${prefix}-${index}`)

  test('each has its address, and a wait on either is answered by whichever worker ends the job', async () => {
    expect(new URL(a.address).hostname).not.toBe(new URL(b.address).hostname)
    await system.upstream.script([{ kind: 'answer', delayMs: 200, times: 64 }])
    const waits = keys('wait', 64).map(async (key, index) => {
      const host = index % 2 === 0 ? a : b
      const { body } = await submit(host.address, key, chat(key), 30)
      return { host, id: body.id, state: body.state }
    })
    const answered = await Promise.all(waits)
    expect(answered.filter(({ state }) => state !== 'succeeded')).toEqual([])
    const byWorker = { a: await madeBy(a, 'wait'), b: await madeBy(b, 'wait') }
    const across = answered.filter(({ host, id }) => (host === a ? byWorker.b : byWorker.a).includes(id))
    expect(new Set(across.map(({ host }) => host.address)).size).toBe(2)
  })

  test('a cancellation through either ends the call that the other one makes', async () => {
    await system.upstream.script([{ kind: 'hang', times: 12 }])
    const replies = await Promise.all(keys('cancel', 12).map((key) => submit(a.address, key, chat(key))))
    for (const { body } of replies) await untilState(a.address, body.id, 'running', 10_000)
    const [byA, byB] = [await madeBy(a, 'cancel'), await madeBy(b, 'cancel')]
    expect([byA.length > 0, byB.length > 0]).toEqual([true, true])
    const cancel = async (host: Host, ids: readonly string[]): Promise<void> => {
      for (const id of ids) {
        expect((await call(host.address, 'POST', `/v1/jobs/${id}/cancel`, { body: {} })).body.state).toBe('cancelled')
      }
    }
    await Promise.all([cancel(a, byB), cancel(b, byA)])
    const inFlight = async (): Promise<number> =>
      ((await (await fetch(`${system.upstream.url}/__calls`)).json()) as { in_flight: number }).in_flight
    await until(inFlight, (count) => count === 0, 2_000)
    for (const id of [...byA, ...byB]) {
      await until(
        () => ledger(system, id),
        ([row]) => row?.outcome === 'cancelled',
        5_000,
      )
    }
  })

  test('one is cut off with calls under way and comes back: the other goes on alone, and no job is called more often than its policy allows', async () => {
    await system.upstream.script([{ kind: 'answer', delayMs: 1_500, times: 40 }])
    const names = keys('cut', 40)
    await Promise.all(names.map((key) => submit(b.address, key, chat(key))))
    await until(
      () => madeBy(b, 'cut'),
      (ids) => ids.length > 0,
      10_000,
    )
    b.cutOff()
    const underWay = await system.sql<{ id: string }>(
      `select job_id as id from attempts t join workers w on w.id = t.worker_id where finished_at is null and w.pid = $1`,
      [b.worker.pid],
    )
    const refused = submit(b.address, 'cut-refused', chat('cut-refused'))
    expect((await submit(a.address, 'cut-alone', chat('cut-alone'), 30)).body.state).toBe('succeeded')
    const open = async (): Promise<number> =>
      (await system.sql(`select 1 from jobs where idempotency_key like 'cut-%' and state <> 'succeeded'`)).length
    // The janitor of the other host takes the calls from the worker that it does not see any more, and they are made again.
    await until(open, (count) => count === 0, 30_000)
    expect((await refused).status).toBe(503)
    b.comeBack()
    await b.worker.waitForLine(/"event":"worker\.id_changed"/, 20_000)
    const ledgers = await Promise.all(underWay.map(({ id }) => ledger(system, id)))
    expect(ledgers.flat().filter(({ attempt }) => attempt > 2)).toEqual([])
    const calls = await system.upstream.callsBy()
    const ids = await system.sql<{ id: string; key: string }>(
      `select id, idempotency_key as key from jobs where idempotency_key like 'cut-%'`,
    )
    const twice = ids.filter(({ key }) => calls[key] !== 1)
    expect(twice.filter(({ key }) => calls[key] !== 2)).toEqual([])
    // Only what was under way on the host that was cut off.
    expect(twice.filter(({ id }) => !underWay.some((row) => row.id === id))).toEqual([])

    await system.upstream.script([{ kind: 'answer', delayMs: 200, times: 64 }])
    const after = await Promise.all(keys('after', 64).map((key) => submit(b.address, key, chat(key), 30)))
    expect(after.filter(({ body }) => body.state !== 'succeeded')).toEqual([])
    expect((await madeBy(b, 'after')).length).toBeGreaterThan(0)
  }, 90_000)
})
