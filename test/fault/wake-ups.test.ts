import { redisAddress } from '@askonce/address'
import type { Child } from '@askonce/testkit'
import { openWaker, type QueueConnection, type Waker } from '@askonce/queue'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { chat, formOfRun, startSystem, submit, until, untilState, type Form, type System } from './system.ts'

const lane = 'openai'
const queue = `askonce-${lane}`

// DESIGN.md §1.5 and §8: BullMQ carries wake-ups that name no job, and nothing depends on the arrival of one.
// Not covered: the second that a lost wake-up may cost. It is the pace at which workers look by themselves.
describe.each<Form>([formOfRun])('FAULTS 9, wake-ups (%s form)', (form) => {
  let system: System
  let address: string
  let janitor: Child
  let waker: Waker
  beforeAll(async () => {
    system = await startSystem(form)
    address = (await system.api()).address
    janitor = await system.started('janitor')
    waker = openWaker(connectionOf(system), {
      onError: () => undefined,
      databaseId: () => Promise.resolve('of-a-test'),
      onShared: () => undefined,
    })
  })
  afterAll(async () => {
    await waker.close()
    await system.stop()
  })

  const submitted = (prefix: string, count: number): Promise<string[]> =>
    Promise.all(
      Array.from(
        { length: count },
        async (_, n) => (await submit(address, `${prefix}-${n}`, chat(`${prefix}-${n}`))).body.id,
      ),
    )
  const callsOf = async (prefix: string): Promise<number[]> =>
    Object.entries(await system.upstream.callsBy()).flatMap(([marker, calls]) =>
      marker.startsWith(`${prefix}-`) ? [calls] : [],
    )

  test('doubled, late and for nothing: every job is called once', async () => {
    const worker = await system.started('worker', { ASKONCE_CONCURRENCY: '5' })
    const noise = setInterval(() => waker.wake([lane, 'simulated']), 5)
    const ids = await submitted('noise', 60)
    for (const id of ids) await untilState(address, id, 'succeeded', 30_000)
    clearInterval(noise)
    expect(await callsOf('noise')).toEqual(ids.map(() => 1))
    worker.signal('SIGTERM')
    expect(await worker.exited).toMatchObject({ code: 0 })
  })

  test('all workers are full: a queue holds few entries, however many jobs come, and all run when places get free', async () => {
    await system.upstream.script(
      Array.from({ length: 4 }, (_, n) => ({ kind: 'answer', delayMs: 3_000, match: { marker: `full-${n}` } })),
    )
    const workers = await Promise.all([1, 2].map(() => system.started('worker', { ASKONCE_CONCURRENCY: '2' })))
    const first = await submitted('full', 4)
    for (const id of first) await untilState(address, id, 'running', 10_000)
    const rest = await submitted('waits', 100)
    const entries = await until(
      () => entriesOf(system),
      (count) => count > 0,
      5_000,
    )
    expect(entries).toBeLessThanOrEqual(8)
    for (const id of [...first, ...rest]) await untilState(address, id, 'succeeded', 60_000)
    expect(await callsOf('waits')).toEqual(rest.map(() => 1))
    for (const worker of workers) worker.signal('SIGTERM')
    for (const worker of workers) expect(await worker.exited).toMatchObject({ code: 0 })
  })

  test('one worker has a place among full ones: the job goes there at once', async () => {
    const full = await system.started('worker', { ASKONCE_CONCURRENCY: '1' })
    await system.upstream.script([{ kind: 'hang', match: { marker: 'long-0' } }])
    const [long = ''] = await submitted('long', 1)
    await untilState(address, long, 'running', 10_000)
    const free = await system.started('worker', { ASKONCE_CONCURRENCY: '4' })
    const ids = await submitted('short', 20)
    for (const id of ids) await untilState(address, id, 'succeeded', 30_000)
    const by = await system.sql<{ workers: number }>(
      `select count(distinct worker_id)::int as workers from attempts where idempotency_key like 'short-%'`,
    )
    expect(by).toEqual([{ workers: 1 }])
    await Promise.all([full.kill(), free.kill()])
  })

  test('away for as long as it lasts: jobs go on at the pace of the workers’ own look', async () => {
    const worker = await system.started('worker')
    await silence(system)
    for (let n = 0; n < 5; n += 1) {
      const { status, body } = await submit(address, `away-${n}`, chat(`away-${n}`))
      expect(status).toBe(202)
      await untilState(address, body.id, 'succeeded', 10_000)
    }
    await system.redis?.restart()
    for (const child of [worker, janitor]) child.signal('SIGTERM')
    for (const child of [worker, janitor]) expect(await child.exited).toMatchObject({ code: 0 })
  }, 90_000)
})

function connectionOf({ form, redis, database }: System): QueueConnection {
  if (form === 'embedded') return { kind: 'postgres', url: database.url }
  return { ...redisAddress(redis?.url ?? ''), prefix: '{askonce}' }
}

/** Wake-ups of the lane that BullMQ holds. */
async function entriesOf({ form, redis, sql }: System): Promise<number> {
  if (form === 'embedded') {
    const [row] = await sql<{ count: number }>('select count(*)::int as count from bullmq.job where queue = $1', [
      queue,
    ])
    return row?.count ?? -1
  }
  const [found = ''] = (await redis?.command(`EVAL "return #redis.call('keys', '*:${queue}:wake-*')" 0`)) ?? []
  return Number(found.replace(':', ''))
}

/** No wake-up arrives any more. */
async function silence({ form, redis, sql }: System): Promise<void> {
  if (form === 'redis') return await redis?.kill()
  await sql('alter table bullmq.job rename to job_gone')
}
