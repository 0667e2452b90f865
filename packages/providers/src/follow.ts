import { createSplitter, readEvent, type Operation, type SseEvent } from '@askonce/core'
import { answerIdOf } from './answer-id.ts'
import { checkShape, type ShapeCheck } from './answer-shape.ts'
import { isObject, parseBody, stringMember, type JsonObject } from './json-value.ts'
import { findProviderError } from './provider-error.ts'
import { meaningOf } from './stream-meaning.ts'

/** Who follows a streamed answer. Neither function may throw. */
export interface StreamSink {
  /**
   * Complete server-sent events, byte for byte as the provider wrote them, several in one buffer, as soon as they are there.
   * Never those that complete the answer, nor an error event, nor anything behind either: they are shown from what is stored.
   */
  onEvents: (events: Buffer) => void
  /** Called at most once, before the first `onEvents` whose bytes show the provider's id of the answer. */
  onAnswerId?: (id: string) => void
}

/** One streamed answer, as it comes. */
export interface Follower {
  /** Takes the next bytes of a 2xx body. */
  push: (chunk: Buffer) => void
  /** What an error event said; null: none has come. */
  error: () => string | null
  /**
   * What the whole body is; also takes it, when none of it was pushed. `json` of a complete stream has the `id`, `model` and `usage`
   * that the plain answer would have. A plain JSON answer although a stream was asked for is judged as such.
   */
  check: (body: Buffer) => ShapeCheck
}

/** Follows the answer to a request that says `"stream": true`. */
export function followStream(operation: Operation, request: JsonObject, sink: StreamSink): Follower {
  const splitter = createSplitter()
  const meaning = meaningOf(operation, typeof request['n'] === 'number' ? request['n'] : 1)
  /** Bytes before the first that says whether this is JSON: no line of an event begins with a brace. */
  let undecided: Buffer[] | null = []
  let isJson = false
  let sawEvents = false
  let hiding = false
  let ended = false
  let toldId = false
  let error: string | null = null

  /** Takes one event; whether it may be shown. */
  const take = (event: SseEvent): boolean => {
    if (ended || (event.data === null && !event.foreign)) return !hiding
    if (event.data !== null) sawEvents = true
    if (event.data === '[DONE]') {
      meaning.done()
      ended = true
      hiding = true
      return false
    }
    const json = event.data === null ? undefined : parseText(event.data)
    const type = (isObject(json) ? stringMember(json, 'type') : null) ?? event.name
    const fault = faultOf(json, type, event)
    if (fault !== null) {
      error ??= fault
      hiding = true
    } else if (isObject(json)) {
      if (meaning.read(json, type)) hiding = true
      tellId()
    }
    return !hiding
  }
  const tellId = (): void => {
    const id = toldId ? null : answerIdOf(operation, meaning.answer())
    if (id === null) return
    toldId = true
    sink.onAnswerId?.(id)
  }
  const push = (chunk: Buffer): void => {
    let bytes = chunk
    if (undecided !== null) {
      undecided.push(chunk)
      const first = chunk.find((byte) => !blank.has(byte))
      if (first === undefined) return
      isJson = first === brace || first === bracket
      bytes = Buffer.concat(undecided)
      undecided = null
    }
    if (isJson) return
    const shown = splitter.push(bytes).filter((raw) => take(readEvent(raw)))
    const [only] = shown
    if (only !== undefined) sink.onEvents(shown.length === 1 ? only : Buffer.concat(shown))
  }

  return {
    push,
    error: () => error,
    check: (body) => {
      if (undecided?.length === 0) push(body)
      if (isJson) return checkShape(operation, parseBody(body))
      // The blank line behind the last event is not insisted on: what it says is there.
      const last = readEvent(splitter.rest())
      if (last.data === '[DONE]' || (last.data !== null && parseText(last.data) !== undefined)) take(last)
      if (error !== null) return { ok: false, detail: error }
      if (!sawEvents) return { ok: false, detail: 'the body holds no server-sent events' }
      const missing = meaning.missing()
      if (missing !== null) return { ok: false, detail: `the stream ended before the answer did: ${missing}` }
      return { ok: true, transcript: true, json: meaning.answer(), flags: meaning.flags() }
    },
  }
}

/** White space and the bytes of a byte order mark. */
const blank: ReadonlySet<number> = new Set([0x20, 0x09, 0x0a, 0x0d, 0xef, 0xbb, 0xbf])
const [brace, bracket] = [0x7b, 0x5b]

/** Why an event is none of an answer: an error of the provider, or no JSON. */
function faultOf(json: unknown, type: string | null, { data }: SseEvent): string | null {
  if (data === null) return 'the body holds something else than server-sent events'
  if (type === 'error') return said(json, data)
  if (json === undefined) return 'an event of the stream is not JSON'
  if (!isObject(json)) return null
  const { response } = json
  if (type === 'response.failed') return said(response, null)
  return json['error'] === undefined || json['error'] === null ? null : said(json, null)
}

function said(json: unknown, text: string | null): string {
  const error = findProviderError(json)
  const message = error?.message ?? (isObject(json) ? stringMember(json, 'message') : text)
  const names = error?.names ?? (isObject(json) ? [stringMember(json, 'code')].filter((code) => code !== null) : [])
  const [name] = names
  return `the stream holds an error event${message ? `: ${message}` : ''}${name === undefined ? '' : ` (${name})`}`
}

function parseText(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined
  }
}
