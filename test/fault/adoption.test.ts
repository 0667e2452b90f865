import { afterAll, beforeAll, expect, test } from 'vitest'
import { chat, ledger, startSystem, submit, until, untilState, type System } from './system.ts'

// DESIGN.md §1.3: never paid twice without somebody having chosen it. With look-ups an answer that was paid for and lost is fetched
// before anything is paid again. Not covered: an answer that the provider stores only after the next call has left.
let system: System
let address: string
beforeAll(async () => {
  system = await startSystem('redis')
  address = (await system.api()).address
  await system.started('janitor')
})
afterAll(() => system.stop())

const on = { OPENAI_LOOK_UP: 'stored' }
const lost = [{ attempt: 1, outcome: 'lost', billing: 'maybe' }]
const adopted = { attempt: 1, outcome: 'answered', billing: 'billed' }
const unsent = { outcome: 'unsent', billing: 'none' }

function storing(user: string, more: object = {}) {
  const job = chat(user)
  return { ...job, request: { ...job.request, seed: 1, store: true }, ...more }
}

const callsOf = async (marker: string): Promise<number> => (await system.upstream.callsBy())[marker] ?? 0

const lookUps = async (): Promise<number> =>
  ((await (await fetch(`${system.upstream.url}/__calls`)).json()) as { look_ups: number }).look_ups

/** Submits a job whose call hangs at the provider, and kills the worker that made it. */
async function lose(marker: string, body: object, env: Record<string, string>, more: object = {}): Promise<string> {
  await system.upstream.script([{ kind: 'hang', match: { marker }, ...more }])
  const worker = await system.started('worker', env)
  const submitted = await submit(address, marker, body)
  await until(
    () => callsOf(marker),
    (calls) => calls === 1,
    30_000,
  )
  await worker.kill()
  return submitted.body.id
}

async function withWorker(env: Record<string, string>, run: () => Promise<void>): Promise<void> {
  const worker = await system.started('worker', env)
  try {
    await run()
    worker.signal('SIGTERM')
    expect(await worker.exited).toMatchObject({ code: 0 })
  } finally {
    // A worker that is left over would take the next test's job.
    await worker.kill()
  }
}

test('policy rerun: the answer of the killed worker is fetched; one call, the successor is never sent', async () => {
  const id = await lose('rerun', storing('rerun'), on)
  await withWorker(on, async () => {
    const job = await untilState(address, id, 'succeeded', 30_000)
    const marks = await system.sql<{ mark: string }>('select mark from attempts where job_id = $1 and attempt = 1', [
      id,
    ])
    expect(job.response).toMatchObject({ metadata: { askonce_attempt: marks[0]?.mark }, object: 'chat.completion' })
    const rows = await until(
      () => ledger(system, id),
      (found) => found[1]?.outcome === 'unsent',
      10_000,
    )
    expect(rows).toEqual([adopted, { attempt: 2, ...unsent }])
    expect(await callsOf('rerun')).toBe(1)
    const { usage } = await untilState(address, id, 'succeeded', 1_000)
    expect(usage).toMatchObject({ paid_attempts: 1, maybe_paid_attempts: 0 })
    // What the user sent is stored as it was sent, and the key still fits it.
    expect((await submit(address, 'rerun', storing('rerun'))).status).toBe(200)
    const [row] = await system.sql<{ marked: boolean }>(
      `select position('askonce_attempt'::bytea in request) > 0 as marked from requests where job_id = $1`,
      [id],
    )
    expect(row?.marked).toBe(false)
  })
})

test('policy hold: the held job is answered without a decision and without a second attempt', async () => {
  const id = await lose('hold', storing('hold', { on_uncertain: 'hold' }), on)
  await untilState(address, id, 'uncertain', 10_000)
  expect(await ledger(system, id)).toEqual(lost)
  await withWorker(on, async () => {
    await untilState(address, id, 'succeeded', 30_000)
    expect(await ledger(system, id)).toEqual([adopted])
    expect(await callsOf('hold')).toBe(1)
  })
})

test('policy hold, the provider away for the hours of all four look-ups: it is asked when it is back', async () => {
  const id = await lose('outage', storing('outage', { on_uncertain: 'hold' }), on)
  await untilState(address, id, 'uncertain', 15_000)
  await system.sql(`update jobs set uncertain_since = now() - interval '2 hours' where id = $1`, [id])
  await system.upstream.script([{ kind: 'look_up_fails', status: 503, times: 2 }])
  const before = await lookUps()
  await withWorker(on, async () => {
    await untilState(address, id, 'succeeded', 20_000)
    expect(await ledger(system, id)).toEqual([adopted])
    expect(await callsOf('outage')).toBe(1)
    // Two that failed, and the two GETs of the one that found it: the pace is bounded.
    expect((await lookUps()) - before).toBe(4)
  })
})

test.each([
  ['off', storing('off'), {}, {}],
  ['without store', chat('without store'), on, {}],
  ['not found', storing('not found'), on, { storedAfterMs: 600_000 }],
])('%s: the policy decides as ever, two calls', async (marker, body, env, more) => {
  const id = await lose(marker, body, env, more)
  await withWorker(env, async () => {
    await untilState(address, id, 'succeeded', 30_000)
    expect(await ledger(system, id)).toEqual([...lost, { ...adopted, attempt: 2 }])
    expect(await callsOf(marker)).toBe(2)
  })
})

test('the look-up fails: nothing is paid until it answers', async () => {
  const id = await lose('fails', storing('fails'), on)
  await system.upstream.script([{ kind: 'look_up_fails', status: 503, times: 2 }])
  await withWorker(on, async () => {
    await untilState(address, id, 'succeeded', 60_000)
    const rows = await until(
      () => ledger(system, id),
      (found) => found.at(-1)?.outcome === 'unsent',
      10_000,
    )
    expect(rows).toEqual([adopted, { attempt: 2, ...unsent }, { attempt: 3, ...unsent }, { attempt: 4, ...unsent }])
    expect(await callsOf('fails')).toBe(1)
  })
})

test('the look-up fails for good: the job is held when its tries are used up, unpaid', async () => {
  const id = await lose('for good', storing('for good', { max_attempts: 2 }), on)
  await until(
    () => ledger(system, id),
    (rows) => rows[0]?.outcome === 'lost',
    15_000,
  )
  await system.upstream.script([{ kind: 'look_up_fails', status: 401, times: 1_000 }])
  await withWorker(on, async () => {
    const job = await untilState(address, id, 'uncertain', 30_000)
    expect(job.error?.code).toBe('look_up_failed')
    expect(job.usage).toMatchObject({ paid_attempts: 0, maybe_paid_attempts: 1 })
    expect(await ledger(system, id)).toEqual([...lost, { attempt: 2, ...unsent }])
    expect(await callsOf('for good')).toBe(1)
  })
})
