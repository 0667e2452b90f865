import { afterAll, beforeAll, expect, test } from 'vitest'
import { apiKey, chat, ledger, run, startSystem, until, untilState, type System } from './system.ts'

// DESIGN.md §1.2, and FAULTS 16: no job ever takes an answer that was not its own attempt's. Whatever a caller may write (metadata,
// headers, keys, names of files) stands for no attempt. The look-ups of lost answers are where the provider is asked for an answer by a
// name, so a neighbour tries to answer for the job that is held there.
// Not covered: somebody who reads the database or the provider's account, and so knows the marks of attempts.
let system: System
let address: string
let neighbour: string
const on = { OPENAI_LOOK_UP: 'stored' }

beforeAll(async () => {
  system = await startSystem('redis')
  address = (await system.api()).address
  await system.started('janitor')
  const made = await run(system, ['keys', 'create', '--tenant', 'neighbour', '--name', 'n', '--scopes', 'submit,read'])
  neighbour = made.stdout.split('\n').find((line) => line.startsWith('ak_')) as string
})
afterAll(() => system.stop())

async function post(key: string, name: string, body: object, headers: Record<string, string> = {}) {
  const response = await fetch(`${address}/v1/jobs`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${key}`,
      'content-type': 'application/json',
      'idempotency-key': name,
      ...headers,
    },
    body: JSON.stringify(body),
  })
  return { status: response.status, body: (await response.json()) as { id: string; code?: string; error?: unknown } }
}

function storing(user: string, metadata: Record<string, string>) {
  const job = chat(user)
  return { ...job, request: { ...job.request, store: true, metadata }, on_uncertain: 'hold' }
}

/** A job of the first tenant whose call left and was lost, so that it is held. */
async function held(name: string): Promise<string> {
  await system.upstream.script([{ kind: 'hang', match: { marker: name }, storedAfterMs: 3_600_000 }])
  const worker = await system.started('worker', on)
  const { body } = await post(apiKey, name, storing(name, {}))
  await until(
    async () => (await system.upstream.callsBy())[name] ?? 0,
    (calls) => calls === 1,
    30_000,
  )
  await worker.kill()
  await untilState(address, body.id, 'uncertain', 15_000)
  return body.id
}

test('a neighbour that writes the name of a held attempt is refused, and what reaches the provider otherwise is not taken', async () => {
  const id = await held('victim')
  const names = [`${id}.1`, id]
  for (const [index, name] of names.entries()) {
    const planted = await post(neighbour, `plant-${index}`, storing(`plant-${index}`, { askonce_attempt: name }))
    expect(planted).toMatchObject({ status: 400, body: { code: 'invalid_request' } })
  }
  // Everything else that a caller may write, with the names that it knows.
  const worker = await system.started('worker', on)
  for (const [index, name] of names.entries()) {
    const answered = await post(
      neighbour,
      name,
      { ...storing(`other-${index}`, { attempt: name, Xaskonce_attempt: name }), metadata: { askonce_attempt: name } },
      { prefer: 'wait=30', 'x-request-id': name },
    )
    expect(answered).toMatchObject({ status: 200, body: { state: 'succeeded' } })
  }
  // A look-up takes place: at the start of the worker, and again for what is planted at the provider itself, under the old name.
  await fetch(`${system.upstream.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'gpt-test', store: true, metadata: { askonce_attempt: `${id}.1` }, messages: [] }),
  })
  await system.sql(`update jobs set uncertain_since = now() - interval '2 hours' where id = $1`, [id])
  const looked = async () =>
    ((await (await fetch(`${system.upstream.url}/__calls`)).json()) as { look_ups: number }).look_ups
  const before = await looked()
  await until(looked, (count) => count > before, 30_000)
  expect((await untilState(address, id, 'uncertain', 1_000)).response).toBeNull()
  expect(await ledger(system, id)).toEqual([{ attempt: 1, outcome: 'lost', billing: 'maybe' }])
  await worker.kill()
})

test('marks are random, one for each attempt, and appear in nothing that a caller sees of a job without an answer', async () => {
  const rows = await system.sql<{ mark: string; job_id: string }>('select mark, job_id from attempts')
  expect(rows.length).toBeGreaterThan(2)
  expect(new Set(rows.map(({ mark }) => mark)).size).toBe(rows.length)
  const [lost] = await system.sql<{ mark: string; job_id: string }>(
    `select mark, job_id from attempts where billing = 'maybe'`,
  )
  for (const path of ['', '/attempts', '/decisions']) {
    const response = await fetch(`${address}/v1/jobs/${lost?.job_id}${path}`, {
      headers: { authorization: `Bearer ${apiKey}` },
    })
    expect(response.status).toBe(200)
    expect(await response.text()).not.toContain(lost?.mark)
  }
})
