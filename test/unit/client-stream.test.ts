import type { ServerResponse } from 'node:http'
import { Askonce, AskonceConnectionError, AskonceError, type RetryOptions, type StreamEvent } from '@askonce/client'
import { leakCheck } from '@askonce/testkit'
import { afterAll, afterEach, expect, it } from 'vitest'
import { startFakeServer } from './client-server.ts'

type Server = Awaited<ReturnType<typeof startFakeServer>>
let server: Server | undefined
afterEach(async () => {
  await server?.stop()
})
afterAll(leakCheck)

const part = (index: number, text: string) => `id: 1-${index}\ndata: ${JSON.stringify({ text })}\n\n`
const done = (index: number) => `id: 1-${index}\ndata: [DONE]\n\n`
const jobEvent = 'event: job\ndata: {"id":"j1","state":"succeeded"}\n\n'
const soon = 'retry: 1\n\n'
const errorEvent = (code: string, retryable: boolean) =>
  `event: error\ndata: ${JSON.stringify({ code, message: `about ${code}`, param: null, retryable })}\n\n`

/** One script for each connection: what is written, and whether the connection then breaks, ends or stays. */
type Script = { text: string; after?: 'break' | 'end' | 'stay'; status?: number }

async function serve(scripts: Script[], retry: RetryOptions = {}) {
  server = await startFakeServer((_arrived, reply: ServerResponse, index) => {
    const { text, after = 'end', status = 200 } = scripts[Math.min(index, scripts.length - 1)] ?? { text: '' }
    if (status === 204) return void reply.writeHead(204).end()
    reply.writeHead(status, { 'content-type': status === 200 ? 'text/event-stream' : 'application/json' })
    reply.flushHeaders()
    if (after === 'end') reply.end(text)
    else reply.write(text === '' ? ':\n' : text, () => (after === 'break' ? reply.destroy() : undefined))
  })
  return new Askonce({ baseUrl: server.url, apiKey: 'secret', retry })
}

async function read(events: AsyncIterable<StreamEvent>): Promise<{ data: string[]; error: unknown }> {
  const data: string[] = []
  try {
    for await (const event of events) data.push(event.data)
    return { data, error: null }
  } catch (error) {
    return { data, error }
  }
}

const lastIds = () => server?.arrived.map(({ headers }) => headers['last-event-id'])

it('yields the events with their ids, and the job at the end', async () => {
  const client = await serve([{ text: `: hello\n\n${part(0, 'a')}${done(1)}${jobEvent}` }])
  const events: StreamEvent[] = []
  for await (const event of client.stream('j1')) events.push(event)
  expect(events).toEqual([
    { event: 'message', data: '{"text":"a"}', id: '1-0' },
    { event: 'message', data: '[DONE]', id: '1-1' },
    { event: 'job', data: '{"id":"j1","state":"succeeded"}', id: '1-1' },
  ])
  const [request] = server?.arrived ?? []
  expect([request?.url, request?.headers.accept, request?.headers.authorization]).toEqual([
    '/v1/jobs/j1/events',
    'text/event-stream',
    'Bearer secret',
  ])
})

it('goes on after the last event, over connections that break or end too early', async () => {
  const client = await serve([
    { text: soon + part(0, 'a') + part(1, 'b'), after: 'break' },
    { text: soon + part(2, 'c') + part(3, 'half').slice(0, -1), after: 'break' },
    { text: soon, after: 'end' },
    { text: soon + part(3, 'd') + errorEvent('unavailable', true) },
    { text: done(4) + jobEvent },
  ])
  expect(await read(client.stream('j1'))).toEqual({
    data: ['{"text":"a"}', '{"text":"b"}', '{"text":"c"}', '{"text":"d"}', '[DONE]', '{"id":"j1","state":"succeeded"}'],
    error: null,
  })
  expect(lastIds()).toEqual([undefined, '1-1', '1-2', '1-2', '1-3'])
})

