import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { chat, ledger, startSystem, submit, until, untilState, type Form, type System } from './system.ts'

// DESIGN.md §1.1: accepted means durable, whatever dies and whatever Redis loses.
// Not covered: the producer's knowledge. Whoever got no reply and never asks again does not learn that the job was accepted, and paid.
describe.each<Form>(['redis', 'embedded'])('FAULTS 2, API killed between commit and wake-up (%s form)', (form) => {
  let system: System
  beforeAll(async () => {
    system = await startSystem(form)
  })
  afterAll(() => system.stop())

  test('the job runs exactly once, with Redis down at the time as well', async () => {
    const doomed = await system.api({ ASKONCE_TEST_PAUSE: 'api.committed' })
    await system.redis?.kill()
    const lost = submit(doomed.address, 'k', chat('k')).then(
      () => 'answered',
      () => 'no reply',
    )
    await doomed.child.waitForLine(/paused at api\.committed/, 30_000)
    await doomed.child.kill()
    expect(await lost).toBe('no reply')
    const rows = await system.sql<{ id: string; state: string }>(
      `select id, state from jobs where idempotency_key = 'k'`,
    )
    expect(rows.map(({ state }) => state)).toEqual(['queued'])

    // Worker and janitor meet a Redis that is away at their boot, and must find it when it comes.
    const worker = system.spawn('worker')
    await system.started('janitor')
    await system.redis?.restart()
    await worker.waitForLine(/"event":"worker\.started"/, 30_000)
    const { address } = await system.api()
    const id = rows[0]?.id as string
    await untilState(address, id, 'succeeded', 30_000)
    expect(await ledger(system, id)).toEqual([{ attempt: 1, outcome: 'answered', billing: 'billed' }])
    expect(await system.upstream.calls()).toBe(1)
    // The producer, who never got a reply, asks again.
    const again = await submit(address, 'k', chat('k'))
    expect([again.status, again.body.id, again.headers.get('idempotent-replayed')]).toEqual([200, id, 'true'])
    expect(await system.upstream.calls()).toBe(1)
  })

  test('killed before the commit: nothing was accepted, and asking again starts it', async () => {
    const doomed = await system.api({ ASKONCE_TEST_PAUSE: 'api.received' })
    const lost = submit(doomed.address, 'early', chat('early')).catch(() => null)
    await doomed.child.waitForLine(/paused at api\.received/, 30_000)
    await doomed.child.kill()
    expect(await lost).toBeNull()
    const { address } = await system.api()
    const read = (): Promise<unknown[]> => system.sql(`select id from jobs where idempotency_key = 'early'`)
    expect(await read()).toEqual([])
    const again = await submit(address, 'early', chat('early'), 30)
    expect([again.status, again.headers.get('idempotent-replayed')]).toEqual([200, 'false'])
    await until(read, (found) => found.length === 1, 1_000)
  })
})
