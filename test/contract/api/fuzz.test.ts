import { leakCheck } from '@askonce/testkit'
import fc from 'fast-check'
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

/** Accepted, or refused as the client's fault; never a 5xx, and never anything but our shapes. */
async function expectNoFault(
  method: string,
  path: string,
  body?: object | string | Buffer,
  headers = {},
): Promise<void> {
  const { status, json, text } = await harness.call(method, path, { ...(body === undefined ? {} : { body }), headers })
  const sane = status < 300 ? typeof json.object === 'string' : status < 500 && typeof json.code === 'string'
  expect([sane, sane ? '' : `${status} ${text}`]).toEqual([true, ''])
}

const anyText = fc.string({ unit: 'binary', maxLength: 300 })
const odd = fc.oneof(
  fc.jsonValue({ maxDepth: 4 }),
  anyText,
  fc.constantFrom(-0, 2 ** 53 + 2, 1e308, '', '\u0000', '\ud800'),
)
/** Mostly what is asked for, so that much gets past the first check. */
const mostly = <T>(good: fc.Arbitrary<T>): fc.Arbitrary<unknown> => fc.oneof({ weight: 12, arbitrary: good }, odd)
const positive = fc.integer({ min: 1, max: 100 })
const request = fc.dictionary(anyText, odd).map((more) => Object.assign(more, chat().request))
const envelope = fc.record(
  {
    operation: mostly(fc.constantFrom('chat.completions', 'messages')),
    request: mostly(request),
    priority: mostly(fc.integer({ min: 0, max: 9 })),
    delay_seconds: mostly(positive),
    ttl_seconds: mostly(positive),
    deadline_seconds: mostly(positive),
    timeout_seconds: mostly(positive),
    max_attempts: mostly(positive),
    on_uncertain: mostly(fc.constantFrom('rerun', 'hold', 'fail')),
    metadata: mostly(fc.dictionary(fc.string({ minLength: 1, maxLength: 9 }), anyText, { maxKeys: 5 })),
  },
  { requiredKeys: ['operation', 'request'] },
)

describe('whatever is sent, the server is not at fault', () => {
  it('submissions', async () => {
    const key = fc.string({
      unit: fc.integer({ min: 1, max: 255 }).map((code) => String.fromCharCode(code)),
      maxLength: 300,
    })
    await fc.assert(
      fc.asyncProperty(envelope, key, async (body, text) => {
        const sendable = text.replaceAll(/[\r\n\u007f]|[\u0001-\u0008\u000b-\u001f]/g, '').trim()
        await expectNoFault('POST', '/v1/jobs', body, { 'idempotency-key': sendable })
        await expectNoFault('POST', '/v1/jobs', body, { 'idempotency-key': `fuzz-${sendable.length}` })
      }),
      { numRuns: 250 },
    )
  })

  it('bulk submissions and changes', async () => {
    const item = fc.tuple(anyText, envelope).map(([key, body]) => Object.assign(body, { key }))
    const body = fc.oneof(
      fc.record({ jobs: fc.oneof(fc.array(fc.oneof(item, odd), { maxLength: 20 }), odd) }),
      odd.map((value) => ({ value })),
    )
    await fc.assert(
      fc.asyncProperty(body, async (sent) => expectNoFault('POST', '/v1/jobs/bulk', sent)),
      { numRuns: 60 },
    )
    const filter = fc.record({ state: odd, created_before: odd, metadata: odd }, { requiredKeys: [] })
    const change = fc.record({ ids: odd, filter, cursor: odd, accept_duplicate_charge: odd }, { requiredKeys: [] })
    await fc.assert(
      fc.asyncProperty(change, async (sent) => expectNoFault('POST', '/v1/jobs/bulk/retry', sent)),
      { numRuns: 100 },
    )
  })

  it('bytes, queries and ids', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1, maxLength: 200 }), async (bytes) => {
        await expectNoFault('POST', '/v1/jobs', Buffer.from(bytes), { 'idempotency-key': 'bytes' })
        await expectNoFault('POST', '/v1/jobs/bulk', Buffer.from(bytes), { 'content-type': 'application/x-ndjson' })
      }),
      { numRuns: 100 },
    )
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'grapheme', minLength: 1 }), async (text) => {
        const encoded = encodeURIComponent(text)
        for (const name of ['key', 'state', 'created_after', 'limit', 'cursor', encoded]) {
          await expectNoFault('GET', `/v1/jobs?${name}=${encoded}`)
        }
        await expectNoFault('GET', `/v1/jobs?cursor=${Buffer.from(JSON.stringify([text, text])).toString('base64url')}`)
        await expectNoFault('DELETE', `/v1/jobs/${encoded}`)
        await expectNoFault('POST', `/v1/lanes/${encoded}/resume`)
      }),
      { numRuns: 40 },
    )
  })

  it('left rows that are whole', async () => {
    const [row] = await harness.sql(
      `select count(*)::int as jobs, count(*) filter (where length(request) = 0 or state <> 'queued')::int as torn from jobs`,
    )
    expect(row?.['torn']).toBe(0)
    expect(row?.['jobs']).toBeGreaterThan(10)
  })
})
