import type { Child } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  call,
  chat,
  formOfRun,
  ledger,
  startSystem,
  submit,
  until,
  untilState,
  type Form,
  type Reply,
  type System,
} from './system.ts'

const shiftClock = new URL('shift-clock.js', import.meta.url).href
const tenMinutesMs = 600_000

/** Environment of a process whose wall clock is off. */
function off(minutes: number): Record<string, string> {
  return { NODE_OPTIONS: `--import=${shiftClock}`, ASKONCE_TEST_CLOCK_OFFSET_MS: String(minutes * 60_000) }
}

type Times = Record<'created_at' | 'run_at' | 'deadline_at' | 'expires_at', string>

// DESIGN.md §2 and §8: leases, deadlines, expiry and due times go by the database's clock, whatever the machines believe.
// Not covered: the database's own clock. When that jumps ahead, answers expire early and jobs run early.
describe.each<Form>([formOfRun])('FAULTS 10, clocks ten minutes off (%s form)', (form) => {
  let system: System
  /** APIs whose clocks are ahead and behind. */
  let ahead: string
  let behind: string
  let roles: Child[]

  beforeAll(async () => {
    system = await startSystem(form)
    const apis = await Promise.all([system.api(off(10)), system.api(off(-10))])
    ahead = apis[0].address
    behind = apis[1].address
    roles = await Promise.all([
      system.started('worker', off(-10)),
      system.started('worker', off(10)),
      system.started('janitor', { ...off(10), ASKONCE_SWEEP_INTERVAL_SECONDS: '1' }),
      system.started('janitor', { ...off(-10), ASKONCE_SWEEP_INTERVAL_SECONDS: '1' }),
    ])
  }, 120_000)
  afterAll(() => system.stop())

  const timesOf = (reply: Reply): Times => reply.body as unknown as Times
  /** Milliseconds from the database's now to a time. */
  const fromNow = async (time: string): Promise<number> => {
    const [row] = await system.sql<{ ms: number }>(
      'select extract(epoch from $1::timestamptz - clock_timestamp())::float8 * 1000 as ms',
      [time],
    )
    return row?.ms as number
  }
  const expectAbout = async (time: string, seconds: number): Promise<void> => {
    expect(Math.abs((await fromNow(time)) - seconds * 1000)).toBeLessThan(30_000)
  }

  test('the clocks really are off: log lines of each process say so', async () => {
    const offsets = roles.map(({ stdout }) => {
      const { time } = JSON.parse(stdout[0] as string) as { time: string }
      return Math.round((Date.parse(time) - Date.now()) / tenMinutesMs)
    })
    expect(offsets).toEqual([-1, 1, 1, -1])
  })

  test('times of a job are the database’s, ids are unique, and each job costs one call', async () => {
    const replies = await Promise.all(
      Array.from({ length: 100 }, (_, index) =>
        submit(index % 2 === 0 ? ahead : behind, `clock-${index}`, { ...chat(`clock-${index}`), ttl_seconds: 300 }, 30),
      ),
    )
    expect(new Set(replies.map(({ status, body }) => `${status} ${body.state}`))).toEqual(new Set(['200 succeeded']))
    expect(new Set(replies.map(({ body }) => body.id)).size).toBe(100)
    for (const reply of replies.slice(0, 4)) {
      const { created_at: created, run_at: runAt, deadline_at: deadline, expires_at: expires } = timesOf(reply)
      await expectAbout(created, 0)
      await expectAbout(runAt, 0)
      await expectAbout(deadline, 604_800)
      // Five minutes: gone already if the clock of an API or janitor that is ahead decided.
      await expectAbout(expires, 300)
    }
    const calls = Object.entries(await system.upstream.callsBy()).filter(([marker]) => marker.startsWith('clock-'))
    expect(calls.filter(([, count]) => count !== 1)).toEqual([])
    const again = await submit(behind, 'clock-0', { ...chat('clock-0') })
    expect([again.status, again.headers.get('idempotent-replayed')]).toEqual([200, 'true'])
    // Newest first by the database's time, not by what the ids say.
    const { body } = await call(ahead, 'GET', '/v1/jobs?limit=100')
    const list = (body as unknown as { data: Times[] }).data.map(({ created_at: at }) => at)
    expect(list).toEqual(list.toSorted().toReversed())
  })

  test('a delay and a time to run are waited for, no more and no less', async () => {
    const [row] = await system.sql<{ at: string }>(
      `select to_char((now() + interval '4 seconds') at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as at`,
    )
    const replies = await Promise.all([
      submit(ahead, 'delay-ahead', { ...chat('delay-ahead'), delay_seconds: 4 }),
      submit(behind, 'delay-behind', { ...chat('delay-behind'), delay_seconds: 4 }),
      submit(ahead, 'run-at-ahead', { ...chat('run-at-ahead'), run_at: row?.at }),
      submit(behind, 'run-at-behind', { ...chat('run-at-behind'), run_at: row?.at }),
    ])
    for (const { body } of replies) await untilState(ahead, body.id, 'succeeded', 20_000)
    const early = await system.sql<{ id: string }>(
      `select id from jobs j where (idempotency_key like 'delay-%' or idempotency_key like 'run-at-%')
         and (started_at < run_at or started_at > run_at + interval '8 seconds' or run_at < created_at + interval '1 second')`,
    )
    expect(early).toEqual([])
  })

  test('a deadline is met by the database’s clock alone', async () => {
    const far = { ...chat('deadline'), delay_seconds: 60, deadline_seconds: 300 }
    const { body } = await submit(behind, 'deadline', far)
    // Two rounds of the loop that fails overdue jobs have passed over it when one submitted after it has failed.
    const late = await submit(ahead, 'overdue', { ...far, ...chat('overdue') })
    await system.sql(`update jobs set deadline_at = now() - interval '1 second' where id = $1`, [late.body.id])
    const failed = await untilState(behind, late.body.id, 'failed', 20_000)
    expect(failed.error?.code).toBe('deadline_exceeded')
    expect((await call(ahead, 'GET', `/v1/jobs/${body.id}`)).body.state).toBe('queued')
  })

  test('an answer is there until it expires by the database’s clock, and then gone for everybody', async () => {
    const { body } = await submit(ahead, 'expiry', { ...chat('expiry'), ttl_seconds: 60 }, 30)
    const swept = await submit(ahead, 'swept', { ...chat('swept'), ttl_seconds: 60 }, 30)
    await system.sql(`update jobs set expires_at = now() - interval '1 second' where id = $1`, [swept.body.id])
    for (const address of [ahead, behind]) {
      expect((await call(address, 'GET', `/v1/jobs/${swept.body.id}`)).status).toBe(404)
    }
    await until(
      () => system.sql('select id from jobs where id = $1', [swept.body.id]),
      (rows) => rows.length === 0,
      20_000,
    )
    for (const address of [ahead, behind]) {
      expect((await call(address, 'GET', `/v1/jobs/${body.id}`)).body.state).toBe('succeeded')
    }
  })

  test('a provider’s wait until a time of day is read against the provider’s own clock', async () => {
    const error = { error: { message: 'slow down', type: 'requests', code: 'rate_limit_exceeded', param: null } }
    // The upstream's clock is right, and its `date` header says so.
    const headers = { 'retry-after': new Date(Date.now() + 5_000).toUTCString() }
    const match = { marker: 'wait' }
    await system.upstream.script([{ kind: 'refuse', status: 429, headers, body: error, match, times: 1 }])
    const { body } = await submit(ahead, 'wait', chat('wait'))
    const lanes = await until(
      () => system.sql<{ until: string }>(`select until::text from lanes where state = 'paused'`),
      (rows) => rows.length === 1,
      20_000,
    )
    expect(Math.abs(await fromNow(lanes[0]?.until ?? ''))).toBeLessThan(15_000)
    await untilState(behind, body.id, 'succeeded', 30_000)
    expect(await ledger(system, body.id)).toEqual([
      { attempt: 1, outcome: 'paused', billing: 'none' },
      { attempt: 2, outcome: 'answered', billing: 'billed' },
    ])
  })

  test('a worker is declared dead when it is silent and not before, and its job is taken over', async () => {
    await system.upstream.script([{ kind: 'hang', match: { marker: 'silent' } }])
    const doomed = await system.started('worker', off(10))
    for (const child of roles.slice(0, 2)) {
      child.signal('SIGTERM')
      expect(await child.exited).toMatchObject({ code: 0 })
    }
    const { body } = await submit(behind, 'silent', chat('silent'))
    await until(system.upstream.callsBy, (calls) => calls['silent'] === 1, 20_000)
    const successor = await system.started('worker', off(-10))
    expect(
      await system.sql(`select 1 from workers where dead and died_at > now() - interval '1 hour' and host is null`),
    ).toEqual([])
    const killedAt = performance.now()
    await doomed.kill()
    await untilState(ahead, body.id, 'succeeded', 20_000)
    // A third of the lease, two seconds, has to pass since its last beat.
    expect(performance.now() - killedAt).toBeGreaterThan(1_000)
    expect(await ledger(system, body.id)).toEqual([
      { attempt: 1, outcome: 'lost', billing: 'maybe' },
      { attempt: 2, outcome: 'answered', billing: 'billed' },
    ])
    successor.signal('SIGTERM')
    await successor.exited
  })
})
