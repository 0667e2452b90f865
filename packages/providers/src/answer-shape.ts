import type { Operation } from '@askonce/core'
import { isObject, type JsonObject } from './json-value.ts'
import { findProviderError } from './provider-error.ts'

/**
 * A 2xx body: what its flags are, or why it is not the answer that the operation promises.
 * `transcript`: it is a stream of events, and `json` what they add up to.
 */
export type ShapeCheck =
  | { ok: true; json: JsonObject; flags: string[]; transcript?: true }
  | { ok: false; detail: string }

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

/** Whether a parsed 2xx body is the answer that the operation promises. A 200 that carries an error object is not. */
export function checkShape(operation: Operation, json: unknown): ShapeCheck {
  if (json === undefined) return { ok: false, detail: 'the body is not JSON' }
  if (!isObject(json)) return { ok: false, detail: 'the body is not a JSON object' }
  const error = findProviderError(json)
  if (error !== null) return { ok: false, detail: `a success status with an error: ${error.message}` }
  const found = readers[operation](json)
  if (found === null) {
    const status = typeof json['status'] === 'string' ? ` (status ${json['status']})` : ''
    return { ok: false, detail: `the body is not a complete answer to ${operation}${status}` }
  }
  return { ok: true, json, flags: found }
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
