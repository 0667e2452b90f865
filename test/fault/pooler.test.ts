import { startTestPgbouncer, type TestPgbouncer } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  apiKey,
  call,
  chat,
  ledger,
  startSystem,
  submit,
  until,
  untilState,
  type Reply,
  type System,
} from './system.ts'

/** Connections from the pooler to Postgres, fewer than any process alone would open. */
const poolSize = 5

/**
 * DESIGN.md §1.1, §1.3 and §8 hold through a pooler, which keeps no session: nothing accepted is lost, and no call is made twice.
 * The whole system with PgBouncer in transaction mode between its processes and Postgres. docs/operations.md says what goes around it.
 * Not covered: another program that uses the same role through the same pooler and leaves settings behind in its sessions.
 */
describe('PgBouncer in transaction mode', () => {
  let system: System
  let pooler: TestPgbouncer
  let env: Record<string, string>
  let address: string
  beforeAll(async () => {
    system = await startSystem('redis')
    pooler = await startTestPgbouncer({ url: system.database.url, poolSize })
    env = { DATABASE_URL: pooler.url, DATABASE_DIRECT_URL: system.database.url }
  })
  afterAll(async () => {
    await pooler.stop()
    await system.stop()
  })

  const doctor = async (): Promise<{ name: string; status: string; detail: string; todo: string | null }[]> => {
    const child = system.spawn('doctor', env, ['--json'])
    await child.exited
    return (JSON.parse(child.stdout.join('\n')) as { checks: Awaited<ReturnType<typeof doctor>> }).checks
  }
  const poolerCheck = async () => (await doctor()).find(({ name }) => name === 'pooler')
  /** Sessions at the server by name: those that go around the pooler, and those of pools. */
  const sessions = async (): Promise<{ around: string[]; pooled: number }> => {
    const rows = await system.sql<{ name: string }>(
      `select application_name as name from pg_stat_activity where datname = current_database() and application_name like 'askonce%'`,
    )
    const names = rows.map(({ name }) => name)
    const pools = new Set(['askonce api', 'askonce worker', 'askonce janitor'])
    return {
      around: names.filter((name) => !pools.has(name)).toSorted((a, b) => a.localeCompare(b)),
      pooled: names.filter((name) => pools.has(name)).length,
    }
  }
  const bypassing = ['askonce api listens', 'askonce heartbeat', 'askonce janitor listener', 'askonce worker listener']
  const expectOneCallEach = async (keys: readonly string[]): Promise<void> => {
    const calls = await system.upstream.callsBy()
    expect(keys.filter((key) => calls[key] !== 1)).toEqual([])
  }

  test('a role whose commits do not wait for the disk is refused, missing time-outs are named, and what is named mends it', async () => {
    await system.sql(`alter database ${system.database.name} set synchronous_commit = off`)
    const alone = system.spawn('worker', { DATABASE_URL: pooler.url })
    const [child, check] = [system.spawn('worker', env), await poolerCheck()]
    expect(await alone.exited).toMatchObject({ code: 1 })
    expect(alone.stderr.join('\n')).toMatch(/a pooler answers at DATABASE_URL.*Set DATABASE_DIRECT_URL/)
    expect(await child.exited).toMatchObject({ code: 1 })
    const refusal = /synchronous_commit is off instead of on.*behind the pooler/
    const remedy = /alter role \w+ set sync/
    expect(child.stderr.join('\n')).toMatch(refusal)
    expect(child.stderr.join('\n')).toMatch(remedy)
    expect(check).toMatchObject({
      status: 'problem',
      detail: expect.stringMatching(refusal) as string,
      todo: expect.stringMatching(remedy) as string,
    })

    await system.sql(`alter role current_user set synchronous_commit = 'on'`)
    // Its connections have the settings of their beginning.
    await pooler.restart()
    const janitor = await system.started('janitor', env)
    const line = await janitor.waitForLine(/"event":"pooler\.settings_missing"/, 1_000)
    const { count, reason } = JSON.parse(line.input) as { count: number; reason: string }
    expect(count).toBeGreaterThanOrEqual(3)
    await system.sql(reason)
    await pooler.restart()
    expect(await poolerCheck()).toMatchObject({ status: 'ok' })
  })

  test('submissions, waits, a stream and a cancellation through five connections; listeners and beats around them', async () => {
    address = (await system.api(env)).address
    await system.started('worker', { ...env, ASKONCE_CONCURRENCY: '100' })
    const keys = Array.from({ length: 200 }, (_, index) => `through-${index}`)
    const replies = await Promise.all(keys.map((key) => submit(address, key, chat(key), 30)))
    expect(replies.filter(({ status, body }) => status !== 200 || body.state !== 'succeeded')).toEqual([])
    await expectOneCallEach(keys)

    const response = await fetch(`${address}/openai/v1/chat/completions`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${apiKey}`,
        'content-type': 'application/json',
        'idempotency-key': 'through-stream',
      },
      body: JSON.stringify({ ...chat('through-stream').request, stream: true }),
    })
    expect(await response.text()).toMatch(/data: \[DONE\]\s*$/)

    await system.upstream.script([{ kind: 'hang', match: { marker: 'through-hanging' } }])
    const { body } = await submit(address, 'through-hanging', chat('through-hanging'))
    await untilState(address, body.id, 'running', 10_000)
    const cancelledAt = performance.now()
    expect((await call(address, 'POST', `/v1/jobs/${body.id}/cancel`, { body: {} })).body.state).toBe('cancelled')
    await until(
      () => ledger(system, body.id),
      ([row]) => row?.outcome === 'cancelled',
      5_000,
    )
    expect(performance.now() - cancelledAt).toBeLessThan(2_000)

    const { around, pooled } = await sessions()
    expect(around).toEqual(bypassing)
    expect(pooled).toBeGreaterThan(0)
    expect(pooled).toBeLessThanOrEqual(poolSize)
  })

  test('killed under load for longer than the lease: nothing is lost, no call is made twice, no worker is taken for dead', async () => {
    await system.upstream.script([{ kind: 'answer', delayMs: 300, times: 1_000 }])
    const accepted: string[] = []
    const refused: Reply[] = []
    const stop = new AbortController()
    const producer = async (name: string): Promise<void> => {
      for (let index = 0; !stop.signal.aborted; index += 1) {
        const key = `killed-${name}-${index}`
        const reply = await submit(address, key, chat(key))
        if (reply.status === 202) accepted.push(key)
        else refused.push(reply)
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
    }
    const producers = ['a', 'b', 'c', 'd'].map((name) => producer(name))
    await until(
      () => Promise.resolve(accepted.length),
      (count) => count > 100,
      20_000,
    )
    const beatOf = async (): Promise<number> =>
      Number((await system.sql<{ beat: string }>('select max(beat) as beat from workers'))[0]?.beat)

    await pooler.kill()
    const beat = await beatOf()
    // The lease is 6 s, at two beats a second.
    await until(beatOf, (now) => now >= beat + 14, 15_000)
    expect((await sessions()).around).toEqual(bypassing)
    expect(await system.sql('select 1 from workers where dead')).toEqual([])
    expect(refused.length).toBeGreaterThan(0)
    expect(refused.filter(({ status }) => status !== 503)).toEqual([])
    const before = accepted.length
    await pooler.restart()
    await until(
      () => Promise.resolve(accepted.length),
      (count) => count > before + 50,
      20_000,
    )
    stop.abort()
    await Promise.all(producers)

    const open = async (): Promise<number> =>
      (await system.sql(`select 1 from jobs where idempotency_key like 'killed-%' and state <> 'succeeded'`)).length
    await until(open, (count) => count === 0, 60_000)
    const stored = await system.sql<{ key: string }>(
      `select idempotency_key as key from jobs where idempotency_key like 'killed-%' and state = 'succeeded'`,
    )
    const keys = stored.map(({ key }) => key)
    expect(accepted.filter((key) => !keys.includes(key))).toEqual([])
    await expectOneCallEach(keys)
    expect(await system.sql(`select 1 from attempts where billing = 'maybe' and outcome <> 'cancelled'`)).toEqual([])
  }, 120_000)

  test('the command line and migrations go to the server itself', async () => {
    await pooler.kill()
    const [migrating, listing] = [system.spawn('migrate', env), system.spawn('keys', env, ['list'])]
    expect(await migrating.exited).toMatchObject({ code: 0 })
    expect(await listing.exited).toMatchObject({ code: 0 })
  })
})
