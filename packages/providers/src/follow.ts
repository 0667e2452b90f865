import { createSplitter, endsStream, isDone, isWholeEvent, readEvent, type Operation } from '@askonce/core'
import { answerIdOf } from './answer-id.ts'
import { readJson, type AnswerReader } from './answer-reader.ts'
import { choiceError, errorIn } from './answer-shape.ts'
import type { Standing } from './exchange.ts'
import { JsonText } from './json-text.ts'
import { isObject, stringMember, type JsonObject } from './json-value.ts'
import { LargeEvent } from './large-event.ts'
import { findProviderError } from './provider-error.ts'
import { meaningOf } from './stream-meaning.ts'

/** Who follows a streamed answer. Neither function may throw. */
export interface StreamSink {
  /**
   * Complete server-sent events, byte for byte as the provider wrote them, several in one buffer, as soon as they are there.
   * Never those that complete the answer, nor an error event, nor one that is very large, nor anything behind either: they are shown
   * from what is stored.
   */
  onEvents: (events: Buffer) => void
  /** Called at most once, before the first `onEvents` whose bytes show the provider's id of the answer. */
  onAnswerId?: (id: string) => void
}

/** A larger event is read in pieces as it comes, and is not shown before the answer is stored. */
const largeBytes = 1024 * 1024

