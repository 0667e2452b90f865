import type { ServerResponse } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import { anthropicError, openaiError } from './upstream-answers.ts'
import { fits, type Arrival, type Behaviour } from './upstream-script.ts'
import type { Hold } from './upstream-record.ts'

/** Behaviours that begin an answer. */
export type Begun = Extract<Behaviour, { kind: 'answer' | 'hang' | 'cut' | 'unfinished' | 'stream_error' }>

export interface StreamParts {
  arrival: Arrival
  behaviour: Begun
  /** The plain answer to the request. */
  text: string
  headers: Record<string, string>
  /** What holds when the behaviour says nothing of it. */
  defaults: { chunks: number; chunkDelayMs: number }
  /** Those that hold requests after some events of a stream. */
  holds: ReadonlySet<Hold>
}

/** Whether the upstream answers this request with server-sent events. */
export function isStreamed({ json, path }: Arrival): boolean {
  return json['stream'] === true && path !== '/v1/embeddings'
}

/** Whether the behaviour begins an answer, so that it can be a stream. */
export function isBegun(behaviour: Behaviour): behaviour is Begun {
  if (behaviour.kind === 'hang') return behaviour.afterEvents !== undefined
  if (behaviour.kind === 'cut') return behaviour.after !== 'nothing'
  return behaviour.kind === 'answer' || behaviour.kind === 'unfinished' || behaviour.kind === 'stream_error'
}

/**
 * Answers with the events of the plain answer, one write each. What the behaviour is decides how far it goes, and what comes
 * instead of the rest; a hold keeps it waiting on the way.
 */
export async function sendStream(response: ServerResponse, parts: StreamParts): Promise<void> {
  const { arrival, behaviour, headers, defaults, holds } = parts
  const custom = behaviour.kind === 'answer' ? behaviour.headers : undefined
  response.writeHead(200, { ...headers, 'content-type': 'text/event-stream; charset=utf-8', ...custom })
  response.flushHeaders()
  if (behaviour.kind === 'answer' && behaviour.body !== undefined) {
    response.end(behaviour.body)
    return
  }
  const pace = behaviour.kind === 'answer' ? behaviour : undefined
  const delayMs = pace?.chunkDelayMs ?? defaults.chunkDelayMs
  const events = eventsOf(parts, pace?.chunks ?? defaults.chunks)
  const waits = [...holds].filter(({ afterEvents, match }) => afterEvents !== undefined && fits(match, arrival))
  const last = lastOf(behaviour, events.length)
  for (let sent = 0; ; sent += 1) {
    for (const hold of waits) if (Math.min(hold.afterEvents ?? 0, last) === sent) await hold.arrive()
    if (response.destroyed || sent >= last) break
    if (sent > 0 && delayMs > 0) await delay(delayMs, undefined, { ref: false })
    response.write(events[sent] ?? '')
  }
  if (response.destroyed || behaviour.kind === 'hang') return
  if (behaviour.kind === 'cut') {
    // Sends what is written, then closes without the end of the body.
    response.socket?.destroySoon()
    return
  }
  response.end(behaviour.kind === 'stream_error' ? errorEvent(arrival, behaviour.error) : '')
}

/** How many events are sent. Half of them: at least one is, and the ending is not. */
function lastOf(behaviour: Begun, count: number): number {
  if (behaviour.kind === 'answer') return count
  if (behaviour.kind === 'cut' && behaviour.after !== 'half') return 0
  return behaviour.afterEvents ?? Math.floor(count / 2)
}

/** The events that this answer is written as. */
function eventsOf({ arrival, behaviour, text }: StreamParts, chunks: number): string[] {
  const scripted = behaviour.kind === 'answer' ? behaviour.events : undefined
  return (scripted ?? makers[arrival.path]?.(JSON.parse(text) as never, chunks, arrival) ?? []).map((event) => {
    if (typeof event === 'string') return `data: ${event}\n\n`
    const name = arrival.path === '/v1/chat/completions' ? '' : `event: ${String((event as { type?: string }).type)}\n`
    return `${name}data: ${JSON.stringify(event)}\n\n`
  })
}

