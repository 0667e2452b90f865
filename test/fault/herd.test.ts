import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { call, chat, startSystem, submit, until, type Form, type System } from './system.ts'

// DESIGN.md §1.2: one key, one answer; §3: one submission makes the job run, the others attach.
// Not covered: a herd larger than an API queues, which is told to come back (503), and one whose key expires meanwhile (sweep.test.ts).
describe.each<Form>(['redis', 'embedded'])('FAULTS 1, herd (%s form)', (form) => {
  let system: System
  let addresses: string[]

  beforeAll(async () => {
    system = await startSystem(form)
    addresses = (await Promise.all([system.api(), system.api(), system.api()])).map(({ address }) => address)
    await Promise.all([system.started('worker'), system.started('janitor')])
  })
  afterAll(() => system.stop())

  const anyOf = (index: number): string => addresses[index % addresses.length] as string

  test('200 identical submissions over three API processes: one row, one call, one creator', async () => {
    const replies = await Promise.all(
      Array.from({ length: 200 }, (_, index) => submit(anyOf(index), 'herd-1', chat('herd-1'), 30)),
    )
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([200]))
    expect(new Set(replies.map(({ body }) => body.id)).size).toBe(1)
    expect(new Set(replies.map(({ body }) => JSON.stringify(body.response))).size).toBe(1)
    const creators = replies.filter(({ headers }) => headers.get('idempotent-replayed') === 'false')
    expect(creators).toHaveLength(1)
    expect((await system.upstream.callsBy())['herd-1']).toBe(1)
    expect(await system.sql(`select id from jobs where idempotency_key = 'herd-1'`)).toHaveLength(1)
  })

  test('two bodies at once under one cold key, 100 times each: one of them wins everywhere, the other is refused everywhere', async () => {
    const contents = ['one', 'other'] as const
    const replies = await Promise.all(
      Array.from({ length: 200 }, async (_, index) => {
        const content = contents[index % 2] as string
        return { content, ...(await submit(anyOf(index), 'herd-3', chat('herd-3', content), 30)) }
      }),
    )
    const taken = replies.filter(({ status }) => status === 200)
    const refused = replies.filter(({ status }) => status === 422)
    expect([taken.length, refused.length]).toEqual([100, 100])
    expect(new Set(taken.map(({ content }) => content)).size).toBe(1)
    expect(new Set(refused.map(({ body }) => body.code))).toEqual(new Set(['idempotency_key_reused']))
    expect(new Set(taken.map(({ body }) => body.id)).size).toBe(1)
    expect(taken.filter(({ headers }) => headers.get('idempotent-replayed') === 'false')).toHaveLength(1)
    expect((await system.upstream.callsBy())['herd-3']).toBe(1)
    expect(await system.sql(`select id from jobs where idempotency_key = 'herd-3'`)).toHaveLength(1)
  })

  test('another body under the key is refused while the job runs and after it has finished', async () => {
    await system.upstream.script([{ kind: 'answer', delayMs: 1_500, match: { marker: 'herd-2' } }])
    const first = await submit(anyOf(0), 'herd-2', chat('herd-2'))
    expect(first.status).toBe(202)
    const inFlight = await submit(anyOf(1), 'herd-2', chat('herd-2', 'something else'))
    expect([inFlight.status, inFlight.body.code]).toEqual([422, 'idempotency_key_reused'])
    expect((await call(anyOf(2), 'GET', `/v1/jobs/${first.body.id}`, { wait: 30 })).body.state).toBe('succeeded')
    const finished = await submit(anyOf(2), 'herd-2', chat('herd-2', 'something else'))
    expect([finished.status, finished.body.code]).toEqual([422, 'idempotency_key_reused'])
    expect((await system.upstream.callsBy())['herd-2']).toBe(1)
  })

  test('overlapping bulk submissions in opposite orders from three processes: no deadlock, each key created once', async () => {
    const jobs = Array.from({ length: 400 }, (_, index) => ({ key: `bulk-${index}`, ...chat(`bulk-${index}`) }))
    const bodies = [jobs, jobs.toReversed(), jobs, jobs.toReversed(), jobs, jobs.toReversed()]
    const replies = await Promise.all(
      bodies.map((list, index) => call(anyOf(index), 'POST', '/v1/jobs/bulk', { body: { jobs: list } })),
    )
    const items = replies.flatMap(
      ({ body }) => (body as unknown as { data: { status: number; job: { id: string; replayed: boolean } }[] }).data,
    )
    expect(items).toHaveLength(2_400)
    expect(items.filter(({ status }) => status !== 202 && status !== 200)).toEqual([])
    expect(items.filter(({ job }) => !job.replayed)).toHaveLength(400)
    expect(new Set(items.map(({ job }) => job.id)).size).toBe(400)
    const unfinished = (): Promise<unknown[]> =>
      system.sql(`select id from jobs where idempotency_key like 'bulk-%' and state <> 'succeeded'`)
    await until(unfinished, (rows) => rows.length === 0, 60_000)
    const calls = Object.entries(await system.upstream.callsBy()).filter(([marker]) => marker.startsWith('bulk-'))
    expect(calls.filter(([, count]) => count !== 1)).toEqual([])
    expect(calls).toHaveLength(400)
  })
})
