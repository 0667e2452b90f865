import type { FileHandle } from 'node:fs/promises'
import { usageError } from '../errors.ts'

export interface FileLine {
  /** Place of its first byte in the file. */
  offset: number
  /** Without its line end. */
  bytes: Buffer
  /** False: the file ends before the line does. */
  whole: boolean
}

/** Nothing that we read is that large, and a longer text would not fit into a string. */
const maxLineBytes = 256 * 1024 * 1024
const lineFeed = 0x0a
const carriageReturn = 0x0d
const byteOrderMark = Buffer.from([0xef, 0xbb, 0xbf])

/** The lines of an open file, one after the other: LF or CRLF, a byte order mark is skipped, a last line needs no end. */
export async function* readLines(file: FileHandle): AsyncGenerator<FileLine> {
  let start = 0
  let parts: Buffer[] = []
  let length = 0
  const line = (whole: boolean): FileLine => {
    const bytes = parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts)
    const marked = start === 0 && bytes.subarray(0, 3).equals(byteOrderMark) ? 3 : 0
    const end = bytes.at(-1) === carriageReturn ? bytes.length - 1 : bytes.length
    return { offset: start + marked, bytes: bytes.subarray(marked, end), whole }
  }
  const stream = file.createReadStream({ start: 0, autoClose: false, highWaterMark: 256 * 1024 })
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    for (let at = 0; at < chunk.length;) {
      const end = chunk.indexOf(lineFeed, at)
      const part = chunk.subarray(at, end === -1 ? chunk.length : end)
      parts.push(part)
      length += part.length
      if (length > maxLineBytes) throw usageError(`a line is longer than ${maxLineBytes} bytes: this is not JSON Lines`)
      if (end === -1) break
      yield line(true)
      start += length + 1
      parts = []
      length = 0
      at = end + 1
    }
  }
  if (length > 0) yield line(false)
}

/** The text of a line; null: it is not UTF-8. */
export function decode(bytes: Buffer): string | null {
  try {
    return utf8.decode(bytes)
  } catch {
    return null
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Reads `length` bytes at `offset`. */
export async function readAt(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafe(length)
  for (let done = 0; done < length;) {
    const { bytesRead } = await file.read(buffer, done, length - done, offset + done)
    if (bytesRead === 0) return buffer.subarray(0, done)
    done += bytesRead
  }
  return buffer
}
