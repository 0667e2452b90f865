import { connect } from 'node:net'
import Anthropic from '@anthropic-ai/sdk'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startBatchSystem, type BatchSystem } from './batch-system.ts'

let system: BatchSystem

beforeAll(async () => {
  system = await startBatchSystem()
})
afterAll(() => system.stop())

type Requests = Anthropic.Messages.BatchCreateParams.Request[]

const requests = (count: number, prefix: string, model = 'claude-test'): Requests =>
  Array.from({ length: count }, (_, index) => ({
    custom_id: `${prefix}-${index}`,
    params: { model, max_tokens: 10, messages: [{ role: 'user', content: `question ${prefix} ${index}` }] },
  }))

async function ended(id: string, timeoutMs = 20_000): Promise<Anthropic.Messages.MessageBatch> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const batch = await system.anthropic.messages.batches.retrieve(id)
    if (batch.processing_status === 'ended') return batch
    if (performance.now() > deadline) throw new Error(JSON.stringify(batch))
    await new Promise((resolve) => setTimeout(resolve, 30))
  }
}

async function resultsOf(id: string): Promise<Map<string, Anthropic.Messages.MessageBatchResult>> {
  const found = new Map<string, Anthropic.Messages.MessageBatchResult>()
  for await (const { custom_id: customId, result } of await system.anthropic.messages.batches.results(id)) {
    expect(found.has(customId)).toBe(false)
    found.set(customId, result)
  }
  return found
}

const post = (body: string | Buffer, key = system.key) =>
  fetch(`${system.api.address}/anthropic/v1/messages/batches`, {
    method: 'POST',
    headers: { 'x-api-key': key, 'content-type': 'application/json' },
    body,
  })

describe('a batch of the Anthropic SDK', () => {
  it('goes from its requests to its results; sent again it pays for nothing; then it can be deleted', async () => {
    const before = system.upstream.calls()
    const created = await system.anthropic.messages.batches.create({ requests: requests(20, 'life') })
    expect(created).toMatchObject({ type: 'message_batch', processing_status: 'in_progress', results_url: null })
    expect(created.id).toMatch(/^msgbatch_[0-9a-f]{32}$/)
    const batch = await ended(created.id)
    expect(batch.request_counts).toEqual({ processing: 0, succeeded: 20, errored: 0, canceled: 0, expired: 0 })
    const results = await resultsOf(created.id)
    expect(results.size).toBe(20)
    expect(results.get('life-7')).toMatchObject({ type: 'succeeded', message: { role: 'assistant' } })
    expect(system.upstream.calls() - before).toBe(20)

    const again = await ended((await system.anthropic.messages.batches.create({ requests: requests(20, 'life') })).id)
    expect(again).toMatchObject({ askonce: { replayed: 20, cost_usd: 0 } })
    expect(system.upstream.calls() - before).toBe(20)

    await system.anthropic.messages.batches.delete(created.id)
    await expect(system.anthropic.messages.batches.retrieve(created.id)).rejects.toBeInstanceOf(Anthropic.NotFoundError)
    const [files] = await system.sql(
      `select count(*)::int as n from files f where f.status = 'internal' and (f.expires_at is null or f.expires_at > now())`,
    )
    // Of the second batch only its results are left.
    expect(files).toEqual({ n: 1 })
  })

  it('answers a request that cannot be sent with its error, and runs the others', async () => {
    const asked = requests(3, 'mixed')
    const bad = { custom_id: 'mixed-bad', params: { model: 'claude-test', max_tokens: 1, messages: [] } }
    const { id } = await system.anthropic.messages.batches.create({ requests: [...asked, bad] })
    const batch = await ended(id)
    expect(batch.request_counts).toMatchObject({ succeeded: 3, errored: 1 })
    expect((await resultsOf(id)).get('mixed-bad')).toMatchObject({
      type: 'errored',
      error: { error: { type: 'invalid_request_error' } },
    })
  })

  it('cancel ends it: what runs is kept, the rest is canceled', async () => {
    const held = system.upstream.hold({ model: 'claude-held' })
    const { id } = await system.anthropic.messages.batches.create({ requests: requests(15, 'cut', 'claude-held') })
    await expect.poll(() => system.upstream.inFlight(), { timeout: 15_000 }).toBe(10)
    await expect(system.anthropic.messages.batches.delete(id)).rejects.toBeInstanceOf(Anthropic.ConflictError)
    await expect(system.anthropic.messages.batches.results(id)).rejects.toThrow(/No batch `results_url`/)
    expect((await system.anthropic.messages.batches.cancel(id)).processing_status).toBe('canceling')
    await expect
      .poll(() => system.sql(`select count(*)::int as n from jobs where state = 'cancelled'`), { timeout: 10_000 })
      .toEqual([{ n: 5 }])
    held.release()
    expect((await ended(id)).request_counts).toEqual({
      processing: 0,
      succeeded: 10,
      errored: 0,
      canceled: 5,
      expired: 0,
    })
    const types = [...(await resultsOf(id)).values()].map(({ type }) => type)
    expect(types.filter((type) => type === 'canceled')).toHaveLength(5)
  })

  it('pages forwards and backwards as the SDK does', async () => {
    const other = await system.tenant('message-pages')
    const ids: string[] = []
    for (const index of [0, 1, 2, 3, 4]) {
      ids.push((await other.anthropic.messages.batches.create({ requests: requests(1, `page-${index}`) })).id)
    }
    const newest = ids.toReversed()
    const forwards: string[] = []
    for await (const batch of other.anthropic.messages.batches.list({ limit: 2 })) forwards.push(batch.id)
    expect(forwards).toEqual(newest)
    const page = await other.anthropic.messages.batches.list({ limit: 2, before_id: newest[4] ?? '' })
    expect(page.data.map(({ id }) => id)).toEqual([newest[2], newest[3]])
    expect(page.has_more).toBe(true)
  })
})

