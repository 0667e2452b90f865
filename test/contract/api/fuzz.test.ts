import { createHash } from 'node:crypto'
import { errorRegistry, fingerprint, parseJson, type ErrorCode, type Json, type Operation } from '@askonce/core'
import { leakCheck } from '@askonce/testkit'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { anyQuery, badLine, contentTypes, envelopeText, prefers } from './fuzz-texts.ts'
import { bootstrapKey, chat, startHarness, type Harness, type Reply } from './harness.ts'

/** The same every time; another one by ASKONCE_TEST_FUZZ_SEED. A failure prints it, with the path to its case. */
const seed = Number(process.env['ASKONCE_TEST_FUZZ_SEED'] ?? 20_261_124)
fc.configureGlobal({ seed })

let harness: Harness

beforeAll(async () => {
  harness = await startHarness()
})
afterAll(async () => {
  await harness.stop()
  await leakCheck()
})

/** An error as the registry has it, or an object of ours; never a 5xx, never silence. */
function expectSane({ status, json, text, headers }: Reply): void {
  const definition = errorRegistry[json.code as ErrorCode] as { status: number | null } | undefined
  const problem =
    headers.get('content-type') === 'application/problem+json; charset=utf-8' &&
    definition?.status === status &&
    json.status === status
  const sane = status < 300 ? typeof json.object === 'string' : status < 500 && problem
  expect([sane, sane ? '' : `${status} ${text}`]).toEqual([true, ''])
}

