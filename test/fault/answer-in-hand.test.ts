import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { startTcpProxy, type Child } from '@askonce/testkit'
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
  type System,
} from './system.ts'

const answered = { outcome: 'answered', billing: 'billed' }

// DESIGN.md §1.3 and §4: never paid twice unasked, and a storage failure is not a job failure: an answer in hand is stored in the end.
// Not covered: a machine that takes its disk along. What only that spool had is a maybe then, and the policy decides.
// Each starts several processes, and servers again: more than a minute on a busy machine.
describe.each<Form>([formOfRun])(
  'FAULTS 5, answer in hand and Postgres gone (%s form)',
  { timeout: 120_000 },
  (form) => {
    let system: System
    let address: string
    let janitor: Child
    beforeAll(async () => {
      system = await startSystem(form)
      address = (await system.api()).address
      janitor = await system.started('janitor')
    })
    afterAll(() => system.stop())

    const directory = (name: string): string => join(system.directory, name)
    /** A record goes right after the commit of its answer, so not before that answer is seen. */
    const untilDelivered = (name: string): Promise<string[]> =>
      until(
        () => spooled(name),
        (files) => files.length === 0,
        10_000,
      )
    const spooled = (name: string): Promise<string[]> => readdir(join(directory(name), 'spool'))
    const worker = (name: string, env: Record<string, string> = {}): Promise<Child> =>
      system.started('worker', { ASKONCE_DATA_DIR: directory(name), ...env })
    const untilCalled = (markers: string[]): Promise<unknown> =>
      until(
        () => system.upstream.callsBy(),
        (calls) => markers.every((marker) => (calls[marker] ?? 0) > 0),
        30_000,
      )
    const linesOf = (child: Child, event: string): Record<string, unknown>[] =>
      child.stdout
        .filter((line) => line.includes(`"event":"${event}"`))
        .map((line) => JSON.parse(line) as Record<string, unknown>)
    const untilLines = (child: Child, event: string, count: number): Promise<unknown> =>
      until(
        () => Promise.resolve(linesOf(child, event)),
        (lines) => lines.length >= count,
        30_000,
      )
    /** Postgres goes away while these calls run, and their answers land in the spool of the worker. Ids of the jobs, in order. */
    const inHand = async (holder: Child, jobs: Record<string, 'hold' | 'rerun'>): Promise<string[]> => {
      const markers = Object.keys(jobs)
      await system.upstream.script(markers.map((marker) => ({ kind: 'answer', delayMs: 2_000, match: { marker } })))
      const ids: string[] = []
      for (const [marker, policy] of Object.entries(jobs)) {
        ids.push((await submit(address, marker, { ...chat(marker), on_uncertain: policy })).body.id)
      }
      await untilCalled(markers)
      await system.postgres.kill()
      await untilLines(holder, 'spool.written', markers.length)
      return ids
    }
    const stop = async (child: Child): Promise<void> => {
      child.signal('SIGTERM')
      expect(await child.exited).toMatchObject({ code: 0 })
    }
    /** Stored once, by the first attempt, and paid once. */
    const expectOnce = async (id: string, marker: string): Promise<void> => {
      await untilState(address, id, 'succeeded', 30_000)
      expect(await ledger(system, id)).toEqual([{ attempt: 1, ...answered }])
      expect((await system.upstream.callsBy())[marker]).toBe(1)
    }

    test('for 20 seconds, three leases: nobody is called dead, every answer is stored, each call was made once', async () => {
      // Not covered: a machine that loses its disk with the spool on it. Its jobs are maybe billed, and their policy decides.
      const holder = await worker('waits')
      const [held = '', rerun = ''] = await inHand(holder, { 'waits-hold': 'hold', 'waits-rerun': 'rerun' })
      expect(await spooled('waits')).toHaveLength(2)
      await sleep(20_000)
      await system.postgres.restart()
      await expectOnce(held, 'waits-hold')
      await expectOnce(rerun, 'waits-rerun')
      await untilLines(holder, 'spool.delivered', 2)
      await untilDelivered('waits')
      expect(linesOf(janitor, 'worker.declared_dead')).toEqual([])
      // One outage is one line, however often it was tried.
      expect(linesOf(holder, 'spool.written')).toHaveLength(2)
      await stop(holder)
    })

    test('SIGTERM while waiting: exit 0, for they are on disk; a worker that starts before Postgres does delivers them', async () => {
      const holder = await worker('stopped', { ASKONCE_DRAIN_SECONDS: '1' })
      const [held = '', rerun = ''] = await inHand(holder, { 'stopped-hold': 'hold', 'stopped-rerun': 'rerun' })
      await stop(holder)
      expect(await spooled('stopped')).toHaveLength(2)
      const next = system.spawn('worker', { ASKONCE_DATA_DIR: directory('stopped') })
      await next.waitForLine(/"event":"store\.unavailable"/, 30_000)
      await system.postgres.restart()
      await expectOnce(held, 'stopped-hold')
      await expectOnce(rerun, 'stopped-rerun')
      await untilLines(next, 'spool.delivered', 2)
      await untilDelivered('stopped')
      await stop(next)
    })

    test('SIGKILL while waiting, started again before the death is seen: one call, under the policy rerun too', async () => {
      const holder = await worker('killed')
      const [held = '', rerun = ''] = await inHand(holder, { 'killed-hold': 'hold', 'killed-rerun': 'rerun' })
      await holder.kill()
      const next = system.spawn('worker', { ASKONCE_DATA_DIR: directory('killed') })
      await next.waitForLine(/"event":"store\.unavailable"/, 30_000)
      await system.postgres.restart()
      await expectOnce(held, 'killed-hold')
      await expectOnce(rerun, 'killed-rerun')
      await stop(next)
    })

    test('SIGKILL while waiting, started again long after: one call under hold, and the late answer is adopted', async () => {
      // Not covered: under rerun the second call is made once the death is seen. That is what the policy asks for.
      const holder = await worker('late')
      const [held = ''] = await inHand(holder, { 'late-hold': 'hold' })
      await holder.kill()
      await system.postgres.restart()
      await untilState(address, held, 'uncertain', 30_000)
      expect(await ledger(system, held)).toEqual([{ attempt: 1, outcome: 'lost', billing: 'maybe' }])
      const next = await worker('late')
      await expectOnce(held, 'late-hold')
      await untilDelivered('late')
      await stop(next)
    })

    test('the job was cancelled, has expired, was swept, deleted, or answered by a rerun: the answer is in the ledger only', async () => {
      const holder = await worker('over')
      const kinds = ['cancelled', 'expired', 'swept', 'deleted'] as const
      const jobs = Object.fromEntries(kinds.map((kind) => [`over-${kind}`, 'hold' as const]))
      const ids = await inHand(holder, { ...jobs, 'over-rerun': 'rerun' })
      const [cancelled = '', expired = '', swept = '', deleted = '', rerun = ''] = ids
      await holder.kill()
      await system.postgres.restart()
      const other = await worker('elsewhere')
      for (const id of [cancelled, expired, swept, deleted]) await untilState(address, id, 'uncertain', 30_000)
      const second = await untilState(address, rerun, 'succeeded', 30_000)
      for (const id of [cancelled, expired, swept, deleted]) await call(address, 'POST', `/v1/jobs/${id}/cancel`)
      expect((await call(address, 'DELETE', `/v1/jobs/${deleted}?accept_duplicate_charge=true`)).status).toBeLessThan(
        300,
      )
      await system.sql(`update jobs set expires_at = now() - interval '1 second' where id = any($1)`, [
        [expired, swept],
      ])
      await system.sql('delete from jobs where id = $1', [swept])

      const next = await worker('over')
      await untilLines(next, 'spool.delivered', 5)
      expect(linesOf(next, 'spool.delivered').map(({ outcome }) => outcome)).toEqual(Array(5).fill('surplus'))
      const surplus = { attempt: 1, outcome: 'surplus', billing: 'billed' }
      for (const id of [cancelled, expired, swept, deleted]) expect(await ledger(system, id)).toEqual([surplus])
      expect(await ledger(system, rerun)).toEqual([surplus, { attempt: 2, ...answered }])
      expect((await call(address, 'GET', `/v1/jobs/${cancelled}`)).body.state).toBe('cancelled')
      for (const id of [expired, swept, deleted]) {
        expect((await call(address, 'GET', `/v1/jobs/${id}`)).status).toBe(404)
      }
      // An answer once read never changes.
      expect((await call(address, 'GET', `/v1/jobs/${rerun}`)).body.response).toEqual(second.response)
      const calls = await system.upstream.callsBy()
      expect([...kinds, 'rerun'].map((kind) => calls[`over-${kind}`])).toEqual([1, 1, 1, 1, 2])
      await untilDelivered('over')
      await stop(next)
      await stop(other)
    })

    test('the connection is cut right after the COMMIT was sent: the stored answer is known as its own, paid once', async () => {
      const proxy = await startTcpProxy(Number(new URL(system.database.url).port))
      try {
        const throughProxy = new URL(system.database.url)
        throughProxy.port = String(proxy.port)
        const holder = await worker('unclear', { DATABASE_URL: throughProxy.href })
        const lost = proxy.loseReplyTo('recorded as (')
        const { body } = await submit(address, 'unclear', { ...chat('unclear'), on_uncertain: 'hold' })
        await lost
        // Committed: others read it before its worker knows.
        await expectOnce(body.id, 'unclear')
        await untilLines(holder, 'attempt.ended', 1)
        expect(linesOf(holder, 'attempt.ended')).toMatchObject([
          { job_id: body.id, outcome: 'answered', state: 'succeeded' },
        ])
        expect(await system.sql('select billed, paid from jobs where id = $1', [body.id])).toEqual([
          { billed: 1, paid: 1 },
        ])
        await untilDelivered('unclear')
        await stop(holder)
      } finally {
        await proxy.close()
      }
    })

    test('Postgres frozen as an answer comes that would open its lane again: on disk within seconds, and a kill loses nothing', async () => {
      const holder = await worker('frozen')
      // The lane counts failures, so its next answer has something to write about it.
      const error = { message: 'busy', type: 'server_error', code: null, param: null }
      await system.upstream.script([
        {
          kind: 'refuse',
          status: 503,
          headers: { 'retry-after': '3600' },
          body: { error },
          match: { marker: 'frozen-refused' },
        },
        { kind: 'answer', delayMs: 2_000, match: { marker: 'frozen' } },
      ])
      await submit(address, 'frozen-refused', chat('frozen-refused'))
      await until(
        () => system.sql(`select 1 from lanes where failures > 0`),
        (rows) => rows.length > 0,
        30_000,
      )
      const { body } = await submit(address, 'frozen', { ...chat('frozen'), on_uncertain: 'hold' })
      await untilCalled(['frozen'])
      system.postgres.pause()
      const frozenAt = performance.now()
      await untilLines(holder, 'spool.written', 1)
      // Two seconds for the answer, two until it counts as not stored.
      expect(performance.now() - frozenAt).toBeLessThan(6_000)
      await holder.kill()
      system.postgres.resume()
      const next = await worker('frozen')
      await expectOnce(body.id, 'frozen')
      await untilDelivered('frozen')
      await stop(next)
    })
  },
)
