import { leakCheck } from '@askonce/testkit'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { chat, startHarness, type Harness } from './harness.ts'

let harness: Harness

beforeAll(async () => {
  harness = await startHarness()
})
afterAll(async () => {
  await harness.stop()
  await leakCheck()
})

/** What takes long where there is much: here because somebody holds the table. */
async function whileHeld(table: string, work: () => Promise<void>): Promise<void> {
  const client = new pg.Client({ connectionString: harness.adminUrl })
  await client.connect()
  try {
    await client.query(`begin; lock table ${table}`)
    await work()
  } finally {
    await client.end()
  }
}

/** Statements of the API that wait for the table. */
async function waiting(table: string): Promise<number> {
  const [row] = await harness.sql(
    `select count(*)::int as n from pg_locks where not granted and relation = '${table}'::regclass`,
  )
  return Number(row?.['n'])
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 3_000
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error('not within three seconds')
    await sleep(20)
  }
}

const filter = { metadata: { customer: '17' } }
const costly: [name: string, table: string, method: string, path: () => string, body?: object][] = [
  ['erasing', 'attempts', 'POST', () => '/v1/attempts/erase', { filter }],
  ['forgetting by a filter', 'jobs', 'POST', () => '/v1/jobs/bulk/delete', { filter, dry_run: true }],
  ['spend', 'attempts', 'GET', () => '/v1/spend?metadata=customer=17'],
  ['a list', 'jobs', 'GET', () => '/v1/jobs?metadata=customer=17'],
  ['the ledger of a key', 'attempts', 'GET', () => '/v1/attempts?key=one'],
  ['stored completions', 'jobs', 'GET', () => '/openai/v1/chat/completions'],
  ['results of a batch', 'batch_lines', 'GET', () => `/openai/v1/batches/${batchId}/lines`],
]
let batchId = ''

// DESIGN.md §7: no read of one tenant takes the connections that others submit with.
describe('a call whose cost follows what is stored', () => {
  beforeAll(async () => {
    const form = new FormData()
    form.set('purpose', 'batch')
    form.set('file', new Blob(['{}\n']), 'a.jsonl')
    const headers = { authorization: `Bearer ${await harness.keyFor('greedy')}` }
    const file = await fetch(`${harness.api.address}/openai/v1/files`, { method: 'POST', headers, body: form })
    const { id } = (await file.json()) as { id: string }
    const key = await harness.keyFor('greedy')
    const body = { input_file_id: id, endpoint: '/v1/chat/completions', completion_window: '24h' }
    batchId = (await harness.call('POST', '/openai/v1/batches', { key, body })).json.id
  })

  it.each(costly)('%s ends in Postgres when its caller goes', async (_name, table, method, path, body) => {
    const key = await harness.keyFor('greedy')
    await whileHeld(table, async () => {
      const caller = new AbortController()
      const asked = harness.call(method, path(), {
        key,
        signal: caller.signal,
        ...(body === undefined ? {} : { body }),
      })
      asked.catch(() => undefined)
      await until(async () => (await waiting(table)) === 1)
      caller.abort()
      await expect(asked).rejects.toMatchObject({ name: 'AbortError' })
      await until(async () => (await waiting(table)) === 0)
    })
  })

  it('a client that leaves before its answer begins is no failure of ours', async () => {
    await whileHeld('jobs', async () => {
      const caller = new AbortController()
      const jobs = ['one', 'two'].map((key) => Object.assign(chat(key), { key: `left ${key}` }))
      const asked = harness.call('POST', '/v1/jobs/bulk', { body: { jobs }, signal: caller.signal })
      asked.catch(() => undefined)
      await until(async () => (await waiting('jobs')) > 0)
      caller.abort()
      await expect(asked).rejects.toMatchObject({ name: 'AbortError' })
    })
    // What was committed meanwhile is there all the same.
    await until(async () => (await harness.call('GET', '/v1/jobs?key=left%20two')).json.data.length === 1)
    expect(harness.lines.filter(({ event }) => event === 'request.failed')).toEqual([])
  })

  it.each(costly.filter(([, table]) => table !== 'jobs'))(
    '%s, 24 times at once, leaves others their connections',
    async (_name, table, method, path, body) => {
      const key = await harness.keyFor('greedy')
      const other = await harness.keyFor('other')
      await whileHeld(table, async () => {
        const callers = new AbortController()
        const all = Array.from({ length: 24 }, () =>
          harness.call(method, path(), { key, signal: callers.signal, ...(body === undefined ? {} : { body }) }),
        )
        const settled = Promise.allSettled(all)
        await until(async () => (await waiting(table)) > 0)
        const began = performance.now()
        const headers = { 'idempotency-key': `beside ${table} ${path()}` }
        const reply = await harness.call('POST', '/v1/jobs', { key: other, headers, body: chat('beside') })
        expect(reply.status).toBe(202)
        expect((await harness.call('GET', '/readyz')).status).toBe(200)
        expect(performance.now() - began).toBeLessThan(3_000)
        expect(await waiting(table)).toBeLessThanOrEqual(2)
        callers.abort()
        await settled
      })
    },
  )
})
