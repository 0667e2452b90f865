import { leakCheck } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { at, chat, startHarness, type Harness, type Reply } from './harness.ts'

let harness: Harness

beforeAll(async () => {
  harness = await startHarness({ env: { ASKONCE_MAX_QUEUED_SUBMISSIONS: '2000' } })
})
afterAll(async () => {
  await harness.stop()
  await leakCheck()
})

const bulk = (body: object | string, headers: Record<string, string> = {}): Promise<Reply> =>
  harness.call('POST', '/v1/jobs/bulk', { body, headers })
const ndjson = (lines: readonly string[]): Promise<Reply> =>
  bulk(lines.join('\n'), { 'content-type': 'application/x-ndjson' })

/** `[index, status, key or code]` of each outcome. */
function gist({ json }: Reply): unknown[] {
  return json.data.map((item) => [item.index, item.status, item.job?.key ?? item.error.code])
}

describe('POST /v1/jobs/bulk', () => {
  it('gives each item its own outcome, in order; a bad one does not spoil the rest', async () => {
    const done = (await harness.submit('done', chat('done'))).json
    const claim = await harness.claim(done.id)
    await harness.answer(claim, '{ "a" : 1.0 }')
    const reply = await bulk({
      jobs: [
        { key: 'a', ...chat('a') },
        { key: 'b', ...chat('b'), operation: 'nothing' },
        { ...chat('c') },
        { key: 7, ...chat('d') },
        'text',
        { key: 'done', ...chat('done') },
        { key: 'done', ...chat('other') },
        { key: 'e', ...chat('e'), tll_seconds: 5 },
        { key: 'ü', ...chat('f') },
        { key: '"a"', ...chat('a') },
        { key: 'a', ...chat('another a') },
      ],
    })
    expect([reply.status, reply.json.object, reply.json.has_more, reply.json.next_cursor]).toEqual([
      200,
      'list',
      false,
      null,
    ])
    expect(gist(reply)).toEqual([
      [0, 202, 'a'],
      [1, 400, 'invalid_request'],
      [2, 400, 'idempotency_key_missing'],
      [3, 400, 'idempotency_key_invalid'],
      [4, 400, 'invalid_request'],
      [5, 200, 'done'],
      [6, 422, 'idempotency_key_reused'],
      [7, 400, 'invalid_request'],
      [8, 400, 'idempotency_key_invalid'],
      [9, 202, 'a'],
      [10, 422, 'idempotency_key_reused'],
    ])
    const { data } = reply.json
    expect(data.map((item) => item.job?.replayed)).toMatchObject({ 0: false, 5: true, 9: true })
    expect(at(data, 9).job?.id).toBe(at(data, 0).job?.id)
    expect(at(data, 6).error).toEqual({
      message: expect.stringContaining('/request/messages/0/content') as string,
      type: 'idempotency_error',
      param: '/key',
      code: 'idempotency_key_reused',
      retryable: false,
      pointers: ['/request/messages/0/content'],
    })
    expect(at(data, 7).error.param).toBe('/tll_seconds')
    expect(reply.text).toContain('"response":{ "a" : 1.0 },')
  })

  it('reads NDJSON line by line, bytes as sent; a broken line fails alone', async () => {
    const exact = '{ "model":"simulated/x",  "input": ["\\u00e9", 1e2] }'
    const reply = await ndjson([
      JSON.stringify({ key: 'n1', ...chat('n1') }),
      '',
      '{"key": "n2", ',
      `{"key":"n3","operation":"embeddings","request":${exact}}\r`,
      '{"key":"n4","key":"n4"}',
      '',
    ])
    expect(gist(reply)).toEqual([
      [0, 202, 'n1'],
      [1, 400, 'invalid_request'],
      [2, 202, 'n3'],
      [3, 400, 'invalid_request'],
    ])
    const [row] = await harness.sql(
      `select request from jobs j join requests r on r.job_id = j.id where idempotency_key = 'n3'`,
    )
    expect((row?.['request'] as Buffer | undefined)?.toString()).toBe(exact)
  })

  it('refuses the later of two requests under one key, wherever the two stand', async () => {
    const filler = Array.from({ length: 1_200 }, (_, index) => ({ key: `filler-${index}`, ...chat() }))
    const jobs = [{ key: 'twice', ...chat('first') }, ...filler, { key: 'twice', ...chat('second') }]
    jobs.push({ key: 'twice', ...chat('first') })
    jobs.splice(3, 0, { key: 'twice', ...chat('third') })
    const { json } = await bulk({ jobs })
    const of = (index: number) => [at(json.data, index).status, at(json.data, index).job?.replayed]
    expect([of(0), of(3), of(1_202), of(1_203)]).toEqual([
      [202, false],
      [422, undefined],
      [422, undefined],
      [202, true],
    ])
    expect(json.data.map((item) => item.index)).toEqual(jobs.map((_, index) => index))
  })

  it('takes ten thousand items through a group that holds two thousand, and wakes the workers of their lane', async () => {
    const jobs = Array.from({ length: 10_000 }, (_, index) => ({ key: `many-${index}`, ...chat(`${index}`) }))
    harness.woken.length = 0
    const reply = await bulk({ jobs })
    expect(reply.json.data).toHaveLength(10_000)
    expect(new Set(reply.json.data.map((item) => item.status))).toEqual(new Set([202]))
    const ids = new Set(reply.json.data.map((item) => item.job?.id ?? ''))
    expect(ids.size).toBe(10_000)
    expect(new Set(harness.woken)).toEqual(new Set(['simulated']))
    const again = await bulk({ jobs })
    expect(again.json.data.every((item) => item.status === 202 && item.job?.replayed === true)).toBe(true)
  })

  it.each([
    ['no item', { jobs: [] }, '/jobs'],
    ['too many', { jobs: Array.from({ length: 10_001 }, () => 1) }, '/jobs'],
    ['not a list', { jobs: {} }, '/jobs'],
    ['no jobs', {}, '/jobs'],
    ['another member', { jobs: [1], mode: 'fast' }, '/mode'],
    ['a bare list', [], ''],
  ])('400 as a whole: %s', async (_what, body, pointer) => {
    const { status, json } = await bulk(body)
    expect([status, json.code, json.error.param]).toEqual([400, 'invalid_request', pointer])
  })

  it('400 for an empty file, 415 for NDJSON elsewhere', async () => {
    expect((await ndjson(['', ' '])).status).toBe(400)
    const elsewhere = await harness.call('POST', '/v1/jobs', {
      body: JSON.stringify(chat()),
      headers: { 'content-type': 'application/x-ndjson', 'idempotency-key': 'x' },
    })
    expect([elsewhere.status, elsewhere.json.code]).toEqual([415, 'unsupported_media_type'])
  })
})
