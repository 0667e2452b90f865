import { once } from 'node:events'
import type { Socket } from 'node:net'
import { gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import type { Operation } from '@askonce/core'
import {
  apiKey,
  chunk,
  chunkedResponse,
  events,
  rawServer,
  requestOf,
  stream,
  streamed,
  transcripts,
  usageChunk,
  type Streamed,
} from './providers-stream-bench.ts'

const unknown = { kind: 'unknown', billing: 'maybe', sent: true, providerStatus: 200, body: null }
const costs = { 'chat.completions': 0.00045, responses: 0.00045, messages: 0.0105 }

/** A streamed call that is answered with these chunks of a body. */
async function answeredWith(
  operation: Operation,
  chunks: readonly (Buffer | string)[],
  { request = requestOf(), ...how }: Parameters<typeof chunkedResponse>[1] & { request?: Buffer } = {},
): Promise<Streamed> {
  const { provider } = await rawServer((socket) => socket.write(chunkedResponse(chunks, how)))
  return stream(provider(operation), operation, { request })
}

describe.each(streamed)('%s', (operation) => {
  const { open, ending, id } = transcripts[operation]
  const whole = Buffer.from(open + ending)
  const usage = { inputTokens: 1_000, outputTokens: 500, costUsd: costs[operation] }

  test('cut at every byte: the same is shown, the same is stored', async () => {
    let at = 0
    const { provider } = await rawServer((socket) =>
      socket.write(chunkedResponse([whole.subarray(0, at), whole.subarray(at)])),
    )
    const called = provider(operation)
    for (at = 0; at <= whole.length; at += 1) {
      const { verdict, shown, order, ids } = await stream(called, operation)
      expect(verdict).toMatchObject({ kind: 'answer', status: 200, answerId: id, flags: [], usage })
      const stored = verdict.kind === 'answer' && verdict.body.equals(whole)
      expect({ at, stored, shown, ids, first: order[0] }).toEqual({
        at,
        stored: true,
        shown: open,
        ids: [id],
        first: 'id',
      })
    }
  })

  test('byte by byte: an event is shown with its last byte, in as many calls as there are events', async () => {
    const { verdict, shown, order } = await answeredWith(
      operation,
      Array.from(whole, (byte) => Buffer.from([byte])),
    )
    expect(verdict).toMatchObject({ kind: 'answer', body: whole })
    expect([shown, order.length - 1]).toEqual([open, open.split('\n\n').length - 1])
  })

  test('all at once: one call, and nothing of the ending', async () => {
    const { shown, order } = await answeredWith(operation, [whole])
    expect([shown, order]).toEqual([open, ['id', Buffer.byteLength(open)]])
  })

  test.each([
    ['CRLF', '\r\n'],
    ['CR', '\r'],
  ])('lines that end with %s, behind a byte order mark', async (_, end) => {
    const lines = (text: string): string => text.replaceAll('\n', end)
    const bytes = Buffer.from(`\uFEFF${lines(open + ending)}`)
    const { verdict, shown } = await answeredWith(operation, [bytes])
    expect(verdict).toMatchObject({ kind: 'answer', body: bytes, answerId: id, usage })
    expect(shown).toBe(`\uFEFF${lines(open)}`)
  })

  test('comments are shown, and data over several lines is understood', async () => {
    const folded = `: ping\n\n${(open + ending).replaceAll('data: {', 'data: {\ndata:  ')}`
    const { verdict, shown, ids } = await answeredWith(operation, [folded])
    expect(verdict).toMatchObject({ kind: 'answer', body: Buffer.from(folded), usage })
    expect(folded.startsWith(shown)).toBe(true)
    expect([shown.startsWith(': ping'), shown.includes('né€😀'), ids]).toEqual([true, true, [id]])
  })

  test('a last event without its blank line is complete', async () => {
    const bytes = Buffer.from((open + ending).slice(0, -2))
    expect((await answeredWith(operation, [bytes])).verdict).toMatchObject({ kind: 'answer', body: bytes, usage })
  })

  test('every beginning of it that lacks the ending is no answer, and all of it is one, whether it ends properly or breaks off', async () => {
    // Up to the last byte of the event that completes it, which for messages is the last of all.
    const complete = operation === 'messages' ? whole.length - 2 : Buffer.byteLength(open) + ending.indexOf('\n\n')
    let at = 0
    let endsProperly = true
    const { provider } = await rawServer((socket) => {
      const response = chunkedResponse([whole.subarray(0, at)], { ending: endsProperly ? '0\r\n\r\n' : '' })
      if (endsProperly) socket.write(response)
      else socket.end(response)
    })
    const called = provider(operation)
    const step = 7
    for (at = 1; at < complete; at += step) {
      endsProperly = !endsProperly
      const { verdict, shown } = await stream(called, operation)
      expect(verdict).toMatchObject({ ...unknown, code: 'broken_answer' })
      expect(open.startsWith(shown)).toBe(true)
    }
    endsProperly = false
    at = whole.length
    const { verdict } = await stream(called, operation)
    expect(verdict, 'the body breaks off behind its ending').toMatchObject({ kind: 'answer', body: whole, usage })
  })

  test('an event of 8 MB is stored, and shown from there', async () => {
    const large = Buffer.from(`: ${'x'.repeat(8_000_000)}\ndata: {}\n\n`)
    const { verdict, shown } = await answeredWith(operation, [large, whole])
    expect(verdict).toMatchObject({ kind: 'answer', usage })
    expect(verdict.kind === 'answer' && verdict.body.equals(Buffer.concat([large, whole]))).toBe(true)
    expect(shown).toBe('')
  })

  test('compressed against our wish: decoded, and what may be shown is shown at its end', async () => {
    const headers = 'content-type: text/event-stream\r\ncontent-encoding: gzip\r\n'
    const { verdict, shown } = await answeredWith(operation, [gzipSync(whole)], { headers })
    expect(verdict).toMatchObject({ kind: 'answer', body: whole, usage })
    expect(shown).toBe(open)
  })

  test.each([
    ['another content type', 'content-type: text/plain\r\n', 'text/event-stream'],
    ['none', '', 'text/event-stream'],
    ['a parameter', 'content-type: text/event-stream; charset=utf-8\r\n', 'text/event-stream; charset=utf-8'],
    ['capitals', 'content-type: Text/Event-Stream\r\n', 'text/event-stream'],
    ['more than a header holds', `content-type: text/event-stream; x=${'x'.repeat(20_000)}\r\n`, 'text/event-stream'],
  ])('a transcript is called one: sent with %s', async (_, headers, contentType) => {
    expect((await answeredWith(operation, [whole], { headers })).verdict).toMatchObject({ kind: 'answer', contentType })
  })

  test.each([
    ['a page', '<html>\n\n<body>It works!</body>\n\n', 'something else than server-sent events'],
    ['nothing', '', 'no server-sent events'],
    ['comments', ': ping\n\n', 'no server-sent events'],
    ['an event that is torn JSON', 'data: {"hello\n\n', 'not JSON'],
    ['an event that is no JSON', 'data: hello\n\n', 'ended before the answer did'],
    ['only [DONE]', 'data: [DONE]\n\n', 'ended before the answer did'],
    ['JSON of something else', '{"ok":true}', 'not a complete answer'],
    ['JSON with an error', '{"error":{"message":"sorry"}}', 'sorry'],
  ])('a 200 with %s', async (_, body, message) => {
    const { verdict, shown } = await answeredWith(operation, [body])
    expect(verdict).toMatchObject({
      ...unknown,
      code: 'broken_answer',
      message: expect.stringContaining(message) as string,
    })
    expect(shown.replaceAll(': ping\n\n', '')).toBe('')
  })

  test('lines that are none of an event say nothing in the middle of a stream', async () => {
    const body = `${open}<html>\n\n${ending}`
    const { verdict, shown } = await answeredWith(operation, [body])
    expect(verdict).toMatchObject({ kind: 'answer', body: Buffer.from(body), usage })
    expect(shown).toBe(`${open}<html>\n\n`)
  })

  test.each([
    ['with a name', 'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Slow"}}\n\n'],
    ['of OpenAI', 'data: {"error":{"message":"Slow","type":"overloaded_error","code":null}}\n\n'],
    ['of Responses', 'event: error\ndata: {"type":"error","code":"overloaded_error","message":"Slow"}\n\n'],
  ])('an error event %s: its message, and it is not shown', async (_, error) => {
    for (const how of [{}, { ending: 'ff\r\n' }]) {
      const { provider } = await rawServer((socket) => socket.end(chunkedResponse([open, error], how)))
      const { verdict, shown } = await stream(provider(operation), operation)
      const message = expect.stringContaining('Slow (overloaded_error)') as string
      expect(verdict).toMatchObject({ ...unknown, code: 'broken_answer', message })
      const { verdict: withUsage } = await answeredWith(operation, [open, error, ending], how)
      expect(withUsage).toMatchObject({ ...unknown, billing: 'billed', code: 'broken_answer', message, usage })
      expect(shown).toBe(open)
    }
  })

  test('the key in an error event is redacted', async () => {
    const error = { type: 'error', error: { type: 'x', message: `no such key ${apiKey}` } }
    const { verdict } = await answeredWith(operation, [open, events(error)])
    expect(verdict).toMatchObject({ message: expect.stringContaining('no such key [redacted]') as string })
  })
})

test('a refusal that is written as events is not shown', async () => {
  const { open } = transcripts['chat.completions']
  const response = chunkedResponse([open]).toString('latin1').replace('200 OK', '503 Busy')
  const { provider } = await rawServer((socket) => socket.write(response, 'latin1'))
  const { verdict, order } = await stream(provider('chat.completions'), 'chat.completions')
  expect(verdict).toMatchObject({ kind: 'unknown', code: 'gateway_error', providerStatus: 503, body: null })
  expect(order).toEqual([])
})

describe('chat completions', () => {
  const chat = (request: object, ...list: (object | string)[]): Promise<Streamed> =>
    answeredWith('chat.completions', [events(...list)], { request: requestOf(request) })
  const answer = { kind: 'answer', usage: { inputTokens: null, outputTokens: null, costUsd: null } }

  test('complete without [DONE] and without usage', async () => {
    const { verdict, shown } = await chat({}, chunk({ content: 'a' }), chunk({}, 'stop'))
    expect(verdict).toMatchObject(answer)
    expect(shown).toBe(events(chunk({ content: 'a' })))
  })

  test('text and finish_reason in one chunk: it is not shown', async () => {
    const { verdict, shown } = await chat({}, chunk({ content: 'a' }), chunk({ content: 'b' }, 'stop'), '[DONE]')
    expect([verdict.kind, shown]).toEqual(['answer', events(chunk({ content: 'a' }))])
  })

  test('usage in every chunk, a null and an empty finish_reason, no index: none of it ends the stream', async () => {
    const { id, model, usage } = usageChunk
    const part = { id, model, usage, choices: [{ delta: { content: 'a' }, finish_reason: '' }] }
    const { verdict, shown } = await chat({}, part, chunk({}, 'stop'), '[DONE]')
    expect(verdict).toMatchObject({ kind: 'answer', usage: { inputTokens: 1_000 } })
    expect(shown).toBe(events(part))
  })

  test('two choices: the one that is still open keeps the stream open', async () => {
    const list = [chunk({ content: 'a' }, null, 0), chunk({ content: 'b' }, null, 1), chunk({}, 'stop', 0)]
    const { verdict, shown } = await chat({ n: 2 }, ...list, chunk({}, 'stop', 1), '[DONE]')
    expect([verdict.kind, shown]).toEqual(['answer', events(...list)])
    const message = expect.stringContaining('1 of 2 choices have no finish_reason') as string
    expect((await chat({ n: 2 }, ...list, '[DONE]')).verdict).toMatchObject({ ...unknown, message })
  })

  test('a choice that has not begun counts, unless the provider says that it is done', async () => {
    const list = [chunk({ content: 'a' }), chunk({}, 'stop')]
    expect((await chat({ n: 2 }, ...list)).verdict).toMatchObject(unknown)
    const { verdict, shown } = await chat({ n: 2 }, ...list, usageChunk, '[DONE]')
    expect([verdict.kind, shown], 'usage comes behind the last choice').toEqual(['answer', events(...list)])
  })

  test.each([
    ['length', {}, ['truncated']],
    ['content_filter', {}, ['refused']],
    ['stop', { refusal: 'no' }, ['refused']],
    ['length', { refusal: 'no' }, ['truncated', 'refused']],
    ['tool_calls', { tool_calls: [{ index: 0, id: 't', function: { name: 'f', arguments: '{}' } }] }, []],
  ])('%s after %j is flagged %j', async (reason, delta, flags) => {
    const { verdict } = await chat({}, chunk(delta), chunk({}, reason), '[DONE]')
    expect(verdict).toMatchObject({ kind: 'answer', flags })
  })

  test.each([
    ['too long', 'x'.repeat(201)],
    ['not printable', 'a\u0000b'],
    ['empty', ''],
  ])('an id that is %s is none', async (_, id) => {
    const { verdict, ids } = await chat({}, { ...chunk({ content: 'a' }, 'stop'), id })
    expect([verdict.kind === 'answer' && verdict.answerId, ids]).toEqual([null, []])
  })

  test('the id of the first chunk that has one, told before it is shown', async () => {
    const { verdict, ids, order } = await chat({}, { ...chunk({}), id: '' }, chunk({}), {
      ...chunk({}, 'stop'),
      id: 'c-2',
    })
    expect(verdict).toMatchObject({ kind: 'answer', answerId: 'c-1' })
    expect([ids, order[0]]).toEqual([['c-1'], 'id'])
  })

  test('plain JSON although a stream was asked for is an answer, and nothing is shown', async () => {
    const { id, model, usage } = usageChunk
    const body = JSON.stringify({ id, model, usage, choices: [{ message: {}, finish_reason: 'length' }] })
    for (const [headers, contentType] of [
      ['content-type: application/json; charset=utf-8\r\n', 'application/json; charset=utf-8'],
      ['content-type: text/event-stream\r\n', 'application/json'],
    ] as const) {
      const { verdict, order } = await answeredWith('chat.completions', [' \n', body], { headers })
      expect(verdict).toMatchObject({ kind: 'answer', contentType, answerId: 'c-1', flags: ['truncated'] })
      expect(verdict).toMatchObject({ body: Buffer.from(` \n${body}`), usage: { costUsd: 0.00045 } })
      expect(order).toEqual([])
    }
  })
})

describe('responses', () => {
  const responses = (...list: object[]): Promise<Streamed> =>
    answeredWith('responses', [transcripts.responses.open, events(...list)])
  const filtered = { incomplete_details: { reason: 'content_filter' } }

  test.each([
    ['response.incomplete', { output: [] }, ['truncated']],
    ['response.incomplete', {}, ['truncated']],
    ['response.incomplete', filtered, ['refused']],
    ['response.completed', { output: [{ content: [{ type: 'refusal' }] }] }, ['refused']],
    ['response.completed', {}, []],
  ])('%s with %j is an answer, flagged %j', async (type, response, flags) => {
    const { verdict, shown } = await responses({ type, response })
    expect(verdict).toMatchObject({ kind: 'answer', flags, answerId: 'r-1' })
    expect(shown).toBe(transcripts.responses.open)
  })

  test('a refusal that is only in the deltas', async () => {
    const delta = { type: 'response.refusal.delta', delta: 'no' }
    const { verdict } = await responses(delta, { type: 'response.completed', response: {} })
    expect(verdict).toMatchObject({ kind: 'answer', flags: ['refused'] })
  })

  test('response.failed is an error', async () => {
    const error = { code: 'server_error', message: 'It broke' }
    const { verdict, shown } = await responses({ type: 'response.failed', response: { id: 'r-1', error } })
    const message = expect.stringContaining('It broke (server_error)') as string
    expect(verdict).toMatchObject({ ...unknown, code: 'broken_answer', message })
    expect(shown).toBe(transcripts.responses.open)
  })
})

test.each([
  ['max_tokens', ['truncated']],
  ['refusal', ['refused']],
  ['tool_use', []],
])('messages: stop_reason %s is flagged %j', async (reason, flags) => {
  const stop = { type: 'message_delta', delta: { stop_reason: reason }, usage: { output_tokens: 2 } }
  const body = [transcripts.messages.open, events(stop, { type: 'message_stop' })]
  expect((await answeredWith('messages', body)).verdict).toMatchObject({ kind: 'answer', flags, answerId: 'm-1' })
})

describe('a stream that does not end', () => {
  const { open } = transcripts['chat.completions']

  test('the timeout covers all of it, however much comes', async () => {
    const { provider } = await rawServer((socket) => {
      socket.write(chunkedResponse([open], { ending: '' }))
      const timer = setInterval(() => socket.write('8\r\n: ping\n\n\r\n'), 10)
      socket.once('close', () => clearInterval(timer))
    })
    const { verdict, shown } = await stream(provider('chat.completions'), 'chat.completions', { timeoutMs: 200 })
    expect(verdict).toMatchObject({ ...unknown, code: 'timeout' })
    expect(shown.startsWith(`${open}: ping`)).toBe(true)
  })

  test('aborted when the first events are there: the socket is closed at once', async () => {
    const sockets: Socket[] = []
    const { provider } = await rawServer((socket) => {
      sockets.push(socket)
      socket.write(chunkedResponse([open, open], { ending: '' }))
    })
    const abort = new AbortController()
    const { verdict, shown } = await stream(provider('chat.completions'), 'chat.completions', {
      signal: abort.signal,
      onEvents: () => abort.abort(),
    })
    expect(verdict).toMatchObject({ ...unknown, code: 'connection_lost' })
    const [socket] = sockets
    if (socket?.closed === false) await once(socket, 'close')
    expect(socket?.closed).toBe(true)
    expect(open + open).toContain(shown)
  })
})
