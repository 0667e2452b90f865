import assert from 'node:assert/strict'
import type { Child } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { apiKey, call, chat, ledger, startSystem, submit, until, untilState, type Form, type System } from './system.ts'
import { answer, cases, hang, none } from './zombie-cases.ts'

// DESIGN.md §1.2 and §1.3: an answer once read never changes, and what was paid for is in the ledger, whoever comes late.
// Not covered: the money. A frozen worker looks like a dead one, so under `rerun` its call is paid for twice.
describe.each<Form>(['redis', 'embedded'])(
  'FAULTS 6, a worker frozen beyond its lease and thawed (%s form)',
  (form) => {
    let system: System
    let address: string
    let zombie: Child
    const ids = new Map<string, string>()
    /** The stored answers as they were read before the thaw, by path. */
    const read = new Map<string, string>()

    const idOf = (key: string): string => ids.get(key) as string
    const withKey = (meanwhile: string): string[] =>
      cases.filter((one) => one.meanwhile === meanwhile).map(({ key }) => key)
    const bytes = async (id: string): Promise<string> => {
      const headers = { authorization: `Bearer ${apiKey}` }
      const response = await fetch(`${address}/v1/jobs/${id}/response`, { headers })
      assert.equal(response.status, 200)
      return Buffer.from(await response.arrayBuffer()).toString('hex')
    }
    const upstreamSays = async (): Promise<{ arrivals: number; in_flight: number }> =>
      (await (await fetch(`${system.upstream.url}/__calls`)).json()) as { arrivals: number; in_flight: number }
    const workerIds = async (): Promise<Map<string, boolean>> => {
      const rows = await system.sql<{ id: string; dead: boolean }>('select id, dead from workers')
      return new Map(rows.map(({ id, dead }) => [id, dead]))
    }

    beforeAll(async () => {
      system = await startSystem(form)
      address = (await system.api()).address
      await system.started('janitor', { ASKONCE_LEASE_SECONDS: '3', ASKONCE_SWEEP_INTERVAL_SECONDS: '3600' })
      const env = { ASKONCE_LEASE_SECONDS: '3', ASKONCE_DRAIN_SECONDS: '0' }
      zombie = await system.started('worker', env)
      await system.upstream.script(
        cases.flatMap(({ key, late, next }) =>
          [late, next]
            .filter((step) => step !== undefined)
            .map((step) => Object.assign({ match: { marker: key } }, step)),
        ),
      )
      for (const { key, policy } of cases) {
        const { status, body } = await submit(address, key, { ...chat(key), on_uncertain: policy })
        assert.equal(status, 202)
        ids.set(key, body.id)
      }
      await until(upstreamSays, ({ arrivals }) => arrivals === cases.length, 30_000)
      zombie.signal('SIGSTOP')
      const untouched = await system.sql(`select 1 from jobs where state = 'running' and attempt = 1`)
      assert.equal(untouched.length, cases.length)

      // Seen dead: everything is taken from it. One job is kept from the successor, so that it stays queued.
      await until(
        () => system.sql(`select 1 from attempts where outcome = 'lost'`),
        (rows) => rows.length === cases.length,
        20_000,
      )
      await system.sql(`update jobs set run_at = now() + interval '1 hour' where idempotency_key = $1`, [
        'answered, queued',
      ])
      await system.started('worker', env)
      for (const key of withKey('succeeded')) await untilState(address, idOf(key), 'succeeded', 30_000)
      for (const key of withKey('running')) {
        await until(
          system.upstream.callsBy,
          (calls) => calls[key] === (key.startsWith('refused') || key.startsWith('released') ? 1 : 2),
          30_000,
        )
      }
      assert.equal((await call(address, 'POST', `/v1/jobs/${idOf('answered, cancelled')}/cancel`)).status, 200)
      // Its attempt may have been paid, so forgetting it needs consent.
      const path = `/v1/jobs/${idOf('answered, deleted')}`
      assert.equal((await call(address, 'DELETE', path)).status, 400)
      assert.equal((await call(address, 'DELETE', `${path}?accept_duplicate_charge=true`)).status, 200)
      // The key whose job has expired is taken over by a new job, with an answer of its own.
      await system.sql(
        `update jobs set expires_at = now() - interval '1 second' where idempotency_key like 'answered, expired%'`,
      )
      const taken = await submit(address, 'answered, expired', chat('answered, expired'), 30)
      assert.deepEqual([taken.status, taken.body.state], [200, 'succeeded'])
      assert.notEqual(taken.body.id, idOf('answered, expired'))
      for (const { key, meanwhile } of cases) {
        const reply = await call(address, 'GET', `/v1/jobs/${idOf(key)}`)
        assert.deepEqual([key, reply.status === 404 ? 'gone' : reply.body.state], [key, meanwhile])
      }
      for (const id of [taken.body.id, ...withKey('succeeded').map(idOf)]) read.set(id, await bytes(id))

      // Its calls have been answered while it could not read.
      const hanging = cases.flatMap(({ late, next }) => [late, next]).filter((one) => one === hang).length
      await until(upstreamSays, (said) => said.in_flight === hanging, 20_000)
      zombie.signal('SIGCONT')
      await zombie.waitForLine(/"event":"worker\.id_changed"/, 30_000)
      // Of the first attempts: it may run a rerun as well.
      const ends = (): Promise<string[]> =>
        Promise.resolve(zombie.stdout.filter((line) => /"event":"attempt\.ended".*"attempt":1,/.test(line)))
      await until(ends, (lines) => lines.length === cases.filter(({ late }) => late !== hang).length, 30_000)
    }, 180_000)
    afterAll(() => system.stop())

    test.each(cases)('$policy: $key', async ({ key, after, ledger: expected }) => {
      const id = idOf(key)
      const pairs = async (): Promise<unknown[]> =>
        (await ledger(system, id)).map(({ outcome, billing }) => [outcome, billing])
      await until(pairs, (rows) => JSON.stringify(rows) === JSON.stringify(expected), 15_000)
      const rows = await system.sql<{ state: string; answer_attempt: number | null; paid: number; attempt: number }>(
        'select state, answer_attempt, paid, attempt from jobs where id = $1',
        [id],
      )
      const [state, answered] = after
      const paid = expected.filter(([, billing]) => billing !== none).length
      const wanted = { state, answer_attempt: answered, paid, attempt: expected.length }
      expect(rows).toEqual(state === 'gone' ? [] : [wanted])
    })

    test('answers that were read before the thaw are the same bytes after it', async () => {
      expect(read.size).toBe(3)
      for (const [id, before] of read) expect(await bytes(id)).toBe(before)
      const [key = ''] = withKey('succeeded')
      const again = await submit(address, key, chat(key))
      expect([again.status, again.headers.get('idempotent-replayed')]).toEqual([200, 'true'])
    })

    test('the thawed worker has a new id, the old one stays dead, and new work is done under the new one', async () => {
      const changed = zombie.stdout.filter((line) => line.includes('"worker.id_changed"'))
      expect(changed).toHaveLength(1)
      const newId = (JSON.parse(changed[0] as string) as { worker: string }).worker
      const [old] = await system.sql<{ worker_id: string }>(
        'select distinct worker_id from attempts where attempt = 1 and outcome = $1',
        ['surplus'],
      )
      const known = await workerIds()
      expect([known.get(old?.worker_id as string), known.get(newId)]).toEqual([true, false])
      // Enough jobs at once that both workers get some.
      const list = Array.from({ length: 120 }, (_, index) => ({ key: `new-${index}`, ...chat(`new-${index}`) }))
      await system.upstream.script([{ ...answer, delayMs: 1_000, times: 120 }])
      expect((await call(address, 'POST', '/v1/jobs/bulk', { body: { jobs: list } })).status).toBe(200)
      await until(
        () => system.sql(`select 1 from jobs where idempotency_key like 'new-%' and state = 'succeeded'`),
        (rows) => rows.length === list.length,
        30_000,
      )
      const done = await system.sql<{ worker_id: string }>(
        `select distinct worker_id from attempts where idempotency_key like 'new-%'`,
      )
      expect(done.map(({ worker_id: id }) => id)).toContain(newId)
      expect(done.map(({ worker_id: id }) => id)).not.toContain(old?.worker_id)
    })

    test('what the zombie still has in hand when it is told to stop is given up without touching the jobs', async () => {
      zombie.signal('SIGTERM')
      expect(await zombie.exited).toMatchObject({ code: 0 })
      expect(await ledger(system, idOf('drained, running'))).toMatchObject([
        { outcome: 'lost', billing: 'maybe' },
        { outcome: null },
      ])
      const { body } = await call(address, 'GET', `/v1/jobs/${idOf('drained, running')}`)
      expect([body.state, body.attempts]).toEqual(['running', 2])
    })
  },
)