interface Completion {
  choices: [{ message: { content: string }; finish_reason: string }]
  usage: object
}

interface ResponseAnswer {
  output: [{ id: string; content: [{ text: string }] }]
}

interface Message {
  content: [{ text: string }]
  stop_reason: string
  stop_sequence: null
  usage: { input_tokens: number; output_tokens: number }
}

const makers: Record<string, (answer: never, chunks: number, arrival: Arrival) => (object | string)[]> = {
  '/v1/chat/completions': ({ choices, usage, ...head }: Completion, chunks, { json }) => {
    const withUsage = (json['stream_options'] as { include_usage?: unknown } | null | undefined)?.include_usage === true
    const chunk = (choice: object | null, more: object = {}): object =>
      Object.assign({}, head, { object: 'chat.completion.chunk', choices: choice === null ? [] : [choice] }, more)
    const part = (delta: object, reason: string | null = null): object =>
      chunk({ index: 0, delta, finish_reason: reason }, withUsage ? { usage: null } : {})
    const [{ message, finish_reason: reason }] = choices
    return [
      part({ role: 'assistant', content: '', refusal: null }),
      ...pieces(message.content, chunks).map((content) => part({ content })),
      part({}, reason),
      ...(withUsage ? [chunk(null, { usage })] : []),
      '[DONE]',
    ]
  },
  '/v1/responses': (answer: ResponseAnswer, chunks) => {
    const [item] = answer.output
    const [content] = item.content
    const begun = { ...answer, status: 'in_progress', output: [], usage: null }
    const place = { item_id: item.id, output_index: 0, content_index: 0 }
    return [
      { type: 'response.created', response: begun },
      { type: 'response.in_progress', response: begun },
      { type: 'response.output_item.added', output_index: 0, item: { ...item, content: [] } },
      { type: 'response.content_part.added', ...place, part: { ...content, text: '' } },
      ...pieces(content.text, chunks).map((delta) =>
        Object.assign({ type: 'response.output_text.delta', delta }, place),
      ),
      { type: 'response.output_text.done', ...place, text: content.text },
      { type: 'response.content_part.done', ...place, part: content },
      { type: 'response.output_item.done', output_index: 0, item },
      { type: 'response.completed', response: answer },
    ].map((event, index) => Object.assign(event, { sequence_number: index }))
  },
  '/v1/messages': (answer: Message, chunks) => {
    const { content, usage, stop_reason: reason, stop_sequence: sequence } = answer
    const begun = { content: [], stop_reason: null, usage: { ...usage, output_tokens: 1 } }
    return [
      { type: 'message_start', message: { ...answer, ...begun } },
      { type: 'content_block_start', index: 0, content_block: { ...content[0], text: '' } },
      { type: 'ping' },
      ...pieces(content[0].text, chunks).map((text) => ({
        type: 'content_block_delta',
        index: 0,
        delta: { type: 'text_delta', text },
      })),
      { type: 'content_block_stop', index: 0 },
      {
        type: 'message_delta',
        delta: { stop_reason: reason, stop_sequence: sequence },
        usage: { output_tokens: usage.output_tokens },
      },
      { type: 'message_stop' },
    ]
  },
}

/** A text in so many pieces, of about equal length; fewer when it has fewer characters. */
function pieces(text: string, count: number): string[] {
  const length = Math.max(Math.ceil(text.length / count), 1)
  return Array.from({ length: Math.ceil(text.length / length) }, (_, at) => text.slice(at * length, (at + 1) * length))
}

/** As the provider of the path writes an error into a stream. */
function errorEvent({ path }: Arrival, error: object | undefined): string {
  const message = 'The server had an error'
  if (path === '/v1/messages') {
    return `event: error\ndata: ${JSON.stringify(error ?? anthropicError('overloaded_error', message))}\n\n`
  }
  if (path === '/v1/responses') {
    const event = { type: 'error', code: 'server_error', message, param: null, sequence_number: 99 }
    return `event: error\ndata: ${JSON.stringify(error ?? event)}\n\n`
  }
  return `data: ${JSON.stringify(error ?? openaiError('server_error', null, message))}\n\n`
}
