import {
  ExactInteger,
  fingerprint,
  JsonError,
  operations,
  parseJson,
  parseKeyText,
  toPointer,
  type Json,
  type JsonObject,
  type Operation,
  type ParsedJson,
} from '@askonce/core'
import { envelopeProblem, type Found, optionNames } from './delivery-options.ts'
import { requestProblem } from './request-rules.ts'

/** One line of input, ready to be submitted. */
export interface PreparedLine {
  key: string
  /** The key as it is sent; the server reads `"a"` and `a` as the same. */
  sentKey: string
  customId: string | undefined
  /** SHA-256 of operation and request, in hexadecimal digits. */
  fingerprint: string
  /** The item of a bulk submission, JSON. The request in it is the line's own text: numbers keep their digits. */
  item: string
}

/** What holds for a line that does not say it itself. */
export interface LineDefaults {
  model: string | undefined
  /** Delivery options by their names in a submission. */
  delivery: JsonObject
}

/** What is wrong with a line, and where in it. */
export class LineProblem extends Error {
  readonly pointer: string
  constructor(message: string, pointer: string) {
    super(message)
    this.pointer = pointer
  }
}

const operationOfUrl: Record<string, Operation> = {
  '/v1/chat/completions': 'chat.completions',
  '/v1/responses': 'responses',
  '/v1/embeddings': 'embeddings',
  '/v1/messages': 'messages',
}

interface Draft {
  key: string | undefined
  keyMember: string
  customId: string | undefined
  operation: Operation
  request: JsonObject
  requestText: string
  requestMember: string
}

/**
 * Reads one line in any of the three forms; `defaultModel` completes shorthand lines without one. Lines without a key of
 * their own get `batch/` and the first half of the fingerprint: the same question is the same job in every run and file.
 * Throws {@link LineProblem}.
 */
export function parseLine(text: string, { model, delivery }: LineDefaults): PreparedLine {
  const parsed = parse(text)
  const { value } = parsed
  if (!isObject(value)) throw new LineProblem('expected a JSON object', '')
  const draft = draftOf(value, parsed, model)
  const problem =
    envelopeProblem(value) ??
    metadataProblem(value, delivery) ??
    requestProblem(draft.operation, draft.request, draft.requestMember)
  if (problem !== null) throw new LineProblem(problem.message, problem.pointer)

  const digest = fingerprint(draft.operation, draft.request).toString('hex')
  const sentKey = draft.key ?? `batch/${digest.slice(0, 32)}`
  const key = parseKeyText(sentKey)
  if (!key.ok) throw new LineProblem(key.detail, toPointer([draft.keyMember]))
  const options = optionNames.flatMap((name) => {
    const option = optionText(name, value, parsed, delivery)
    return option === null ? [] : [`,${JSON.stringify(name)}:${option}`]
  })
  const envelope = `{"key":${JSON.stringify(sentKey)},"operation":"${draft.operation}"${options.join('')}`
  return {
    key: key.key,
    sentKey,
    customId: draft.customId,
    fingerprint: digest,
    item: `${envelope},"request":${draft.requestText}}`,
  }
}

/** An option as JSON: the line's own, else that of all lines; metadata of both come together. Null: neither says it. */
function optionText(name: string, line: JsonObject, parsed: ParsedJson, delivery: JsonObject): string | null {
  const own = Object.hasOwn(line, name)
  if (name === 'metadata' && own && delivery['metadata'] !== undefined) {
    return JSON.stringify({ ...(delivery['metadata'] as JsonObject), ...(line['metadata'] as JsonObject) })
  }
  if (own) return textOf(parsed, line[name] as Json)
  return delivery[name] === undefined ? null : JSON.stringify(delivery[name])
}

/** Each is small enough; both together may not be. */
function metadataProblem({ metadata }: JsonObject, { metadata: common }: JsonObject): Found | null {
  if (metadata === undefined || common === undefined) return null
  return envelopeProblem({ metadata: { ...(common as JsonObject), ...(metadata as JsonObject) } })
}