describe('a body that is no batch', () => {
  const item = (customId: string) => JSON.stringify(requests(1, 'x')[0]).replace('x-0', customId)
  const cases: [name: string, body: string, message: RegExp][] = [
    ['no object', '[]', /must be an object/],
    ['another member', '{"x":1}', /the member requests and no other/],
    ['a member behind', `{"requests":[${item('a')}],"x":1}`, /no member but requests/],
    ['no list', '{"requests":{}}', /requests: must be a list/],
    ['no request', '{"requests":[ ]}', /at least one/],
    ['a text in the list', '{"requests":["a"]}', /\/requests\/0: must be an object/],
    ['broken JSON in a request', `{"requests":[${item('a')},{"custom_id":"b",}]}`, /\/requests\/1: .*not valid JSON/],
    ['a body that breaks off', `{"requests":[${item('a')},{"custom_id":"b"`, /breaks off/],
    ['something behind it', `{"requests":[${item('a')}]} x`, /something follows/],
    ['the same custom_id twice', `{"requests":[${item('a')},${item('a')}]}`, /\/requests\/1\/custom_id: is used/],
    ['no custom_id', '{"requests":[{"params":{}}]}', /\/requests\/0\/custom_id: is missing/],
    ['a custom_id with a slash', `{"requests":[${item('a/b')}]}`, /\/requests\/0\/custom_id: must have/],
    ['no params', '{"requests":[{"custom_id":"a"}]}', /\/requests\/0\/params: is missing/],
    ['no body', '', /breaks off/],
    [
      'a bare line feed in a text',
      `{"requests":[${item('a').replace('question', '\n')}]}`,
      /\/requests\/0: .*line break/,
    ],
  ]

  beforeAll(async () => {
    await system.tenant('careless')
  })
  const careless = 'key-of-careless-0123456789'
  /** What there is of its files and batches, pieces of any other tenant that belong to nothing included. */
  const left = async (): Promise<unknown[]> =>
    system.sql(`
      select id::text from files where tenant_id = 'careless'
      union all select id::text from batches where tenant_id = 'careless'
      union all select batch_id::text from batch_lines where batch_id not in (select id from batches)
      union all select file_id::text from file_parts where file_id not in (select id from files)
    `)

  it.each(cases)('%s', async (_, body, message) => {
    const reply = await post(body, careless)
    expect(reply.status).toBe(400)
    const { type, error } = (await reply.json()) as { type: string; error: { type: string; message: string } }
    expect(type).toBe('error')
    expect(error.type).toBe('invalid_request_error')
    expect(error.message).toMatch(message)
    expect(await left()).toEqual([])
  })

  it('with a request that is too large is refused while it arrives, and nothing is left', async () => {
    const large = JSON.stringify(requests(1, 'large')[0]).replace('question', 'x'.repeat(11 * 1024 * 1024))
    const reply = await post(`{"requests":[${item('a')},${large}]}`, careless)
    expect(reply.status).toBe(413)
    expect(await reply.json()).toMatchObject({ error: { type: 'request_too_large', param: '/requests/1' } })
    expect(await left()).toEqual([])
    // On the same connection, which must not be stuck in what follows of the body.
    expect((await post('[]', careless)).status).toBe(400)
  })

  it('that the client does not send to its end leaves nothing', async () => {
    const { hostname, port } = new URL(system.api.address)
    const socket = connect(Number(port), hostname)
    socket.on('error', () => undefined)
    socket.write(
      `POST /anthropic/v1/messages/batches HTTP/1.1\r\nhost: x\r\nx-api-key: ${careless}\r\ncontent-type: application/json\r\ncontent-length: 9999999\r\n\r\n`,
    )
    socket.write(
      `{"requests":[${Array.from({ length: 2_000 }, (_, index) => item(`cut-${index}`).padEnd(1_500)).join()}`,
    )
    // A part has been written: it must go again.
    await expect.poll(left, { timeout: 10_000 }).not.toEqual([])
    socket.destroy()
    await expect.poll(left, { timeout: 10_000 }).toEqual([])
  })

  it('is not one with blanks, line feeds, brackets in texts and a byte order mark', async () => {
    const pretty = JSON.stringify({ requests: requests(3, 'pretty') }, null, 2).replace(
      'question',
      'a } ] \\" \\\\ [ {',
    )
    const reply = await post(`\uFEFF\n ${pretty} \n`)
    const { id } = (await reply.json()) as { id: string }
    expect((await ended(id)).request_counts.succeeded).toBe(3)
    expect((await resultsOf(id)).size).toBe(3)
  })
})
