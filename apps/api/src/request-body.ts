import { isUtf8 } from 'node:buffer'
import { JsonError, parseJson, type ParsedJson } from '@askonce/core'
import { checkBody } from '@askonce/intake'
import type { z } from 'zod'
import { Problem } from './problem.ts'

// A byte order mark is dropped, as JSON parsers do.
const decoder = new TextDecoder('utf-8', { fatal: true })

/**
 * The text of a body.
 * @throws Problem `invalid_request` when it is empty, or with the place of the first byte that is not UTF-8.
 */
export function decodeBody(body: unknown): string {
  if (!Buffer.isBuffer(body) || body.length === 0)
    throw new Problem('invalid_request', 'The body is empty.', { param: '' })
  if (!isUtf8(body)) {
    throw new Problem('invalid_request', `The body is not UTF-8: bad byte at offset ${firstBadByte(body)}.`, {
      param: '',
    })
  }
  return decoder.decode(body)
}

/** Where decoding first puts a replacement character that was not sent as one. */
function firstBadByte(body: Buffer): number {
  const text = body.toString('utf8')
  const sent = Buffer.from('\ufffd')
  let offset = 0
  for (const part of text.split('\ufffd')) {
    offset += Buffer.byteLength(part)
    if (!body.subarray(offset, offset + sent.length).equals(sent)) return offset
    offset += sent.length
  }
  return offset
}

/** @throws Problem `invalid_request` with the place where it stops being JSON that we accept. */
export function parseText(text: string, what = 'The body'): ParsedJson {
  try {
    return parseJson(text)
  } catch (error) {
    if (!(error instanceof JsonError)) throw error
    const at = error.pointer === '' ? '' : ` in ${error.pointer}`
    throw new Problem('invalid_request', `${what} is not valid JSON: ${error.message}${at}.`, { param: error.pointer })
  }
}

/** A body checked by a schema. Without a body the schema sees `{}`: every member of such a body is optional. */
export function readBody<Schema extends z.ZodType>(schema: Schema, body: unknown): z.infer<Schema> {
  const empty = body === undefined || (Buffer.isBuffer(body) && body.length === 0)
  return checkBody(schema, empty ? {} : parseText(decodeBody(body)).value)
}