function parse(text: string): ParsedJson {
  try {
    return parseJson(text)
  } catch (error) {
    if (error instanceof JsonError) throw new LineProblem(error.message, error.pointer)
    throw error
  }
}

function draftOf(value: JsonObject, parsed: ParsedJson, defaultModel: string | undefined): Draft {
  if ('prompt' in value) return shorthand(value, defaultModel)
  if ('body' in value || 'custom_id' in value || 'url' in value) return openAi(value, parsed)
  if ('operation' in value || 'request' in value) return native(value, parsed)
  throw new LineProblem(
    'expected {"operation", "request"}, a line of an OpenAI batch {"custom_id", "url", "body"}, or {"prompt", "model"}',
    '',
  )
}

/** `{"key"?, "operation", "request", …options}` */
function native(value: JsonObject, parsed: ParsedJson): Draft {
  refuseUnknown(value, ['key', 'operation', 'request', ...optionNames])
  const operation = operations.find((name) => name === value['operation'])
  if (operation === undefined) throw new LineProblem(`expected one of ${operations.join(', ')}`, '/operation')
  return { ...ownKey(value), operation, ...bodyOf(value, 'request', parsed), customId: undefined }
}

/** `{"custom_id", "method", "url", "body"}`, as OpenAI's batch files have them. */
function openAi(value: JsonObject, parsed: ParsedJson): Draft {
  refuseUnknown(value, ['custom_id', 'method', 'url', 'body', ...optionNames])
  const { custom_id: customId, method = 'POST', url } = value
  if (typeof customId !== 'string') throw new LineProblem('expected a text that is unique in the file', '/custom_id')
  if (method !== 'POST') throw new LineProblem('expected "POST"', '/method')
  const operation = typeof url === 'string' && Object.hasOwn(operationOfUrl, url) ? operationOfUrl[url] : undefined
  if (operation === undefined)
    throw new LineProblem(`expected one of ${Object.keys(operationOfUrl).join(', ')}`, '/url')
  return { key: customId, keyMember: 'custom_id', customId, operation, ...bodyOf(value, 'body', parsed) }
}

/** `{"prompt", "model"?, "system"?, "key"?, …options}` */
function shorthand(value: JsonObject, defaultModel: string | undefined): Draft {
  refuseUnknown(value, ['prompt', 'model', 'system', 'key', ...optionNames])
  const { prompt, system, model = defaultModel } = value
  if (typeof prompt !== 'string') throw new LineProblem('expected a text', '/prompt')
  if (system !== undefined && typeof system !== 'string') throw new LineProblem('expected a text', '/system')
  if (model === undefined)
    throw new LineProblem('missing: name one in the line, or for all lines with --model', '/model')
  if (typeof model !== 'string' || model === '') throw new LineProblem('expected the name of a model', '/model')
  const messages = [
    ...(system === undefined ? [] : [{ role: 'system', content: system }]),
    { role: 'user', content: prompt },
  ]
  const request = { model, messages }
  const requestText = JSON.stringify(request)
  return {
    ...ownKey(value),
    operation: 'chat.completions',
    request,
    requestText,
    requestMember: '',
    customId: undefined,
  }
}

function ownKey({ key }: JsonObject): Pick<Draft, 'key' | 'keyMember'> {
  if (key !== undefined && typeof key !== 'string') throw new LineProblem('expected a text', '/key')
  return { key, keyMember: 'key' }
}

function bodyOf(value: JsonObject, member: string, parsed: ParsedJson) {
  const request = value[member]
  if (!isObject(request))
    throw new LineProblem('expected an object: the body that the provider gets', toPointer([member]))
  return { request, requestText: parsed.textOf(request), requestMember: member }
}

function refuseUnknown(value: JsonObject, known: readonly string[]): void {
  const unknown = Object.keys(value).find((name) => !known.includes(name))
  if (unknown !== undefined)
    throw new LineProblem(`not known here; known are ${known.join(', ')}`, toPointer([unknown]))
}

function textOf(parsed: ParsedJson, value: Json): string {
  if (value instanceof ExactInteger) return value.text
  return typeof value === 'object' && value !== null ? parsed.textOf(value) : JSON.stringify(value)
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof ExactInteger)
}
