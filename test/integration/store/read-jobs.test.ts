import { randomUUID } from 'node:crypto'
import {
  listJobs,
  readAnswers,
  readJobs,
  readRequest,
  readSettled,
  readStreams,
  type JobRef,
  type ListedJob,
  type ListFilter,
} from '@askonce/store'
import { describe, expect, it } from 'vitest'
import { inSeconds, insertJob, useStore } from './fixture.ts'

const store = useStore()

const list = (filter: Partial<ListFilter> & { tenantId: string }): Promise<ListedJob[]> =>
  listJobs(store.db, { limit: 100, ...filter })
const ids = (jobs: readonly { id: string }[]): string[] => jobs.map(({ id }) => id)

/** Follows the cursor to the end; so many rows a page. */
async function pages(filter: Partial<ListFilter> & { tenantId: string }, limit: number): Promise<ListedJob[][]> {
  const all: ListedJob[][] = []
  for (let after: ListFilter['after']; ;) {
    const page = await list({ ...filter, limit, after })
    all.push(page)
    const last = page.at(-1)
    if (last === undefined || page.length < limit) return all
    after = { createdAt: last.cursor_at, id: last.id }
  }
}

describe('readJobs', () => {
  it('reads live jobs by id, with the bytes of the answer and without the request', async () => {
    const response = Buffer.from([0, 255])
    const live = await insertJob(store, {
      state: 'succeeded',
      response,
      expires_at: inSeconds(1),
      metadata: '{"a":"b"}',
    })
    const expired = await insertJob(store, { state: 'succeeded', expires_at: inSeconds(0) })
    const foreign = await insertJob(store, { tenant_id: 'other' })
    const mine = (id: string): JobRef => ({ tenantId: 'default', id })
    const refs = [live, expired, foreign, randomUUID(), live].map(mine)
    const rows = await readJobs(store.db, [...refs, { tenantId: 'other', id: live }])
    expect(ids(rows)).toEqual([live])
    const row = rows.find(({ id }) => id === live)
    expect(row).toMatchObject({ response, metadata: { a: 'b' }, tenant_id: 'default', paid: 1, cost_usd: null })
    expect(row).not.toHaveProperty('request')
    expect(await readJobs(store.db, [])).toEqual([])
  })

  it('reads nothing of a job that is another tenant’s: no row leaves the scan, and with it no answer', async () => {
    const id = await insertJob(store, { state: 'succeeded', response: Buffer.alloc(1024), expires_at: inSeconds(60) })
    const foreign = { tenantId: 'other', id }
    expect(await readJobs(store.db, [foreign])).toEqual([])
    expect(await readAnswers(store.db, [foreign])).toEqual([])
    expect(await readRequest(store.db, foreign)).toBeNull()
    const [page] = await readStreams(store.db, [{ tenantId: 'other', jobId: id, attempt: null, position: 0 }])
    expect(page).toMatchObject({ state: null, length: null, contentType: null })
  })
})

describe('readSettled', () => {
  it('names what a waiter need not wait for: settled, expired or gone', async () => {
    const states = ['succeeded', 'failed', 'cancelled', 'uncertain'] as const
    const settled = await Promise.all(states.map((state) => insertJob(store, { state })))
    const expired = await insertJob(store, { state: 'failed', expires_at: inSeconds(-1) })
    const waiting = [await insertJob(store), await insertJob(store, { state: 'running' })]
    const gone = randomUUID()
    const found = await readSettled(store.db, [...settled, expired, gone, ...waiting])
    expect(found.toSorted()).toEqual([...settled, expired, gone].toSorted())
    expect(await readSettled(store.db, [])).toEqual([])
  })
})

describe('readRequest', () => {
  it('gives the exact bytes and the operation', async () => {
    const request = Buffer.from('{ "n" : 1.0 }')
    const id = await insertJob(store, { request, operation: 'messages' })
    expect(await readRequest(store.db, { tenantId: 'default', id })).toEqual({ operation: 'messages', request })
    expect(await readRequest(store.db, { tenantId: 'default', id: randomUUID() })).toBeNull()
  })
})

