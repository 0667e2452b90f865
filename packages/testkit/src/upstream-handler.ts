import { createHash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { openaiError, upstreamAnswer, upstreamModel, upstreamModels } from './upstream-answers.ts'
import { epochMs, type Books, type Hold, type LogLine } from './upstream-record.ts'
import type { StoredCompletions } from './upstream-stored.ts'
import { isBegun, isStreamed, sendStream } from './upstream-stream.ts'
import { compileScript, fits, type Arrival, type Behaviour, type Script } from './upstream-script.ts'

/** State of one upstream. */
export interface Core {
  books: Books
  stored: StoredCompletions
  holds: Set<Hold>
  pick: (arrival: Arrival) => Behaviour | undefined
  waiting: Set<ServerResponse>
  latencyMs: number
  answerBytes: number
  chunks: number
  chunkDelayMs: number
}

const endpoints = new Set(['/v1/chat/completions', '/v1/responses', '/v1/embeddings', '/v1/messages'])

/** One HTTP request, from its last byte in to the last byte out. */
export async function handle(core: Core, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = (request.url ?? '').split('?')[0] ?? ''
  const body = await readAll(request)
  const route = `${request.method} ${path}`
  if (route === 'GET /v1/models') return sendJson(response, 200, upstreamModels)
  const model = upstreamModel(route)
  if (model !== undefined) return sendJson(response, 200, model)
  if (route === 'GET /__calls') return sendJson(response, 200, report(core))
  if (route === 'GET /__log') return sendJson(response, 200, logOf(core, request))
  if (route === 'POST /__script') {
    core.pick = compileScript(JSON.parse(body.toString()) as Script)
    return sendJson(response, 200, '{}')
  }
  if (request.method === 'GET' && path.startsWith('/v1/chat/completions')) return lookUp(core, request, body, response)
  if (request.method !== 'POST' || !endpoints.has(path)) {
    return sendJson(response, 404, JSON.stringify({ error: { message: `no ${route}`, type: 'not_found_error' } }))
  }
  core.books.arrivals.increment()
  const arrival = readArrival(core, path, request, body)
  const line = core.books.note(arrival)
  core.waiting.add(response)
  response.once('close', () => {
    core.waiting.delete(response)
    line.endedAt = epochMs()
  })
  await behave(core, arrival, line, core.pick(arrival) ?? { kind: 'answer' }, response)
}

function lookUp(core: Core, request: IncomingMessage, body: Buffer, response: ServerResponse): void {
  const url = new URL(request.url ?? '', 'http://upstream')
  core.books.lookUps += 1
  const behaviour = core.pick({ ...readArrival(core, url.pathname, request, body), lookUp: true })
  if (behaviour?.kind === 'look_up_fails') return sendJson(response, behaviour.status, '{}')
  const found = core.stored.read(url)
  if (found === null) return sendJson(response, 404, JSON.stringify(openaiError('invalid_request_error')))
  sendJson(response, 200, found)
}

async function behave(
  core: Core,
  arrival: Arrival,
  line: LogLine,
  behaviour: Behaviour,
  response: ServerResponse,
): Promise<void> {
  if (behaviour.kind === 'reset' || behaviour.kind === 'look_up_fails') {
    response.socket?.resetAndDestroy()
    return
  }
  const billed = behaviour.kind === 'refuse' ? (behaviour.billed ?? false) : true
  const call = billed ? core.books.bill(arrival) : 0
  const answer = upstreamAnswer(
    arrival,
    call,
    (behaviour.kind === 'answer' ? behaviour.answerBytes : undefined) ?? core.answerBytes,
  )
  const text = answer.body
  if (billed) Object.assign(line, { inputTokens: answer.inputTokens, outputTokens: answer.outputTokens })
  core.stored.keep(arrival, behaviour, text)
  const streamed = isStreamed(arrival)
  if (behaviour.kind === 'hang' && !(streamed && isBegun(behaviour))) return
  if (billed) {
    const early = [...core.holds].filter(({ afterEvents }) => afterEvents === undefined)
    for (const hold of early) if (fits(hold.match, arrival)) await hold.arrive()
  }
  const delayMs = (behaviour.kind === 'hang' ? undefined : behaviour.delayMs) ?? core.latencyMs
  if (delayMs > 0) await delay(delayMs, undefined, { ref: false })
  if (response.destroyed) return

  const common = { 'content-type': 'application/json', 'x-request-id': `req_${arrival.number}` }
  if (streamed && isBegun(behaviour)) {
    return sendStream(response, { arrival, behaviour, text, headers: common, defaults: core, holds: core.holds })
  }
  switch (behaviour.kind) {
    case 'answer': {
      const body = behaviour.body ?? text
      return send(response, 200, { ...common, ...behaviour.headers }, body)
    }
    case 'garbage': {
      const body = behaviour.body ?? '<html><body>It works!</body></html>'
      return send(response, 200, { ...common, 'content-type': behaviour.contentType ?? 'text/html' }, body)
    }
    case 'refuse': {
      const refusal = typeof behaviour.body === 'string' ? behaviour.body : JSON.stringify(behaviour.body ?? {})
      const type = typeof behaviour.body === 'string' ? 'text/html' : 'application/json'
      return send(response, behaviour.status, { ...common, 'content-type': type, ...behaviour.headers }, refusal)
    }
    case 'hang':
      return
    case 'unfinished':
      return send(response, 200, common, text.slice(0, text.length / 2))
    case 'stream_error':
      return send(response, 200, common, JSON.stringify(behaviour.error ?? openaiError('server_error')))
    case 'cut':
      return cut(response, common, text, behaviour.after)
  }
}

function cut(
  response: ServerResponse,
  headers: Record<string, string>,
  body: string,
  after: 'nothing' | 'head' | 'half',
): void {
  const { socket } = response
  if (after !== 'nothing') {
    response.writeHead(200, { ...headers, 'content-length': Buffer.byteLength(body) })
    response.flushHeaders()
  }
  if (after === 'half') response.write(body.slice(0, body.length / 2))
  // Sends what is written, then closes.
  socket?.destroySoon()
}

function readArrival(core: Core, path: string, request: IncomingMessage, body: Buffer): Arrival {
  const json = parseObject(body)
  const { user, model } = json
  return {
    number: core.books.arrivals.value,
    path,
    lookUp: false,
    marker: typeof user === 'string' ? user : createHash('sha256').update(body).digest('hex'),
    model: typeof model === 'string' ? model : '',
    body,
    json,
    headers: request.headers,
  }
}

/** A body that is no JSON object still arrived; its marker is its digest. */
function parseObject(body: Buffer): Record<string, unknown> {
  try {
    return { ...(JSON.parse(body.toString()) as Record<string, unknown>) }
  } catch {
    return {}
  }
}

async function readAll(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

function report({ books, waiting }: Core): string {
  return JSON.stringify({
    calls: books.calls.value,
    arrivals: books.arrivals.value,
    look_ups: books.lookUps,
    in_flight: waiting.size,
    by_marker: Object.fromEntries(books.callsBy),
    last: books.last === null ? null : { headers: books.last.headers, json: books.last.json },
  })
}

/** The log of the markers that begin with `prefix`: of a long run nobody wants the whole. */
function logOf({ books }: Core, request: IncomingMessage): string {
  const prefix = new URL(request.url ?? '', 'http://upstream').searchParams.get('prefix') ?? ''
  return JSON.stringify(books.log.filter(({ marker }) => marker.startsWith(prefix)))
}

function sendJson(response: ServerResponse, status: number, body: string): void {
  send(response, status, { 'content-type': 'application/json' }, body)
}

function send(response: ServerResponse, status: number, headers: Record<string, string>, body: string): void {
  response.writeHead(status, { ...headers, 'content-length': Buffer.byteLength(body) }).end(body)
}
