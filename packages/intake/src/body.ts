import { isUtf8 } from 'node:buffer'
import { JsonError, parseJson, type ParsedJson } from '@askonce/core'
import { IntakeError } from './error.ts'

// A byte order mark is dropped, as JSON parsers do.
const decoder = new TextDecoder('utf-8', { fatal: true })
/** Bytes that are looked at at once for the first bad one. */
const blockBytes = 64 * 1024

/**
 * The text of a body.
 * @throws IntakeError when it is empty, or with the place of the first byte that is not UTF-8
 */
export function decodeBody(body: unknown): string {
  if (!(body instanceof Uint8Array) || body.length === 0)
    throw new IntakeError('invalid_request', 'The body is empty.', '')
  if (!isUtf8(body)) {
    throw new IntakeError('invalid_request', `The body is not UTF-8: bad byte at offset ${firstBadByte(body)}.`, '')
  }
  return decoder.decode(body)
}

/** A block after the other, as each ends between two characters; the one that is bad is looked at byte by byte. */
function firstBadByte(body: Uint8Array): number {
  let start = 0
  for (;;) {
    let end = Math.min(body.length, start + blockBytes)
    for (let back = 0; back < 3 && end < body.length && isContinuation(body[end]); back += 1) end -= 1
    if (end === body.length || !isUtf8(body.subarray(start, end))) break
    start = end
  }
  return start + badByteOf(Buffer.from(body.subarray(start, start + blockBytes + 4)))
}

function isContinuation(byte: number | undefined): boolean {
  return byte !== undefined && (byte & 0xc0) === 0x80
}

/** Where decoding first puts a replacement character that was not sent as one. */
function badByteOf(block: Buffer): number {
  const sent = Buffer.from('\ufffd')
  let offset = 0
  for (const part of block.toString('utf8').split('\ufffd')) {
    offset += Buffer.byteLength(part)
    if (!block.subarray(offset, offset + sent.length).equals(sent)) return offset
    offset += sent.length
  }
  return offset
}

/** @throws IntakeError with the place where it stops being JSON that we accept */
export function parseText(text: string, what = 'The body'): ParsedJson {
  try {
    return parseJson(text)
  } catch (error) {
    if (!(error instanceof JsonError)) throw error
    const at = error.pointer === '' ? '' : ` in ${error.pointer}`
    if (error.tooLarge) throw new IntakeError('payload_too_large', `${what} has ${error.message}${at}.`, error.pointer)
    throw new IntakeError('invalid_request', `${what} is not valid JSON: ${error.message}${at}.`, error.pointer)
  }
}
