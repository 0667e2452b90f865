import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  apiKey,
  call,
  chat,
  formOfRun,
  run,
  startSystem,
  submit,
  until,
  untilState,
  type Form,
  type System,
} from './system.ts'

const crowd = 20_000
const places = 4

// DESIGN.md §1.6: nobody waits because of somebody else. Tenants take turns, and a limit or a budget holds to the unit, whatever is killed.
// Not covered: the order of tenants that have waited equally long. It is that of their names.
describe.each<Form>([formOfRun])('FAULTS 15, a greedy neighbour (%s form)', (form) => {
  let system: System
  let address: string
  const keys = new Map<string, string>()

  const tenant = async (name: string, ...limits: string[]): Promise<void> => {
    expect(await run(system, ['tenants', 'create', name])).toMatchObject({ code: 0 })
    if (limits.length > 0) expect(await run(system, ['tenants', 'set', name, ...limits])).toMatchObject({ code: 0 })
    const made = await run(system, ['keys', 'create', '--tenant', name, '--name', name, '--scopes', 'submit,read'])
    keys.set(name, made.stdout.split('\n').find((line) => line.startsWith('ak_')) as string)
  }
  const submitAs = async (name: string, key: string): Promise<{ status: number; id: string }> => {
    const response = await fetch(`${address}/v1/jobs`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${keys.get(name)}`,
        'content-type': 'application/json',
        'idempotency-key': key,
      },
      body: JSON.stringify(chat(key)),
      signal: AbortSignal.timeout(60_000),
    })
    return { status: response.status, id: ((await response.json()) as { id: string }).id }
  }
  const submitMany = async (name: string, count: number): Promise<void> => {
    for (let from = 0; from < count; from += 2_000) {
      const jobs = Array.from({ length: Math.min(2_000, count - from) }, (_, n) => ({
        key: `${name}-${from + n}`,
        ...chat(`${name}-${from + n}`),
      }))
      const response = await fetch(`${address}/v1/jobs/bulk`, {
        method: 'POST',
        headers: { authorization: `Bearer ${keys.get(name)}`, 'content-type': 'application/json' },
        body: JSON.stringify({ jobs }),
        signal: AbortSignal.timeout(120_000),
      })
      expect(response.status).toBe(200)
      await response.arrayBuffer()
    }
  }

  beforeAll(async () => {
    system = await startSystem(form, { UPSTREAM_LATENCY_MS: '50' })
    address = (await system.api()).address
    await system.started('janitor')
    await Promise.all(['a', 'b'].map((name) => tenant(name)))
  })
  afterAll(() => system.stop())

  test('a single job goes to the next place that gets free, however many another tenant has', async () => {
    await submitMany('a', crowd)
    const worker = await system.started('worker', { ASKONCE_CONCURRENCY: String(places) })
    await until(
      () => system.upstream.calls(),
      (calls) => calls > 2 * places,
      30_000,
    )
    for (let n = 0; n < 5; n += 1) {
      const { status, id } = await submitAs('b', `b-${n}`)
      expect(status).toBe(202)
      await until(
        () => system.sql<{ state: string }>('select state from jobs where id = $1', [id]),
        ([row]) => row?.state === 'succeeded',
        30_000,
      )
      // Calls of the other tenant that began between this job's commit and its own call: no more than there are places.
      const [row] = await system.sql<{ before: number }>(
        `select count(*)::int as before from attempts a, attempts b, jobs j
         where b.job_id = $1 and j.id = $1 and a.tenant_id = 'a' and a.started_at > j.created_at and a.started_at < b.started_at`,
        [id],
      )
      expect(row?.before).toBeLessThanOrEqual(places)
    }
    await worker.kill()
  }, 120_000)

  test('max_running holds to the unit while workers are killed and start again', async () => {
    await tenant('limited', '--max-running', '3')
    await system.upstream.script(
      Array.from({ length: 60 }, (_, n) => ({ kind: 'answer', delayMs: 300, match: { marker: `limited-${n}` } })),
    )
    await submitMany('limited', 60)
    let most = 0
    const look = async (): Promise<number> => {
      const [row] = await system.sql<{ running: number; done: number }>(
        `select count(*) filter (where state = 'running')::int as running, count(*) filter (where state = 'succeeded')::int as done
         from jobs where tenant_id = 'limited'`,
      )
      most = Math.max(most, row?.running ?? 0)
      return row?.done ?? 0
    }
    const env = { ASKONCE_CONCURRENCY: '20', ASKONCE_LEASE_SECONDS: '3' }
    for (let round = 1; round <= 2; round += 1) {
      const workers = await Promise.all([1, 2].map(() => system.started('worker', env)))
      await until(look, (done) => done >= round * 10, 60_000)
      await Promise.all(workers.map((worker) => worker.kill()))
    }
    const last = await Promise.all([1, 2].map(() => system.started('worker', env)))
    await until(look, (done) => done === 60, 120_000)
    expect(most).toBe(3)
    await Promise.all(last.map((worker) => worker.kill()))
  }, 240_000)

  test('a tenant that is full of queued jobs is told so, and what it has is replayed and attached', async () => {
    await tenant('full', '--max-queued', '10')
    const replies = await Promise.all(Array.from({ length: 1_000 }, (_, n) => submitAs('full', `full-${n}`)))
    const accepted = replies.filter(({ status }) => status === 202)
    expect(accepted).toHaveLength(10)
    expect(replies.filter(({ status }) => status === 429)).toHaveLength(990)
    const [row] = await system.sql<{ key: string }>(
      `select idempotency_key as key from jobs where tenant_id = 'full' limit 1`,
    )
    expect((await submitAs('full', row?.key ?? '')).status).toBe(202)
  }, 120_000)

  test('others submit, run and read as before', async () => {
    const worker = await system.started('worker')
    const { body } = await submit(address, 'mine', chat('mine'))
    await untilState(address, body.id, 'succeeded', 30_000)
    expect((await call(address, 'GET', `/v1/jobs?limit=5`)).status).toBe(200)
    expect(apiKey).not.toBe(keys.get('a'))
    await worker.kill()
  }, 60_000)
})
