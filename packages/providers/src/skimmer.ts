import { JsonGrammar } from './json-grammar.ts'

const [quote, backslash, comma] = [0x22, 0x5c, 0x2c]
const [openBrace, closeBrace, openBracket, closeBracket] = [0x7b, 0x7d, 0x5b, 0x5d]
const blanks: ReadonlySet<number> = new Set([0x20, 0x09, 0x0a, 0x0d])

/** A longer string is left out: ids, reasons and names are shorter. */
const maxStringBytes = 1024
/** Elements of one array that are kept, while the whole is small. */
const maxElements = 4096
/** Beyond it every array ends with the element that it is in. */
const softBytes = 512 * 1024
/** Beyond it nothing is kept any more: no answer has that many members. */
const hardBytes = 8 * 1024 * 1024

/**
 * Reads a large JSON text as it comes, in one pass, and keeps its skeleton: all members, but long strings as `"…"` and only the
 * beginning of long arrays. That is what judging an answer needs, and it takes neither the memory nor the uninterrupted time that
 * parsing a hundred megabytes takes. What is left out is checked for being JSON all the same: it is stored, and others will parse it.
 */
export class Skimmer {
  readonly #grammar = new JsonGrammar()
  #out = Buffer.allocUnsafe(64 * 1024)
  #length = 0
  #overflown = false
  /** For each open object (-1) or array (elements so far). */
  readonly #open: number[] = []
  /** Depth of the array whose remaining elements are left out; 0: none is. */
  #mutedAt = 0
  #inString = false
  #stringBytes = 0
  #stringStart = 0
  #escaped = false
  #end: number | null = null
  #seen = 0

  /** Takes the next bytes. What follows the end of the value is not looked at. */
  push(bytes: Buffer): void {
    let at = 0
    while (at < bytes.length && this.#end === null)
      at = this.#inString ? this.#string(bytes, at) : this.#structure(bytes, at)
    this.#grammar.push(bytes.subarray(0, at))
    this.#seen += bytes.length
  }

  /** How many of the bytes the object or array is, blanks before it included; null: it has not ended. */
  get end(): number | null {
    return this.#end
  }

  /** What JSON.parse makes of the skeleton; undefined when the value has not ended, or is no JSON. */
  value(): unknown {
    if (this.#end === null || this.#overflown || this.#grammar.isBroken) return undefined
    try {
      // The decoder skips a byte order mark.
      return JSON.parse(new TextDecoder().decode(this.#out.subarray(0, this.#length))) as unknown
    } catch {
      return undefined
    }
  }

  /** Goes on behind the end of the string, or to the end of the bytes. */
  #string(bytes: Buffer, start: number): number {
    const found = bytes.indexOf(quote, start)
    const end = found < 0 ? bytes.length : found
    let slashes = 0
    while (end - slashes > start && bytes[end - slashes - 1] === backslash) slashes += 1
    const isEscaped = (slashes % 2 === 1) !== (slashes === end - start && this.#escaped)
    this.#stringBytes += end - start
    if (this.#mutedAt === 0 && this.#stringBytes <= maxStringBytes) this.#copy(bytes, start, end)
    this.#escaped = isEscaped
    if (found < 0) return end
    this.#escaped = false
    if (isEscaped) {
      this.#stringBytes += 1
      if (this.#mutedAt === 0 && this.#stringBytes <= maxStringBytes) this.#write(quote)
      return end + 1
    }
    this.#inString = false
    if (this.#mutedAt > 0) return end + 1
    if (this.#stringBytes > maxStringBytes) {
      this.#length = this.#stringStart
      for (const byte of ellipsis) this.#write(byte)
    }
    this.#write(quote)
    return end + 1
  }

  /** Goes on behind the next bracket or quote, or to the end of the bytes. */
  #structure(bytes: Buffer, start: number): number {
    for (let at = start; at < bytes.length; at += 1) {
      const byte = bytes[at] ?? 0
      if (byte === quote) {
        this.#inString = true
        this.#stringBytes = 0
        this.#escaped = false
        if (this.#mutedAt === 0) {
          this.#write(quote)
          this.#stringStart = this.#length
        }
        return at + 1
      }
      if (byte === openBrace || byte === openBracket) {
        this.#open.push(byte === openBrace ? -1 : 0)
      } else if (byte === closeBrace || byte === closeBracket) {
        if (this.#mutedAt === this.#open.length) this.#mutedAt = 0
        this.#open.pop()
        if (this.#open.length === 0) this.#end = this.#seen + at + 1
      } else if (byte === comma && this.#mutedAt === 0 && this.#isFull()) {
        this.#mutedAt = this.#open.length
      }
      if (this.#mutedAt === 0 && !blanks.has(byte)) this.#write(byte)
      if (this.#end !== null) return at + 1
    }
    return bytes.length
  }

  /** Counts the element that begins; whether its array takes no more. */
  #isFull(): boolean {
    const elements = this.#open.at(-1) ?? -1
    if (elements < 0) return false
    this.#open[this.#open.length - 1] = elements + 1
    return elements + 1 >= maxElements || this.#length > softBytes
  }

  #copy(bytes: Buffer, start: number, end: number): void {
    if (!this.#hasRoom(end - start)) return
    this.#length += bytes.copy(this.#out, this.#length, start, end)
  }

  #write(byte: number): void {
    if (!this.#hasRoom(1)) return
    this.#out[this.#length] = byte
    this.#length += 1
  }

  #hasRoom(bytes: number): boolean {
    if (this.#length + bytes > hardBytes) this.#overflown = true
    if (this.#overflown) return false
    if (this.#length + bytes <= this.#out.length) return true
    const larger = Buffer.allocUnsafe(Math.min(hardBytes, Math.max(this.#out.length * 2, this.#length + bytes)))
    this.#out.copy(larger, 0, 0, this.#length)
    this.#out = larger
    return true
  }
}

const ellipsis = Buffer.from('…')
