import { hash } from 'node:crypto'
import type { Operation } from './job.ts'
import { namedHeaders, type RequestHeaders } from './request-headers.ts'
import { ExactInteger, toPointer, type Json, type JsonObject } from './json.ts'

/**
 * RFC 8785 canonical JSON: members sorted by UTF-16 code units, no whitespace, numbers as ECMAScript writes them.
 * One addition: integers that a double cannot hold keep their digits, so that two different ones stay different.
 */
export function canonicalize(value: Json): string {
  if (value instanceof ExactInteger) return value.text
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  // Text is added to text: lists of parts that are joined afterwards take half as long again.
  let text = ''
  if (Array.isArray(value)) {
    for (const element of value) text += `${text === '' ? '' : ','}${canonicalize(element)}`
    return `[${text}]`
  }
  for (const name of Object.keys(value).toSorted()) {
    text += `${text === '' ? '' : ','}${JSON.stringify(name)}:${canonicalize(value[name] as Json)}`
  }
  return `{${text}}`
}

/**
 * SHA-256 over the canonical JSON of `{operation, request}`, with the betas of a caller that sent any as `headers` beside them: 32 bytes.
 * Delivery options are not part of it.
 */
export function fingerprint(operation: Operation, request: Json, headers: RequestHeaders | null = null): Buffer {
  return hash('sha256', canonicalize(namedParts(operation, request, headers)), 'buffer')
}

/** Everything that a key names. */
export function namedParts(operation: string, request: Json, headers: RequestHeaders | null): JsonObject {
  const named = namedHeaders(headers)
  return named === null ? { operation, request } : { operation, request, headers: named }
}

/** Most pointers that a difference lists. */
const maxPointers = 20

/**
 * JSON pointers to the members in which two requests differ, in document order, without values; at most 20.
 * A member that only one side has is named itself; arrays of different length differ at the first missing index.
 */
export function differences(left: Json, right: Json): string[] {
  const found: string[] = []
  const walk = (a: Json | undefined, b: Json | undefined, path: string[]): void => {
    if (found.length >= maxPointers) return
    if (isContainer(a) && isContainer(b) && Array.isArray(a) === Array.isArray(b)) {
      if (Array.isArray(a) && Array.isArray(b)) {
        // Of an array's missing tail the first index says it all, and leaves room for other members.
        const shared = Math.min(Math.max(a.length, b.length), Math.min(a.length, b.length) + 1)
        for (let index = 0; index < shared; index += 1) walk(a[index], b[index], [...path, String(index)])
        return
      }
      const names = new Set([...Object.keys(a), ...Object.keys(b)])
      for (const name of names) walk(member(a, name), member(b, name), [...path, name])
    } else if (a === undefined || b === undefined || canonicalize(a) !== canonicalize(b)) {
      found.push(toPointer(path))
    }
  }
  walk(left, right, [])
  return found
}

function isContainer(value: Json | undefined): value is Json[] | { [name: string]: Json } {
  return typeof value === 'object' && value !== null && !(value instanceof ExactInteger)
}

function member(container: Json[] | { [name: string]: Json }, name: string): Json | undefined {
  return Object.hasOwn(container, name) ? (container as { [name: string]: Json })[name] : undefined
}
