import { setTimeout as sleep } from 'node:timers/promises'
import { startTcpProxy, type Child, type TcpProxy } from '@askonce/testkit'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { chat, formOfRun, ledger, startSystem, submit, until, untilState, type System } from './system.ts'

/** Long enough that a third and the whole of it cannot be taken for each other on a busy machine. */
const leaseMs = 12_000
const env = { ASKONCE_LEASE_SECONDS: String(leaseMs / 1000) }

// DESIGN.md §8: dead means seen dead. A killed worker leaves a sign, and a third of the lease is enough; whatever else looks like it waits
// the whole lease, or a call that still runs would be paid for again.
// Not covered: a firewall between a worker and Postgres that resets a connection without a proxy's address of its own, and lets the
// worker make no new one for a third of the lease. To Postgres that is a killed process.
describe(`FAULTS 4, 6, 10, how a worker is seen dead (${formOfRun} form)`, () => {
  let system: System
  let address: string
  let janitor: Child
  let proxy: TcpProxy
  let throughProxy: string

  beforeEach(async () => {
    system = await startSystem(formOfRun)
    address = (await system.api()).address
    janitor = await system.started('janitor', env)
    proxy = await startTcpProxy(system.postgres.port)
    const url = new URL(system.database.url)
    url.port = String(proxy.port)
    throughProxy = url.href
  }, 120_000)
  afterEach(async () => {
    await proxy.close()
    await system.stop()
  })

  /** A worker that beats, with a call under way; `hold`: should it be reclaimed, its job says so. */
  const busyWorker = async (url = system.database.url): Promise<{ worker: Child; job: string }> => {
    await system.upstream.script([{ kind: 'hang', match: { marker: 'held' } }])
    const worker = await system.started('worker', { ...env, DATABASE_URL: url })
    const { body } = await submit(address, 'held', { ...chat('held'), on_uncertain: 'hold' })
    await until(system.upstream.calls, (calls) => calls === 1, 30_000)
    await beats(2)
    return { worker, job: body.id }
  }
  /** So many more beats: a janitor has seen the worker alive in between. */
  const beats = async (more: number): Promise<void> => {
    const read = async (): Promise<number> =>
      (await system.sql<{ beat: number }>('select beat::int from workers where not dead'))[0]?.beat as number
    const before = await read()
    await until(read, (beat) => beat >= before + more, 30_000)
  }
  const declared = (): { duration_ms: number; reason: string }[] =>
    janitor.stdout
      .filter((line) => line.includes('"worker.declared_dead"'))
      .map((line) => JSON.parse(line) as { duration_ms: number; reason: string })

  test('killed: after a third of the lease; its calls are reclaimed at once', async () => {
    const { worker, job } = await busyWorker()
    const killedAt = performance.now()
    await worker.kill()
    await untilState(address, job, 'uncertain', 30_000)
    // The third, a reading before and one after it, the reclaim, and some for a busy machine.
    expect(performance.now() - killedAt).toBeLessThan(leaseMs / 3 + 4_000)
    expect(await ledger(system, job)).toEqual([{ attempt: 1, outcome: 'lost', billing: 'maybe' }])
    const [seen, ...others] = declared()
    expect([seen?.reason, others]).toEqual(['its process ended', []])
    expect(seen?.duration_ms).toBeGreaterThanOrEqual(leaseMs / 3)
  }, 120_000)

  test('stopped: after the whole lease', async () => {
    const { worker, job } = await busyWorker()
    worker.signal('SIGSTOP')
    await untilState(address, job, 'uncertain', 60_000)
    expect(declared()).toMatchObject([{ reason: 'no beat for the whole lease' }])
    expect(declared()[0]?.duration_ms).toBeGreaterThanOrEqual(leaseMs)
    worker.signal('SIGCONT')
  }, 120_000)

  test('behind a proxy that is cut for two thirds of the lease: not at all, and its call goes on', async () => {
    const { worker, job } = await busyWorker(throughProxy)
    proxy.refuse()
    proxy.cutAll()
    await sleep((leaseMs * 2) / 3)
    proxy.accept()
    await beats(2)
    expect(declared()).toEqual([])
    expect(await ledger(system, job)).toEqual([{ attempt: 1, outcome: null, billing: null }])
    await worker.kill()
    await untilState(address, job, 'uncertain', 60_000)
    expect(declared()).toMatchObject([{ reason: 'no beat for the whole lease' }])
  }, 120_000)

  test('its sessions ended by the server, which takes no new ones for two thirds of the lease: not at all', async () => {
    const { job } = await busyWorker()
    const admin = `update pg_database set datallowconn = $1 where datname = current_database()`
    await system.sql(admin, [false])
    await system.sql(
      `select pg_terminate_backend(pid) from pg_stat_activity where application_name in ('askonce heartbeat', 'askonce worker')`,
    )
    await sleep((leaseMs * 2) / 3)
    await system.sql(admin, [true])
    await beats(2)
    expect(declared()).toEqual([])
    expect(await ledger(system, job)).toEqual([{ attempt: 1, outcome: null, billing: null }])
  }, 120_000)

  test('Postgres killed under it and started again: not at all', async () => {
    const { job } = await busyWorker()
    await system.postgres.kill()
    await sleep(leaseMs / 2)
    await system.postgres.restart()
    await until(
      () =>
        beats(2)
          .then(() => true)
          .catch(() => false),
      (done) => done,
      60_000,
    )
    expect(declared()).toEqual([])
    expect(await ledger(system, job)).toEqual([{ attempt: 1, outcome: null, billing: null }])
  }, 120_000)
})
