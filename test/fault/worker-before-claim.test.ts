import { startTcpProxy, type TcpProxy } from '@askonce/testkit'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { chat, ledger, startSystem, submit, until, untilState, type Form, type System } from './system.ts'

// DESIGN.md §1.3 and §8: a worker that dies before its claim commits costs nothing and is replaced within 10 s; a claim whose reply was
// lost is never sent. Not covered: a worker that dies between the commit of its claim and the call. From outside that looks like a call
// that was made, and costs a maybe.
describe.each<Form>(['redis', 'embedded'])('FAULTS 3, worker killed before its claim commits (%s form)', (form) => {
  let system: System
  let address: string
  beforeAll(async () => {
    system = await startSystem(form)
    address = (await system.api()).address
    await system.started('janitor')
  })
  afterAll(() => system.stop())

  test('another worker runs the job within 10 s: one call, one attempt', async () => {
    // It stands before its first claim, and takes the wake-up of the job with it.
    const doomed = await system.started('worker', { ASKONCE_TEST_PAUSE: 'worker.claiming' })
    await doomed.waitForLine(/paused at worker\.claiming/, 30_000)
    const { body } = await submit(address, 'woken', chat('woken'))
    const successor = await system.started('worker')
    await doomed.kill()
    const killedAt = performance.now()
    await untilState(address, body.id, 'succeeded', 10_000)
    expect(performance.now() - killedAt).toBeLessThan(10_000)
    expect(await ledger(system, body.id)).toEqual([{ attempt: 1, outcome: 'answered', billing: 'billed' }])
    expect((await system.upstream.callsBy())['woken']).toBe(1)
    successor.signal('SIGTERM')
    expect(await successor.exited).toMatchObject({ code: 0 })
  })

  test('a worker killed after its claim but before sending is taken for one that may have sent', async () => {
    // What the guard does not cover: from outside, a claim that was never sent looks like one that was. It costs a maybe.
    const doomed = await system.started('worker', { ASKONCE_TEST_PAUSE: 'worker.claimed' })
    const { body } = await submit(address, 'claimed', { ...chat('claimed'), on_uncertain: 'hold' })
    await doomed.waitForLine(/paused at worker\.claimed/, 30_000)
    await doomed.kill()
    await untilState(address, body.id, 'uncertain', 10_000)
    expect(await ledger(system, body.id)).toEqual([{ attempt: 1, outcome: 'lost', billing: 'maybe' }])
  })
})

describe('FAULTS 3, the reply of a claim is lost (redis form)', () => {
  let system: System
  let proxy: TcpProxy
  beforeAll(async () => {
    system = await startSystem('redis')
    proxy = await startTcpProxy(Number(new URL(system.database.url).port))
  })
  afterAll(async () => {
    await proxy.close()
    await system.stop()
  })

  test('the worker ends the attempt as never sent at its next beat, and the job costs one call', async () => {
    const throughProxy = new URL(system.database.url)
    throughProxy.port = String(proxy.port)
    const { address } = await system.api()
    await Promise.all([system.started('worker', { DATABASE_URL: throughProxy.href }), system.started('janitor')])

    // Nobody else writes into the ledger here: holding it keeps the claim under way until its reply can be swallowed.
    const holder = new pg.Client(system.database.url)
    holder.on('error', () => undefined)
    await holder.connect()
    await holder.query('begin')
    await holder.query('lock table attempts in share mode')
    const { body } = await submit(address, 'reply-lost', chat('reply-lost'))
    const waiting = (): Promise<unknown[]> =>
      system.sql(`select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like '%claim_jobs%'`)
    await until(waiting, (rows) => rows.length === 1, 5_000)
    proxy.stallReplies()
    await holder.query('commit')
    await holder.end()
    const open = (): Promise<unknown[]> => system.sql('select attempt from attempts where job_id = $1', [body.id])
    await until(open, (rows) => rows.length === 1, 5_000)
    proxy.cutAll()
    proxy.accept()

    await untilState(address, body.id, 'succeeded', 30_000)
    expect(await ledger(system, body.id)).toEqual([
      { attempt: 1, outcome: 'unsent', billing: 'none' },
      { attempt: 2, outcome: 'answered', billing: 'billed' },
    ])
    expect(await system.upstream.calls()).toBe(1)
    const [job] = await system.sql<{ tries: number; paid: number }>('select tries, paid from jobs where id = $1', [
      body.id,
    ])
    expect(job).toEqual({ tries: 1, paid: 1 })
  })
})
