import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  call,
  chat,
  ledger,
  startSystem,
  submit,
  until,
  untilState,
  type Form,
  type System,
} from '../../fault/system.ts'

describe.each<Form>(['redis', 'embedded'])('worker (%s form)', (form) => {
  let system: System
  let address: string
  beforeAll(async () => {
    system = await startSystem(form)
    address = (await system.api()).address
    await system.started('janitor')
  })
  afterAll(() => system.stop())

  const untilCalled = (marker: string): Promise<unknown> =>
    until(
      async () => (await system.upstream.callsBy())[marker] ?? 0,
      (calls) => calls === 1,
      30_000,
    )
  const stop = async (worker: Awaited<ReturnType<System['started']>>): Promise<void> => {
    worker.signal('SIGTERM')
    expect(await worker.exited).toMatchObject({ code: 0 })
  }

  test('a failing provider is asked again with backoff, and a refusal ends the job', async () => {
    const worker = await system.started('worker')
    await system.upstream.script([
      {
        kind: 'refuse',
        status: 500,
        body: { error: { message: 'oops', type: 'server_error' } },
        match: { marker: 'flaky' },
      },
      {
        kind: 'refuse',
        status: 400,
        body: { error: { message: 'bad', type: 'invalid_request_error' } },
        match: { marker: 'bad' },
      },
    ])
    const flaky = await submit(address, 'flaky', chat('flaky'), 30)
    expect(flaky.body.state).toBe('succeeded')
    expect((await ledger(system, flaky.body.id)).map(({ outcome, billing }) => [outcome, billing])).toEqual([
      ['failed', 'none'],
      ['answered', 'billed'],
    ])
    const bad = await submit(address, 'bad', chat('bad'), 30)
    expect(bad.body).toMatchObject({ state: 'failed', error: { code: 'provider_rejected', retryable: false } })
    // Errors are not answers: the same key runs again, and costs nothing twice.
    const again = await submit(address, 'bad', chat('bad'), 30)
    expect([again.status, again.body.state, again.body.generation, again.headers.get('idempotent-replayed')]).toEqual([
      200,
      'succeeded',
      2,
      'false',
    ])
    await stop(worker)
  })

  test('cancelling aborts a running call within a second; its attempt is maybe', async () => {
    const worker = await system.started('worker')
    await system.upstream.script([{ kind: 'hang', match: { marker: 'cancel' } }])
    const { body } = await submit(address, 'cancel', chat('cancel'))
    await untilCalled('cancel')
    const cancelledAt = performance.now()
    expect((await call(address, 'POST', `/v1/jobs/${body.id}/cancel`)).body.state).toBe('cancelled')
    const ended = await until(
      () => ledger(system, body.id),
      (rows) => rows[0]?.outcome !== null,
      5_000,
    )
    expect(performance.now() - cancelledAt).toBeLessThan(1_200)
    expect(ended).toEqual([{ attempt: 1, outcome: 'cancelled', billing: 'maybe' }])
    expect((await call(address, 'GET', `/v1/jobs/${body.id}`)).body.state).toBe('cancelled')
    await stop(worker)
  })

  test('a drain lets running calls finish and takes nothing new; exit code 0', async () => {
    const worker = await system.started('worker')
    await system.upstream.script([{ kind: 'answer', delayMs: 2_000, match: { marker: 'drain' } }])
    const { body } = await submit(address, 'drain', chat('drain'))
    await untilCalled('drain')
    worker.signal('SIGTERM')
    await worker.waitForLine(/worker\.stopping/, 5_000)
    const late = await submit(address, 'late', chat('late'))
    expect(await worker.exited).toMatchObject({ code: 0 })
    expect((await call(address, 'GET', `/v1/jobs/${body.id}`)).body.state).toBe('succeeded')
    expect((await call(address, 'GET', `/v1/jobs/${late.body.id}`)).body.state).toBe('queued')
    const next = await system.started('worker')
    await untilState(address, late.body.id, 'succeeded', 30_000)
    await stop(next)
  })

  test('a drain that runs out of time aborts the call: maybe billed, held or run again by policy', async () => {
    const worker = await system.started('worker', { ASKONCE_DRAIN_SECONDS: '1' })
    await system.upstream.script([
      { kind: 'hang', match: { marker: 'drained-hold' } },
      { kind: 'hang', match: { marker: 'drained-rerun' } },
    ])
    const hold = await submit(address, 'drained-hold', { ...chat('drained-hold'), on_uncertain: 'hold' })
    const rerun = await submit(address, 'drained-rerun', chat('drained-rerun'))
    await untilCalled('drained-hold')
    await untilCalled('drained-rerun')
    await stop(worker)
    expect((await call(address, 'GET', `/v1/jobs/${hold.body.id}`)).body).toMatchObject({
      state: 'uncertain',
      error: { code: 'worker_drained' },
    })
    const next = await system.started('worker')
    await untilState(address, rerun.body.id, 'succeeded', 30_000)
    expect((await ledger(system, rerun.body.id)).map(({ outcome, billing }) => [outcome, billing])).toEqual([
      ['drained', 'maybe'],
      ['answered', 'billed'],
    ])
    await stop(next)
  })

  test('an answer that cannot be stored is spooled, survives a kill, and is delivered by the next start: one call', async () => {
    const dataDir = join(system.directory, 'spooling')
    const env = { ASKONCE_DATA_DIR: dataDir }
    const worker = await system.started('worker', env)
    await system.upstream.script([{ kind: 'answer', delayMs: 1_500, match: { marker: 'spool' } }])
    const { body } = await submit(address, 'spool', { ...chat('spool'), on_uncertain: 'hold' })
    await untilCalled('spool')
    await system.postgres.kill()
    await worker.waitForLine(/spool\.written/, 30_000)
    await worker.kill()
    expect(await readdir(join(dataDir, 'spool'))).toEqual([`${body.id}.1.answer`])
    await system.postgres.restart()
    const next = await system.started('worker', env)
    await next.waitForLine(/spool\.delivered/, 30_000)
    const job = await until(
      async () => (await call(address, 'GET', `/v1/jobs/${body.id}`)).body,
      ({ state }) => state === 'succeeded',
      30_000,
    )
    expect(job.usage).toMatchObject({ paid_attempts: 1, maybe_paid_attempts: 0 })
    expect((await system.upstream.callsBy())['spool']).toBe(1)
    expect(await readdir(join(dataDir, 'spool'))).toEqual([])
    await stop(next)
  })
})