it('begins after an event that the caller has, and ends where nothing follows', async () => {
  const client = await serve([{ text: done(8) }, { text: '', status: 204 }])
  expect(await read(client.stream('j1', { lastEventId: '1-7' }))).toEqual({ data: ['[DONE]'], error: null })
  expect(await read(client.stream('j1', { lastEventId: '1-8' }))).toEqual({ data: [], error: null })
  expect(lastIds()).toEqual(['1-7', '1-8'])
})

it('has all it needs when the connection breaks after the ending', async () => {
  const client = await serve([{ text: part(0, 'a') + done(1), after: 'break' }])
  expect(await read(client.stream('j1'))).toEqual({ data: ['{"text":"a"}', '[DONE]'], error: null })
  expect(server?.arrived).toHaveLength(1)
})

it.each([
  [errorEvent('stream_interrupted', false), 'stream_interrupted', 'about stream_interrupted'],
  ['data: {"error":{"message":"no","code":"job_uncertain"}}\n\n', 'job_uncertain', 'no'],
  [
    'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n',
    'overloaded_error',
    'busy',
  ],
  ['event: error\ndata: nonsense\n\n', 'unexpected_answer', 'The stream ended with an error.'],
])('an error event is thrown after what came before it: %j', async (text, code, message) => {
  const client = await serve([{ text: part(0, 'a') + text }])
  const { data, error } = await read(client.stream('j1'))
  expect(data).toEqual(['{"text":"a"}'])
  expect(error).toBeInstanceOf(AskonceError)
  expect(error).toMatchObject({ code, message, status: null, retryable: false })
  expect(server?.arrived).toHaveLength(1)
})

it('an event that only has an error beside other members is the provider’s own', async () => {
  const own = 'data: {"error":null,"text":"a"}\n\n'
  const client = await serve([{ text: own + done(1) }])
  expect((await read(client.stream('j1'))).data).toEqual(['{"error":null,"text":"a"}', '[DONE]'])
})

it('a refusal before the first event is an error with its status', async () => {
  const body = JSON.stringify({ code: 'job_uncertain', detail: 'held', retryable: false, state: 'uncertain' })
  const client = await serve([{ text: body, status: 422 }])
  const { error } = await read(client.stream('j1'))
  expect(error).toMatchObject({ code: 'job_uncertain', status: 422, state: 'uncertain' })
})

it('connections that bring nothing are bounded, whatever ends them', async () => {
  const ending = await serve([{ text: soon, after: 'break' }], { maxRetries: 3 })
  expect((await read(ending.stream('j1'))).error).toBeInstanceOf(AskonceConnectionError)
  expect(server?.arrived).toHaveLength(4)
  await server?.stop()
  const failing = await serve([{ text: soon + errorEvent('unavailable', true) }], { maxRetries: 2 })
  expect((await read(failing.stream('j1'))).error).toMatchObject({ code: 'unavailable' })
  expect(server?.arrived).toHaveLength(3)
})

it('a connection that falls silent is made anew', async () => {
  const client = await serve([{ text: soon + part(0, 'a'), after: 'stay' }, { text: done(1) }])
  const { data, error } = await read(client.stream('j1', { idleMs: 100 }))
  expect([data, error]).toEqual([['{"text":"a"}', '[DONE]'], null])
  expect(lastIds()).toEqual([undefined, '1-0'])
})

it('a signal, or leaving the loop, closes the connection', async () => {
  const client = await serve([{ text: part(0, 'a') + part(1, 'b'), after: 'stay' }])
  const controller = new AbortController()
  const reason = new Error('enough')
  const { data, error } = await read(
    abortingAfter(client.stream('j1', { signal: controller.signal }), 2, () => controller.abort(reason)),
  )
  expect([data.length, error]).toEqual([2, reason])
  for await (const event of client.stream('j1')) {
    expect(event.id).toBe('1-0')
    break
  }
  // leakCheck, and the server's own end, see whether a connection is left.
  expect(server?.arrived).toHaveLength(2)
})

async function* abortingAfter<T>(events: AsyncIterable<T>, count: number, abort: () => void): AsyncGenerator<T> {
  let seen = 0
  for await (const event of events) {
    yield event
    seen += 1
    if (seen === count) abort()
  }
}
