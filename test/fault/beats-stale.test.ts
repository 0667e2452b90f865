import { setTimeout as sleep } from 'node:timers/promises'
import { startTcpProxy, type Child, type TcpProxy } from '@askonce/testkit'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { apiKey, call, chat, formOfRun, startSystem, until, type Form, type System } from './system.ts'

const jobs = 200

/** Seconds; what a janitor takes for dead when it sees it. The default: a shorter one meets a busy machine's own silences. */
const lease = 6

/** For a longer try: `ASKONCE_TEST_OUTAGE_SECONDS=120 npx vitest run test/fault/beats-stale`. */
const given =
  process.env['ASKONCE_TEST_OUTAGE_SECONDS'] === undefined
    ? undefined
    : Number(process.env['ASKONCE_TEST_OUTAGE_SECONDS'])

interface Variant {
  form: Form
  /** Seconds. They have to pass for real: silence is measured by monotonic clocks inside the processes. */
  outage: number
}

// DESIGN.md §1.3 and §8: dead means seen dead. Nobody pays again because a clock went on while nothing could be seen.
// Not covered: a worker that stays silent for a whole lease after the others are back is declared dead, and
// is right to be. A machine that really sleeps stops its monotonic clocks as well, which is easier than what is tried here.
describe.each<Variant>([{ form: formOfRun, outage: given ?? 20 }])(
  'FAULTS 10, all beats stale at once ($form form)',
  ({ form, outage }) => {
    let system: System
    let address: string
    let api: Child
    let janitor: Child
    let workers: Child[]
    let proxy: TcpProxy

    beforeEach(async () => {
      system = await startSystem(form)
      proxy = await startTcpProxy(system.postgres.port)
      const throughProxy = new URL(system.database.url)
      throughProxy.port = String(proxy.port)
      const started = await system.api()
      address = started.address
      api = started.child
      janitor = await system.started('janitor')
      const env = { ASKONCE_CONCURRENCY: '100', DATABASE_URL: throughProxy.href }
      workers = await Promise.all([system.started('worker', env), system.started('worker', env)])
    }, 120_000)
    afterEach(async () => {
      await proxy.close()
      await system.stop()
    })

    /** All calls are with the upstream: half are answered while everything is away, half after it. */
    const run200 = async (shortMs: number, longMs: number): Promise<void> => {
      await system.upstream.script([
        { kind: 'answer', delayMs: shortMs, times: jobs / 2 },
        { kind: 'answer', delayMs: longMs, times: jobs / 2 },
      ])
      const list = Array.from({ length: jobs }, (_, index) => ({ key: `stale-${index}`, ...chat(`stale-${index}`) }))
      expect((await call(address, 'POST', '/v1/jobs/bulk', { body: { jobs: list } })).status).toBe(200)
      await until(system.upstream.calls, (calls) => calls >= jobs, 30_000)
    }
    /** Resolves when a janitor has read the beats in a connection or statement that is newer than `since` (database clock). */
    const janitorHasRead = async (since: string): Promise<void> => {
      const reading = (): Promise<unknown[]> =>
        system.sql(
          `select 1 from pg_stat_activity
         where application_name = 'askonce janitor listener' and query like '/* hot: read_beats */%' and query_start > $1`,
          [since],
        )
      await until(
        () => reading().catch(() => []),
        (rows) => rows.length > 0,
        30_000,
      )
    }
    const databaseTime = async (): Promise<string> => {
      const [row] = await system.sql<{ now: string }>('select now()::text as now')
      return row?.now as string
    }
    const expectNobodyDead = async (): Promise<void> => {
      await until(
        () => system.sql(`select state, count(*)::int from jobs group by state`),
        (rows) => JSON.stringify(rows) === JSON.stringify([{ state: 'succeeded', count: jobs }]),
        60_000,
      )
      expect(await system.sql('select dead, count(*)::int from workers group by dead')).toEqual([
        { dead: false, count: 2 },
      ])
      expect(janitor.stdout.filter((line) => line.includes('worker.declared_dead'))).toEqual([])
      expect(await system.upstream.calls()).toBe(jobs)
      const ends = await system.sql('select attempt, outcome, billing, count(*)::int from attempts group by 1, 2, 3')
      expect(ends).toEqual([{ attempt: 1, outcome: 'answered', billing: 'billed', count: jobs }])
      const answers = await system.sql(
        `select count(distinct job_id)::int as answers from answers where response is not null`,
      )
      expect(answers).toEqual([{ answers: jobs }])
    }

    test('Postgres away for many leases, a janitor the first to reconnect', async () => {
      await run200(outage * 500, outage * 1_000 + 10_000)
      const before = await databaseTime()
      proxy.refuse()
      proxy.cutAll()
      await system.postgres.kill()
      await sleep(outage * 1_000)
      const refused = await fetch(`${address}/v1/jobs`, {
        method: 'POST',
        headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json', 'idempotency-key': 'away' },
        body: JSON.stringify(chat('away')),
      })
      expect([refused.status, Number(refused.headers.get('retry-after')) > 0]).toEqual([503, true])

      await system.postgres.restart()
      await janitorHasRead(before)
      expect(proxy.connections()).toBe(0)
      proxy.accept()
      await expectNobodyDead()
    }, 240_000)

    test('the whole machine stopped and continued, a janitor the first to go on', async () => {
      await run200(2_000, 10_000)
      const stopped = [api, ...workers, janitor, system.upstream.child]
      for (const child of stopped) child.signal('SIGSTOP')
      system.postgres.pause()
      system.redis?.pause()
      await sleep(lease * 3_000)
      system.redis?.resume()
      system.postgres.resume()
      const resumedAt = await databaseTime()
      janitor.signal('SIGCONT')
      await janitorHasRead(resumedAt)
      for (const child of stopped) child.signal('SIGCONT')
      await expectNobodyDead()
    }, 180_000)
  },
)