/** Accepted, or refused as the client's fault; never a 5xx, and never anything but our shapes. */
async function expectNoFault(
  method: string,
  path: string,
  body?: object | string | Buffer,
  headers = {},
): Promise<Reply> {
  const signal = AbortSignal.timeout(10_000)
  const reply = await harness.call(method, path, { ...(body === undefined ? {} : { body }), headers, signal })
  expectSane(reply)
  return reply
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

describe(`whatever is sent, the server is not at fault (seed ${seed})`, () => {
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
      fc.asyncProperty(body, async (sent) => void (await expectNoFault('POST', '/v1/jobs/bulk', sent))),
      { numRuns: 60 },
    )
    const filter = fc.record({ state: odd, created_before: odd, metadata: odd }, { requiredKeys: [] })
    const change = fc.record({ ids: odd, filter, cursor: odd, accept_duplicate_charge: odd }, { requiredKeys: [] })
    await fc.assert(
      fc.asyncProperty(change, async (sent) => void (await expectNoFault('POST', '/v1/jobs/bulk/retry', sent))),
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

  it('texts that JavaScript cannot hold, or that are no JSON: refused, or stored as sent and found again', async () => {
    const sent = new Map<string, { id: string | null; body: Buffer }>()
    await fc.assert(
      fc.asyncProperty(envelopeText, async (text) => {
        const body = Buffer.from(text)
        // A key of its own for each body.
        const key = createHash('sha256').update(body).digest('hex')
        const headers = { 'idempotency-key': key }
        const first = await expectNoFault('POST', '/v1/jobs', body, headers)
        const again = await expectNoFault('POST', '/v1/jobs', body, headers)
        const id = first.status < 300 ? first.json.id : null
        expect([first.status, id]).toEqual([again.status, id === null ? null : again.json.id])
        expect(again.headers.get('idempotent-replayed')).toBe(id === null ? null : 'true')
        sent.set(key, { id, body })
      }),
      { numRuns: 300 },
    )
    const rows = await harness.sql(
      'select j.id, j.idempotency_key as key, r.request from jobs j join requests r on r.job_id = j.id',
    )
    const stored = new Map(rows.map(({ key, id, request: bytes }) => [key as string, { id, bytes: bytes as Buffer }]))
    const faults = [...sent].filter(([key, { id, body }]) => {
      const row = stored.get(key)
      return id === null ? row !== undefined : row?.id !== id || !body.includes(row.bytes)
    })
    expect(faults).toEqual([])
    expect([...sent.values()].filter(({ id }) => id !== null).length).toBeGreaterThan(20)
  })

  it('NDJSON: an outcome for every line, and a bad one spoils no other', async () => {
    const line = fc.oneof(
      fc.tuple(envelopeText, fc.nat()).map(([text, number]) => text.replace('{', `{"key":"line-${number}",`)),
      badLine,
      fc.nat().map((number) => JSON.stringify(Object.assign(chat(), { key: `good-${number}` }))),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(line, { minLength: 1, maxLength: 30 }), async (lines) => {
        const body = Buffer.from(lines.join('\n'))
        const { status, json } = await expectNoFault('POST', '/v1/jobs/bulk', body, {
          'content-type': 'application/x-ndjson',
        })
        const sent = lines.filter((text) => text.trim() !== '')
        const items = (status === 200 ? json.data : []) ?? []
        expect([status, items.map(({ index }) => index)]).toEqual([
          sent.length === 0 ? 400 : 200,
          sent.map((_, index) => index),
        ])
        const faults = items.filter(({ status: code, error }, index) => {
          const known = code < 300 || errorRegistry[error.code as ErrorCode].status === code
          return !known || code >= 500 || (code >= 300 && sent[index]?.includes('"key":"good-'))
        })
        expect(faults).toEqual([])
      }),
      { numRuns: 80 },
    )
  })

  it('headers: Prefer, content types and charsets, Authorization, request ids', async () => {
    const value = fc.string({
      unit: fc.integer({ min: 32, max: 255 }).map((code) => String.fromCharCode(code === 127 ? 33 : code)),
      maxLength: 80,
    })
    await fc.assert(
      fc.asyncProperty(fc.oneof(prefers, value), contentTypes, value, fc.nat(3), async (prefer, type, text, which) => {
        const headers = { 'idempotency-key': 'headers', prefer, ...(which === 0 ? { 'content-type': type } : {}) }
        const reply = await expectNoFault('POST', '/v1/jobs', JSON.stringify(chat()), {
          ...headers,
          'x-request-id': text,
        })
        expect(reply.headers.get('x-request-id')).toMatch(/^[\w.:-]{1,128}$/)
        await expectNoFault('GET', '/v1/jobs', undefined, {
          authorization: which < 2 ? text : `Bearer ${bootstrapKey}${text}`,
        })
      }),
      { numRuns: 100 },
    )
  })

  it('ids, cursors and queries', async () => {
    const { json } = await harness.call('GET', '/v1/jobs?limit=1')
    await fc.assert(
      fc.asyncProperty(anyQuery(json.data[0]?.id ?? '', json.next_cursor ?? ''), async ({ id, query }) => {
        for (const path of ['', '/response', '/attempts', '/decisions'])
          await expectNoFault('GET', `/v1/jobs/${id}${path}`)
        for (const path of ['/v1/jobs', '/v1/spend', '/v1/attempts', `/v1/jobs/${id}`])
          await expectNoFault('GET', `${path}?${query}`)
        for (const change of ['retry', 'fail']) await expectNoFault('POST', `/v1/jobs/${id}/${change}?${query}`, {})
      }),
      { numRuns: 60 },
    )
  })

  it('left rows that are whole: each request parses and has the fingerprint of its row', async () => {
    const rows = (await harness.sql('select * from jobs join requests on job_id = id')) as {
      operation: Operation
      request: Buffer
      fingerprint: Buffer
      model: string
      state: string
      idempotency_key: string
    }[]
    expect(rows.length).toBeGreaterThan(100)
    const torn = rows.filter(
      ({ operation, request: bytes, fingerprint: stored, model, state, idempotency_key: key }) => {
        const { value } = parseJson(bytes.toString())
        const whole = fingerprint(operation, value).equals(stored) && (value as { model: Json }).model === model
        return !(whole && state === 'queued' && /^[\x20-\x7e]{1,255}$/.test(key))
      },
    )
    expect(torn).toEqual([])
  })

  // RFC 8785, sections 3.2.2 to 3.2.4 (the example and its canonical form) and 3.2.3 (the sorting example); its table of numbers
  // (appendix B) is in test/unit/core-fingerprint.test.ts.
  it.each([
    [
      'the example of section 3.2.2',
      String.raw`{
        "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
        "literals": [null, true, false]
      }`,
      String.raw`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
    ],
    [
      'the sorting example of section 3.2.3',
      String.raw`{"\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One", "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"}`,
      `{"\\r":"Carriage Return","1":"One","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis","\u20ac":"Euro Sign","\u{1f600}":"Emoji: Grinning Face","\ufb33":"Hebrew Letter Dalet With Dagesh"}`,
    ],
  ])('by the vectors of RFC 8785, two spellings are one request: %s', async (name, spelled, canonical) => {
    const embedding = (value: string): string =>
      `{"operation":"embeddings","request":{"input":"a","model":"simulated/small","x":${value}}}`
    const headers = { 'idempotency-key': name }
    const first = await expectNoFault('POST', '/v1/jobs', embedding(spelled), headers)
    expect(first.status).toBe(202)
    const again = await expectNoFault('POST', '/v1/jobs', embedding(canonical), headers)
    expect([again.json.id, again.headers.get('idempotent-replayed')]).toEqual([first.json.id, 'true'])
    const [row] = await harness.sql('select fingerprint from jobs where idempotency_key = $1', [name])
    expect(row?.['fingerprint']).toEqual(createHash('sha256').update(embedding(canonical)).digest())
  })
})
