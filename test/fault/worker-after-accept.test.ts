import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { call, chat, ledger, startSystem, submit, until, untilState, type Form, type System } from './system.ts'

// DESIGN.md §1.3: never paid twice without somebody having chosen it, and every paid attempt is in the ledger.
// Not covered: whether the lost call was billed. Nobody on our side can know, so under `rerun` it may be paid for again, by choice.
describe.each<Form>(['redis', 'embedded'])('FAULTS 4, worker killed after the provider accepted (%s form)', (form) => {
  let system: System
  let address: string
  beforeAll(async () => {
    system = await startSystem(form)
    address = (await system.api()).address
    await system.started('janitor')
  })
  afterAll(() => system.stop())

  const untilCalls = (marker: string, count: number): Promise<unknown> =>
    until(
      async () => (await system.upstream.callsBy())[marker] ?? 0,
      (calls) => calls === count,
      30_000,
    )

  test('policy hold: the job is uncertain within 10 s, one call was made, and a duplicate submission says so', async () => {
    await system.upstream.script([{ kind: 'hang', match: { marker: 'hold' } }])
    const worker = await system.started('worker')
    const { body } = await submit(address, 'hold', { ...chat('hold'), on_uncertain: 'hold' })
    await untilCalls('hold', 1)
    await worker.kill()
    await untilState(address, body.id, 'uncertain', 10_000)
    expect(await ledger(system, body.id)).toEqual([{ attempt: 1, outcome: 'lost', billing: 'maybe' }])

    const next = await system.started('worker')
    const again = await submit(address, 'hold', { ...chat('hold'), on_uncertain: 'hold' })
    expect([again.status, again.body.state, again.headers.get('idempotent-replayed')]).toEqual([
      202,
      'uncertain',
      'true',
    ])
    const refused = await call(address, 'POST', `/v1/jobs/${body.id}/retry`, { body: {} })
    expect([refused.status, refused.body.code]).toEqual([400, 'consent_required'])
    expect((await system.upstream.callsBy())['hold']).toBe(1)

    const agreed = await call(address, 'POST', `/v1/jobs/${body.id}/retry`, { body: { accept_duplicate_charge: true } })
    expect(agreed.status).toBe(202)
    await untilState(address, body.id, 'succeeded', 30_000)
    expect(await ledger(system, body.id)).toEqual([
      { attempt: 1, outcome: 'lost', billing: 'maybe' },
      { attempt: 2, outcome: 'answered', billing: 'billed' },
    ])
    expect((await system.upstream.callsBy())['hold']).toBe(2)
    next.signal('SIGTERM')
    expect(await next.exited).toMatchObject({ code: 0 })
  })

  test('policy rerun: exactly two calls, both in the ledger; a second crash holds, and no third call follows', async () => {
    await system.upstream.script([{ kind: 'hang', match: { marker: 'rerun' }, times: 2 }])
    const first = await system.started('worker')
    const { body } = await submit(address, 'rerun', chat('rerun'))
    await untilCalls('rerun', 1)
    const second = await system.started('worker')
    await first.kill()
    const killedAt = performance.now()
    await untilCalls('rerun', 2)
    expect(performance.now() - killedAt).toBeLessThan(10_000)
    await second.kill()
    const held = await untilState(address, body.id, 'uncertain', 10_000)
    expect(held.usage).toMatchObject({ paid_attempts: 0, maybe_paid_attempts: 2 })
    expect(await ledger(system, body.id)).toEqual([
      { attempt: 1, outcome: 'lost', billing: 'maybe' },
      { attempt: 2, outcome: 'lost', billing: 'maybe' },
    ])
    // A worker that could run it is there, and has run something else since.
    await system.started('worker')
    const other = await submit(address, 'other', chat('other'), 30)
    expect(other.body.state).toBe('succeeded')
    expect((await submit(address, 'rerun', chat('rerun'))).body.state).toBe('uncertain')
    expect((await system.upstream.callsBy())['rerun']).toBe(2)
  })
})