describe('listJobs', () => {
  it('is newest first, of one tenant, without expired jobs and without the bytes of answers', async () => {
    const tenant = { tenant_id: 'newest' }
    const old = await insertJob(store, { ...tenant, state: 'succeeded', created_at: inSeconds(-100) })
    const recent = await insertJob(store, { ...tenant, created_at: inSeconds(-1) })
    const middle = await insertJob(store, {
      ...tenant,
      state: 'failed',
      created_at: inSeconds(-50),
      expires_at: inSeconds(1),
    })
    await insertJob(store, { ...tenant, state: 'failed', expires_at: inSeconds(0) })
    const jobs = await list({ tenantId: 'newest' })
    expect(ids(jobs)).toEqual([recent, middle, old])
    expect(jobs[2]).toMatchObject({ state: 'succeeded', response: null, response_status: 200 })
    expect(await list({ tenantId: 'nobody' })).toEqual([])
  })

  it('pages through jobs of one microsecond, each once, whatever comes meanwhile', async () => {
    const at = '2026-03-01T00:00:00.123456Z'
    const times = [at, at, at, at, '2026-03-01T00:00:00.123457Z', '2026-03-01T00:00:00.123455Z', '2026-03-01T00:00:00Z']
    const made = await Promise.all(times.map((created_at) => insertJob(store, { tenant_id: 'paged', created_at })))
    const expected = await store.query<{ id: string }>(
      `select id from jobs where tenant_id = 'paged' order by created_at desc, id desc`,
    )
    for (const limit of [1, 2, 3, 7, 8]) {
      const seen = (await pages({ tenantId: 'paged' }, limit)).flat()
      expect(ids(seen)).toEqual(ids(expected))
    }
    const [first] = await pages({ tenantId: 'paged' }, 3)
    await insertJob(store, { tenant_id: 'paged' })
    const last = first?.at(-1)
    const after = { createdAt: last?.cursor_at ?? '', id: last?.id ?? '' }
    expect(ids(await list({ tenantId: 'paged', after }))).toEqual(ids(expected).slice(3))
    expect(made).toHaveLength(7)
  })

  it('filters by state, key, time and metadata, each alone and together', async () => {
    const tenantId = 'filtered'
    const make = (columns: Parameters<typeof insertJob>[1]) => insertJob(store, { tenant_id: tenantId, ...columns })
    const times = ['2026-04-01T00:00:00Z', '2026-04-02T00:00:00Z', '2026-04-03T00:00:00Z']
    const a = await make({ created_at: times[0], idempotency_key: 'a', metadata: '{"team":"x","env":"p"}' })
    const b = await make({ created_at: times[1], idempotency_key: 'A', state: 'succeeded', metadata: '{"team":"x"}' })
    const c = await make({ created_at: times[2], idempotency_key: 'a%', state: 'uncertain' })
    expect(ids(await list({ tenantId, state: 'succeeded' }))).toEqual([b])
    expect(ids(await list({ tenantId, state: 'queued' }))).toEqual([a])
    expect(ids(await list({ tenantId, key: 'a' }))).toEqual([a])
    expect(ids(await list({ tenantId, key: 'a%' }))).toEqual([c])
    expect(ids(await list({ tenantId, createdAfter: times[1] }))).toEqual([c])
    expect(ids(await list({ tenantId, createdBefore: times[1] }))).toEqual([a])
    expect(ids(await list({ tenantId, createdAfter: times[0], createdBefore: times[2] }))).toEqual([b])
    expect(ids(await list({ tenantId, metadata: '{"team":"x"}' }))).toEqual([b, a])
    expect(ids(await list({ tenantId, metadata: '{"team":"x","env":"p"}' }))).toEqual([a])
    expect(ids(await list({ tenantId, metadata: '{"team":"y"}' }))).toEqual([])
    expect(ids(await list({ tenantId, metadata: '{}' }))).toEqual([b, a])
    expect(
      ids(await list({ tenantId, state: 'succeeded', metadata: '{"team":"x"}', createdBefore: times[2] })),
    ).toEqual([b])
    expect(ids(await list({ tenantId, state: 'queued', key: 'A' }))).toEqual([])
  })

  it('gives the bytes of the answer when asked for one key', async () => {
    const response = Buffer.from('bytes')
    await insertJob(store, { tenant_id: 'keyed', idempotency_key: 'k', state: 'succeeded', response })
    expect(await list({ tenantId: 'keyed', key: 'k' })).toMatchObject([{ response }])
  })
})
