import { parseKeyText, type Json, type JsonObject } from '@askonce/core'
import { bulkBody, checkBody, maxBulkItems } from '@askonce/intake'
import { Problem } from './problem.ts'
import { parseText } from './request-body.ts'

/** One item as it came. Read when its turn comes: a long file must not hold up everybody. Throws a Problem when it is no JSON. */
export type BulkItem = () => { body: Json; textOf: (part: object) => string }

/**
 * The items of a bulk body: the lines of NDJSON, or the `jobs` of a JSON body.
 * @throws Problem `invalid_request` when there is none, or more than 10,000
 */
export function splitBulk(text: string, isNdjson: boolean): BulkItem[] {
  const items = isNdjson ? linesOf(text) : jobsOf(text)
  if (items.length > 0 && items.length <= maxBulkItems) return items
  const detail = `The body has ${items.length} items; 1 to ${maxBulkItems} are allowed.`
  throw new Problem('invalid_request', detail, { param: isNdjson ? '' : '/jobs' })
}

function jobsOf(text: string): BulkItem[] {
  const { value, textOf } = parseText(text)
  checkBody(bulkBody, value)
  return (value as { jobs: Json[] }).jobs.map((body) => () => ({ body, textOf }))
}

function linesOf(text: string): BulkItem[] {
  const lines = text.split('\n').filter((line) => line.trim() !== '')
  return lines.map((line) => () => {
    const { value, textOf } = parseText(line, 'The line')
    return { body: value, textOf }
  })
}

/**
 * The key of an item, and its envelope as a submission with a header would have it.
 * @throws Problem when it has no good key
 */
export function readItem(body: Json): { key: string; envelope: JsonObject } {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new Problem('invalid_request', 'the item: must be an object', { param: '' })
  }
  const { key: text, ...envelope } = body as JsonObject
  if (text === undefined) throw new Problem('idempotency_key_missing', '/key: is missing', { param: '/key' })
  if (typeof text !== 'string')
    throw new Problem('idempotency_key_invalid', '/key: must be a string', { param: '/key' })
  const key = parseKeyText(text)
  if (!key.ok) throw new Problem(key.code, key.detail, { param: '/key' })
  return { key: key.key, envelope }
}