/** Follows the answer to a request that says `"stream": true`. */
export function followStream(operation: Operation, request: JsonObject, sink: StreamSink): AnswerReader {
  const splitter = createSplitter()
  const meaning = meaningOf(operation, typeof request['n'] === 'number' ? request['n'] : 1)
  /** Bytes before the first that says whether this is JSON: no line of an event begins with a brace. */
  let undecided: Buffer[] | null = []
  /** A plain JSON answer although a stream was asked for is judged as such. */
  let json: AnswerReader | null = null
  let large: LargeEvent | null = null
  let sawEvents = false
  /** Whether a line has come that is none of an event. */
  let sawForeign = false
  /** Whether an event of an answer has come. */
  let sawContent = false
  let hiding = false
  let ended = false
  let parts = 0
  let toldId = false
  let error: string | null = null
  /** The error with which the stream began, as JSON. */
  let refusal: JsonObject | null = null

  /** Takes one event; whether it may be shown. By the standard, one without data says nothing. */
  const take = (raw: Buffer): boolean => {
    const { name, data, foreign } = readEvent(raw)
    if (ended) return !hiding
    if (data === null) {
      sawForeign ||= foreign
      if (foreign && !sawEvents) hiding = true
      return !hiding
    }
    sawEvents = true
    if (isDone(data)) {
      end()
      return false
    }
    const value = parseText(data)
    if (value === undefined && /^\s*[[{]/.test(data)) fail('an event of the stream is not JSON')
    else if (value === undefined && name === 'error') fail(said(undefined, data))
    else if (value !== undefined) takeValue(value, name)
    // No client reads it in a stream of JSON; what it says of the answer is nothing.
    else if (name === null) hiding = true
    return !hiding
  }
  const takeLarge = ({ name, hasData, json: skimmer }: LargeEvent): void => {
    if (!hasData || ended) return
    sawEvents = true
    const value = skimmer.value()
    if (value === undefined) fail('an event of the stream is not JSON')
    else takeValue(value, name)
  }
  const takeValue = (parsed: unknown, name: string | null): void => {
    // As a body, an error may come in a list.
    const value: unknown = Array.isArray(parsed) && parsed.length === 1 ? parsed[0] : parsed
    const type = name === 'error' ? name : ((isObject(value) ? stringMember(value, 'type') : null) ?? name)
    const fault = faultOf(value, type)
    if (fault !== null) {
      if (!sawContent && isObject(value) && !isFailedAnswer(value, type)) refusal = value
      fail(fault)
    }
    if (!isObject(value) || type === 'ping') return
    sawContent ||= fault === null
    if (fault === null && Array.isArray(value['choices'])) parts += 1
    if (meaning.read(value, type)) hiding = true
    if (meaning.isOver()) end()
    if (fault === null) tellId()
  }
  const end = (): void => {
    meaning.done()
    ended = true
    hiding = true
  }
  const fail = (message: string): void => {
    error ??= message
    hiding = true
  }
  const tellId = (): void => {
    const id = toldId ? null : answerIdOf(operation, meaning.answer())
    if (id === null) return
    toldId = true
    sink.onAnswerId?.(id)
  }

  const push = (chunk: Buffer): void => {
    if (json !== null) return json.push(chunk)
    let bytes = chunk
    if (undecided !== null) {
      undecided.push(chunk)
      const first = chunk.find((byte) => !blank.has(byte))
      if (first === undefined) return
      bytes = undecided.length === 1 ? chunk : Buffer.concat(undecided)
      undecided = null
      if (first === brace || first === bracket) {
        json = readJson(operation, new JsonText())
        return json.push(bytes)
      }
    }
    const shown: Buffer[] = []
    for (const raw of splitter.push(bytes)) {
      if (large === null) {
        if (take(raw)) shown.push(raw)
      } else {
        large.push(raw)
        takeLarge(large)
        large = null
      }
    }
    if (large !== null || splitter.restBytes() > largeBytes) {
      large ??= new LargeEvent()
      hiding = true
      for (const piece of splitter.take()) large.push(piece)
    }
    const [only] = shown
    if (only !== undefined) sink.onEvents(shown.length === 1 ? only : Buffer.concat(shown))
  }

  /** The blank line behind the last event is not insisted on: what it says is there. */
  const takeRest = (): void => {
    if (json !== null || ended) return
    const [rest] = splitter.restBytes() > 0 ? [Buffer.concat(splitter.take())] : []
    if (large !== null) {
      if (rest !== undefined) large.push(rest)
      if (large.json.value() !== undefined) takeLarge(large)
      large = null
    } else if (rest !== undefined && isWholeEvent(rest)) take(rest)
  }

  const standing = (): Standing => {
    if (json !== null) return json.standing()
    if (ended) return 'ended'
    if (large === null && splitter.restBytes() > 0 && splitter.restBytes() < 64 * 1024 && endsStream(splitter.rest()))
      return 'ended'
    return error !== null || meaning.missing() === null ? 'whole' : 'open'
  }

  return {
    push,
    standing,
    parts: () => parts,
    end: takeRest,
    check: async (body) => {
      if (undecided?.length === 0) push(body)
      if (json !== null) return json.check(body)
      takeRest()
      const none = { ok: false, failed: null, refusal: null, body } as const
      if (error !== null)
        return { ...none, detail: error, refusal, failed: meaning.isBilled() ? meaning.answer() : null }
      if (!sawEvents)
        return { ...none, detail: `the body holds ${sawForeign ? 'something else than' : 'no'} server-sent events` }
      const missing = meaning.missing()
      if (missing !== null) return { ...none, detail: `the stream ended before the answer did: ${missing}` }
      return { ok: true, transcript: true, json: meaning.answer(), flags: meaning.flags(), body }
    },
  }
}

/** White space and the bytes of a byte order mark. */
const blank: ReadonlySet<number> = new Set([0x20, 0x09, 0x0a, 0x0d, 0xef, 0xbb, 0xbf])
const [brace, bracket] = [0x7b, 0x5b]

/** Whether the error stands in an answer that had begun. */
function isFailedAnswer(value: JsonObject, type: string | null): boolean {
  return type === 'response.failed' || Array.isArray(value['choices'])
}

/** Why an event is none of an answer: the provider says that it failed. */
function faultOf(json: unknown, type: string | null): string | null {
  if (type === 'error') return said(json, null)
  if (!isObject(json)) return null
  const { response } = json
  if (type === 'response.failed') return said(response, null)
  if (errorIn(json) !== null) return said(json, null)
  return choiceError(json['choices'])
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
