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
/** The metadata member that names the attempt at the provider. */
const member = 'askonce_attempt'
/** OpenAI's limit of pairs in `metadata`. */
const maxPairs = 16

/** absent: the provider says that it has none, so far. failed: it could not be asked, or what came is no whole answer. */
export type LookUp = AnswerVerdict | 'absent' | 'failed'

/** The answers that a provider keeps because the request said `"store": true`. */
export interface StoredAnswers {
  /**
   * The request with the attempt's name in its metadata, all other characters as they were. Null: its answer cannot be looked up,
   * because nobody asked to store it or `metadata` has no room, and it is sent as it is.
   */
  marked: (operation: Operation, request: Buffer, attempt: string) => Buffer | null
  /** Asks for the answer of an attempt; GETs only, `timeoutMs` for each of the two. Never rejects. */
  find: (attempt: string, model: string, timeoutMs: number, signal: AbortSignal) => Promise<LookUp>
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
    marked: (operation, request, attempt) => (operation === storedOperation ? mark(request, attempt) : null),
    find: async (attempt, model, timeoutMs, signal) => {
      const query = `${encodeURIComponent(`metadata[${member}]`)}=${encodeURIComponent(attempt)}`
      const listed = idOf(
        parseBody((await get(`${path}?${query}&limit=1`, timeoutMs, signal))?.response.body ?? noBody),
        attempt,
      )
      if (listed === 'absent' || listed === 'failed') return listed
      // Read by its id, so that what is stored are bytes that the provider wrote as one answer.
      const found = await get(`${path}/${encodeURIComponent(listed.id)}`, timeoutMs, signal)
      if (found === null || !isOf(parseBody(found.response.body), attempt)) return 'failed'
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
function idOf(list: unknown, attempt: string): { id: string } | 'absent' | 'failed' {
  if (!isObject(list) || !Array.isArray(list['data'])) return 'failed'
  const [first] = list['data'] as unknown[]
  if (first === undefined) return 'absent'
  if (!isObject(first) || !isOf(first, attempt)) return 'failed'
  return typeof first['id'] === 'string' ? { id: first['id'] } : 'failed'
}

function isOf(completion: unknown, attempt: string): boolean {
  return isObject(completion) && isObject(completion['metadata']) && completion['metadata'][member] === attempt
}

function mark(request: Buffer, attempt: string): Buffer | null {
  // Most requests say nothing of the kind: they are not parsed.
  if (!request.includes('"store"') || !isUtf8(request)) return null
  const text = request.toString()
  const document = parse(text)
  if (document === null || document.value['store'] !== true) return null
  const pair = `"${member}":${JSON.stringify(attempt)}`
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
