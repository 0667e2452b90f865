import { setTimeout as sleep } from 'node:timers/promises'
import type { Child } from '@askonce/testkit'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { chat, ledger, startSystem, submit, until, untilState, type Form, type System } from './system.ts'

const policies = ['rerun', 'hold', 'fail'] as const
/** Of each policy. */
const jobsOfPolicy = 5
/** The upstream answers in the time-out of the calls; nobody reads it before that is over. */
const answerAfterMs = 2_000
const timeoutSeconds = 5
const stoppedMs = 7_000

// DESIGN.md §1.3 and §4: what has arrived counts. Nobody pays a second time because a process stood still while its answer came: a
// time-out, or a lease that nobody watched, is judged after what the sockets hold has been read.
// Not covered: a worker that stands still for longer than its lease while a janitor goes on is rightly declared dead. Under `rerun` its call
// is then paid for again, by choice (zombie); under the other policies its late answer is adopted, which is tried here.
describe.each<Form>(['redis', 'embedded'])('FAULTS 13, thawed with the answer in the socket (%s form)', (form) => {
  let system: System
  let address: string
  beforeEach(async () => {
    system = await startSystem(form)
    address = (await system.api()).address
  }, 120_000)
  afterEach(() => system.stop())

  /** Jobs of these policies whose calls have arrived at the upstream; keys and ids. */
  const running = async (wanted: readonly (typeof policies)[number][]): Promise<Map<string, string>> => {
    const ids = new Map<string, string>()
    const keys = wanted.flatMap((policy) => Array.from({ length: jobsOfPolicy }, (_, index) => ({ policy, index })))
    await system.upstream.script([{ kind: 'answer', delayMs: answerAfterMs, times: keys.length }])
    for (const { policy, index } of keys) {
      const key = `${policy}-${index}`
      const job = { ...chat(key), on_uncertain: policy, timeout_seconds: timeoutSeconds }
      ids.set(key, (await submit(address, key, job)).body.id)
    }
    await until(system.upstream.calls, (calls) => calls === keys.length, 30_000)
    return ids
  }
  /** Every job has the answer of its one call, and no worker was declared dead unless that is expected. */
  const expectOneCallEach = async (ids: Map<string, string>, dead = 0): Promise<void> => {
    for (const id of ids.values()) {
      await untilState(address, id, 'succeeded', 30_000)
      expect(await ledger(system, id)).toEqual([{ attempt: 1, outcome: 'answered', billing: 'billed' }])
    }
    expect(await system.upstream.callsBy()).toEqual(Object.fromEntries([...ids.keys()].map((key) => [key, 1])))
    expect(await system.sql('select 1 from workers where dead')).toHaveLength(dead)
  }
  const both = async (env: Record<string, string> = {}): Promise<{ janitor: Child; worker: Child }> => {
    const janitor = await system.started('janitor', env)
    return { janitor, worker: await system.started('worker', env) }
  }

  test.each([
    { name: 'both at once', janitorFirstMs: 0 },
    {
      name: 'the janitor seconds before the worker, whose silence is longer than its lease by then',
      janitorFirstMs: 2_000,
    },
  ])(
    'worker and janitor stopped beyond the time-out and the lease, then continued: $name',
    async ({ janitorFirstMs }) => {
      const { janitor, worker } = await both()
      const ids = await running(policies)
      for (const child of [worker, janitor]) child.signal('SIGSTOP')
      await sleep(stoppedMs)
      janitor.signal('SIGCONT')
      await sleep(janitorFirstMs)
      worker.signal('SIGCONT')
      await expectOneCallEach(ids)
    },
    60_000,
  )

  test('the event loop of the worker held up beyond the time-out, the janitor awake', async () => {
    const holdLoop = new URL('hold-loop.js', import.meta.url).href
    const { worker } = await both({
      // Longer than the silence: this is about the time-out alone.
      ASKONCE_LEASE_SECONDS: '20',
      NODE_OPTIONS: `--import ${holdLoop}`,
      ASKONCE_TEST_HOLD_MS: String(stoppedMs),
    })
    const ids = await running(policies)
    worker.signal('SIGUSR2')
    await expectOneCallEach(ids)
  }, 60_000)

  test('the worker alone stopped until it was declared dead: its answers are adopted', async () => {
    const { worker } = await both({ ASKONCE_LEASE_SECONDS: '3' })
    const ids = await running(['hold', 'fail'])
    worker.signal('SIGSTOP')
    for (const [key, id] of ids) {
      await untilState(address, id, key.startsWith('hold') ? 'uncertain' : 'failed', 30_000)
    }
    // Stopped for longer than the calls may take.
    await sleep(timeoutSeconds * 1_000)
    worker.signal('SIGCONT')
    await expectOneCallEach(ids, 1)
  }, 60_000)
})
