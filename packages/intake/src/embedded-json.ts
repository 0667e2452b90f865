import { isUtf8 } from 'node:buffer'

/**
 * The bytes of an answer as they may stand in a larger document. Answers are judged before they are stored; should one begin with a
 * byte order mark, or hold bytes that are no UTF-8, all the same, it must not make the whole document unreadable.
 */
export function embeddedJson(bytes: Buffer): Buffer {
  const hasMark = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf
  const text = hasMark ? bytes.subarray(3) : bytes
  return isUtf8(text) ? text : Buffer.from(text.toString())
}
