import { isUtf8 } from 'node:buffer'
import { isObject, type JsonObject } from './json-value.ts'

/** Where a member's value stands in a text: its first character, and the one behind its last. */
type Range = [start: number, end: number]

/**
 * The streamed request with `stream_options.include_usage: true`, so that the answer says what it cost; all other characters as
 * they were. `json` is what the request's bytes say. Options that the provider will refuse anyway are left alone.
 */
export function withUsage(request: Buffer, json: JsonObject): Buffer {
  const options = json['stream_options']
  const refused = options !== undefined && options !== null && options !== false && !isObject(options)
  if (refused || (isObject(options) && options['include_usage'] === true) || !isUtf8(request)) return request
  const text = request.toString()
  const brace = text.indexOf('{')
  const range = memberRange(text, brace, 'stream_options')
  if (range === null) return insert(text, brace, `"stream_options":{${asked}}`, Object.keys(json).length > 0)
  if (!isObject(options)) return replace(text, range, `{${asked}}`)
  const member = memberRange(text, range[0], 'include_usage')
  return member === null
    ? insert(text, range[0], asked, Object.keys(options).length > 0)
    : replace(text, member, 'true')
}

const asked = '"include_usage":true'

/** Puts `added` behind the opening brace at `brace`. */
function insert(text: string, brace: number, added: string, hasMembers: boolean): Buffer {
  return replace(text, [brace + 1, brace + 1], hasMembers ? `${added},` : added)
}

function replace(text: string, [start, end]: Range, by: string): Buffer {
  return Buffer.from(text.slice(0, start) + by + text.slice(end))
}

/** The value of a member of the object that opens at `brace`, in text that is known to be JSON. The last of equal names, as JSON.parse has it. */
function memberRange(text: string, brace: number, name: string): Range | null {
  let found: Range | null = null
  let at = skip(text, brace + 1)
  while (at < text.length && text[at] !== '}') {
    const nameEnd = endOfString(text, at)
    const start = skip(text, skip(text, nameEnd) + 1)
    const end = endOfValue(text, start)
    if (JSON.parse(text.slice(at, nameEnd)) === name) found = [start, end]
    at = skip(text, end)
    if (text[at] === ',') at = skip(text, at + 1)
  }
  return found
}

/** Where a value ends that starts at `start`: behind its closing bracket or quote, or before what separates it. */
function endOfValue(text: string, start: number): number {
  let depth = 0
  let at = start
  do {
    const character = text[at]
    if (character === '"') {
      at = endOfString(text, at)
      continue
    }
    if (character === '{' || character === '[') depth += 1
    else if (character === '}' || character === ']') depth -= 1
    else if (depth === 0) {
      scalar.lastIndex = start
      scalar.test(text)
      return scalar.lastIndex
    }
    at += 1
  } while (depth > 0 && at < text.length)
  return at
}

const scalar = /[^\s,\]}]*/y

function endOfString(text: string, open: number): number {
  for (let at = open + 1; at < text.length; at += 1) {
    if (text[at] === '\\') at += 1
    else if (text[at] === '"') return at + 1
  }
  return text.length
}

function skip(text: string, start: number): number {
  let at = start
  while (at < text.length && ' \t\n\r'.includes(text[at] ?? '-')) at += 1
  return at
}
