import type { Operation } from '@askonce/core'
import { isObject, stringMember, textOf, type JsonObject } from './json-value.ts'
import { findProviderError } from './provider-error.ts'

/**
 * A 2xx body: what its flags are, or why it is not the answer that the operation promises.
 * `transcript`: it is a stream of events, and `json` what they add up to.
 */
export type ShapeCheck =
  | { ok: true; json: JsonObject; flags: string[]; transcript?: true }
  | {
      ok: false
      detail: string
      /** The answer of a call that ran and failed, where it says what was used; null: nothing says so. */
      failed: JsonObject | null
      /** The provider's error, where nothing of an answer came with it. */
      refusal: JsonObject | null
    }

type Reader = (json: JsonObject) => string[] | null

/** Flags of a well-formed answer; null when the promised members are not there. No deeper than that: it is paid for. */
const readers: Record<Operation, Reader> = {
  'chat.completions': ({ choices }) => {
    if (!Array.isArray(choices) || choices.length === 0 || !choices.every(isObject)) return null
    return flags({
      truncated: choices.some((choice) => choice['finish_reason'] === 'length'),
      refused: choices.some((choice) => choice['finish_reason'] === 'content_filter' || hasRefusal(choice['message'])),
    })
  },
  responses: ({ output, status, incomplete_details: incomplete }) => {
    // Compatible servers leave the status out. `failed`, `cancelled` and the unfinished ones are no answers.
    if (!Array.isArray(output) || (status !== undefined && status !== 'completed' && status !== 'incomplete'))
      return null
    const filtered = isObject(incomplete) && incomplete['reason'] === 'content_filter'
    return flags({
      truncated: status === 'incomplete' && !filtered,
      refused: filtered || output.some((item) => isObject(item) && refusesInContent(item['content'])),
    })
  },
  embeddings: ({ data }) => (Array.isArray(data) && data.length > 0 && data.every(isEmbedding) ? [] : null),
  // Anthropic ends some turns with nothing to say: an empty list of content is an answer.
  messages: ({ content, stop_reason: reason }) => {
    if (!Array.isArray(content)) return null
    return flags({
      truncated: reason === 'max_tokens' || reason === 'model_context_window_exceeded',
      refused: reason === 'refusal',
    })
  },
}

/** Whether a parsed 2xx body is the answer that the operation promises. A 200 that says that the call failed is not. */
export function checkShape(operation: Operation, json: unknown): ShapeCheck {
  if (json === undefined) return noAnswer('the body is not JSON')
  const whole = Array.isArray(json) && json.length === 1 ? (json[0] as unknown) : json
  const error = isObject(whole) ? errorIn(whole) : null
  if (isObject(whole) && error !== null) {
    const detail = `a success status with an error: ${error}`
    return holdsAnswer(whole) ? noAnswer(detail, whole) : { ...noAnswer(detail), refusal: whole }
  }
  if (!isObject(json)) return noAnswer('the body is not a JSON object')
  const failure = choiceError(json['choices'])
  if (failure !== null) return noAnswer(failure, json)
  const found = readers[operation](json)
  if (found === null) {
    const status = typeof json['status'] === 'string' ? ` (status ${json['status']})` : ''
    const isFailed = json['status'] === 'failed' || json['status'] === 'cancelled'
    return noAnswer(`the body is not a complete answer to ${operation}${status}`, isFailed ? json : null)
  }
  return { ok: true, json, flags: found }
}

/** Why a list of choices is none of an answer: one of them says that it failed. */
export function choiceError(choices: unknown): string | null {
  const failed = (Array.isArray(choices) ? choices : []).filter(isObject).find(hasFailed)
  if (failed === undefined) return null
  const { error } = failed
  const message = isObject(error) ? stringMember(error, 'message') : typeof error === 'string' ? error : null
  return `a choice failed${message === null ? '' : `: ${message}`}`
}

function hasFailed({ finish_reason: reason, error }: JsonObject): boolean {
  return reason === 'error' || saysError(error)
}

/** Whether a member `error` says that there is one: some servers always write it, and leave it empty. */
function saysError(error: unknown): boolean {
  if (typeof error === 'object' && error !== null) return Object.keys(error).length > 0
  return Boolean(error)
}

/** Whether usage says that something was used. */
export function saysUsed(answer: JsonObject): boolean {
  const { usage } = answer
  return isObject(usage) && Object.values(usage).some((count) => typeof count === 'number' && count > 0)
}

function noAnswer(detail: string, failed: JsonObject | null = null): Extract<ShapeCheck, { ok: false }> {
  return { ok: false, detail, failed: failed !== null && saysUsed(failed) ? failed : null, refusal: null }
}

/** What the error of a body, or of an event, says; null when it has none. */
export function errorIn(whole: JsonObject): string | null {
  const known = findProviderError(whole)
  if (known !== null) return known.message
  const { error } = whole
  return saysError(error) ? (textOf(error)?.slice(0, 200) ?? '') : null
}

/** Whether the error came with an answer, as far as that got, and not in its place. */
function holdsAnswer(whole: JsonObject): boolean {
  const members = ['choices', 'output', 'data', 'content'].some((name) => Array.isArray(whole[name]))
  return members || whole['object'] === 'response' || saysUsed(whole)
}

function flags(found: { truncated: boolean; refused: boolean }): string[] {
  return [...(found.truncated ? ['truncated'] : []), ...(found.refused ? ['refused'] : [])]
}

function hasRefusal(message: unknown): boolean {
  return isObject(message) && typeof message['refusal'] === 'string' && message['refusal'] !== ''
}

function refusesInContent(content: unknown): boolean {
  return Array.isArray(content) && content.some((part) => isObject(part) && part['type'] === 'refusal')
}

function isEmbedding(entry: unknown): boolean {
  return isObject(entry) && (Array.isArray(entry['embedding']) || typeof entry['embedding'] === 'string')
}
