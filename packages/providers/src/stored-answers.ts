import { isUtf8 } from 'node:buffer'
import {
  parseJsonInPlace,
  type AnswerVerdict,
  type Json,
  type JsonObject,
  type Operation,
  type Verdict,
} from '@askonce/core'
import { readPlain, type AnswerReader } from './answer-reader.ts'
import type { Response, Wire } from './exchange.ts'
import { isObject, parseBody } from './json-value.ts'

/** The operation whose answers OpenAI stores and lists by metadata. */
export const storedOperation = 'chat.completions' satisfies Operation
/** The metadata member that holds the mark of the attempt. Submissions that bring names with this prefix are refused. */
const member = 'askonce_attempt'
/** OpenAI's limit of pairs in `metadata`. */
const maxPairs = 16

/** absent: the provider says that it has none, so far. failed: it could not be asked, or what came is no whole answer. */
export type LookUp = AnswerVerdict | 'absent' | 'failed'

/** An attempt whose answer may be at the provider. */
export interface LostAttempt {
  /** Random, and written down before the request left: what the caller may write can never be it. */
  mark: string
  model: string
  /** The stored request. */
  request: Buffer
}

/** The answers that a provider keeps because the request said `"store": true`. */
export interface StoredAnswers {
  /**
   * The request with the attempt's mark in its metadata, all other characters as they were. Null: its answer cannot be looked up,
   * because nobody asked to store it or `metadata` has no room, and it is sent as it is.
   */
  marked: (operation: Operation, request: Buffer, mark: string) => Buffer | null
  /** Asks for the answer of an attempt; GETs only, `timeoutMs` for each of the two. Never rejects. */
  find: (lost: LostAttempt, timeoutMs: number, signal: AbortSignal) => Promise<LookUp>
}

/** `path` is that of the operation, with the prefix of the base URL. */
export function createStoredAnswers(
  wire: Wire,
  path: string,
  classifyAs: (response: Response, model: string, reader: AnswerReader) => Promise<Verdict>,
): StoredAnswers {
  const get = async (at: string, timeoutMs: number, signal: AbortSignal): Promise<Found | null> => {
    const reader = readPlain(storedOperation)
    const exchange = await wire.send({
      path: at,
      body: null,
      timeoutMs,
      signal,
      onSent: () => undefined,
      streamed: false,
      reader,
    })
    return exchange.kind === 'response' && exchange.status === 200 ? { response: exchange, reader } : null
  }
  return {
    marked: (operation, request, mark) => (operation === storedOperation ? withMark(request, mark) : null),
    find: async ({ mark, model, request }, timeoutMs, signal) => {
      const query = `${encodeURIComponent(`metadata[${member}]`)}=${encodeURIComponent(mark)}`
      const page = await get(`${path}?${query}&limit=1`, timeoutMs, signal)
      const listed = idOf(parseBody(page?.response.body ?? noBody), mark)
      if (listed === 'absent' || listed === 'failed') return listed
      // Read by its id, so that what is stored are bytes that the provider wrote as one answer.
      const found = await get(`${path}/${encodeURIComponent(listed.id)}`, timeoutMs, signal)
      if (found === null || !answers(parseBody(found.response.body), mark, model, request)) return 'failed'
      const verdict = await classifyAs(found.response, model, found.reader)
      return verdict.kind === 'answer' ? verdict : 'failed'
    },
  }
}

interface Found {
  response: Response
  reader: AnswerReader
}

const noBody = Buffer.alloc(0)

/** A server that ignores the filter lists answers of others: the first must carry the name that was asked for. */
function idOf(list: unknown, mark: string): { id: string } | 'absent' | 'failed' {
  if (!isObject(list) || !Array.isArray(list['data'])) return 'failed'
  const [first] = list['data'] as unknown[]
  if (first === undefined) return 'absent'
  if (!isObject(first) || !isOf(first, mark)) return 'failed'
  return typeof first['id'] === 'string' ? { id: first['id'] } : 'failed'
}

function isOf(completion: unknown, mark: string): boolean {
  return isObject(completion) && isObject(completion['metadata']) && completion['metadata'][member] === mark
}

/** A name with a date stands for one model, and the answer gives it back; other names may be aliases. */
const dated = /-\d{4}-\d{2}-\d{2}$/

/** Whether a completion fits the request that it is taken for: it has the mark, the metadata that was sent, and no other dated model. */
function answers(completion: unknown, mark: string, model: string, request: Buffer): boolean {
  if (!isObject(completion) || !isOf(completion, mark)) return false
  if (dated.test(model) && completion['model'] !== model) return false
  const asked = parseBody(request)
  const sent = isObject(asked) && isObject(asked['metadata']) ? asked['metadata'] : {}
  const kept = completion['metadata'] as JsonObject
  return Object.entries(sent).every(([name, value]) => kept[name] === value)
}

function withMark(request: Buffer, mark: string): Buffer | null {
  // Most requests say nothing of the kind: they are not parsed.
  if (!request.includes('"store"') || !isUtf8(request)) return null
  const text = request.toString()
  const document = parse(text)
  if (document === null || document.value['store'] !== true) return null
  const pair = `"${member}":${JSON.stringify(mark)}`
  const { metadata } = document.value
  if (metadata === undefined)
    return Buffer.from(insert(text, document.startOf(document.value), `"metadata":{${pair}},`))
  if (!isMembers(metadata)) return null
  const pairs = Object.keys(metadata).length
  if (pairs >= maxPairs || Object.hasOwn(metadata, member)) return null
  return Buffer.from(insert(text, document.startOf(metadata), pairs === 0 ? pair : `${pair},`))
}

/** Puts `added` behind the opening brace at `brace`. */
function insert(text: string, brace: number, added: string): string {
  return `${text.slice(0, brace + 1)}${added}${text.slice(brace + 1)}`
}

function parse(text: string): { value: JsonObject; startOf: (part: object) => number } | null {
  try {
    const { value, startOf } = parseJsonInPlace(text)
    return isMembers(value) ? { value, startOf } : null
  } catch {
    return null
  }
}

function isMembers(value: Json): value is JsonObject {
  return isObject(value) && Object.getPrototypeOf(value) === Object.prototype
}
