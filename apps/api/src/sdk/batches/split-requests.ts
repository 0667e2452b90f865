import { Problem } from '../../problem.ts'

const quote = 0x22
const backslash = 0x5c
const openBrace = 0x7b
const closeBrace = 0x7d
const openBracket = 0x5b
const closeBracket = 0x5d
const comma = 0x2c
const colon = 0x3a
const lineFeed = 0x0a
const carriageReturn = 0x0d
const space = 0x20
const blanks = new Set([space, 0x09, lineFeed, carriageReturn])
const bom = [0xef, 0xbb, 0xbf]
const name = Buffer.from('"requests"')

type Place = 'begin' | 'name' | 'colon' | 'list' | 'first' | 'next' | 'item' | 'separator' | 'close' | 'end'

/**
 * Cuts `{"requests": [{…}, …]}` into its items as bytes come, without holding more than one item. It looks at brackets and quotes only:
 * what an item is must be asked of a parser.
 */
export class RequestSplitter {
  private readonly maxItemBytes: number
  private place: Place = 'begin'
  private readonly seen: number[] = []
  /** Of the item that is open: its bytes of earlier chunks, how deep it is, and whether it is in a string. */
  private pieces: Buffer[] = []
  private size = 0
  private depth = 0
  private inString = false
  private escaped = false
  /** Items so far. */
  private count = 0

  constructor(maxItemBytes: number) {
    this.maxItemBytes = maxItemBytes
  }

  /**
   * Takes bytes; returns the items that end in them. Line feeds between the members of an item are blanks of JSON and become spaces.
   * @throws Problem when it is no such body
   */
  push(chunk: Buffer): Buffer[] {
    const items: Buffer[] = []
    let at = 0
    while (at < chunk.length) {
      if (!this.isInItem()) {
        this.between(chunk[at] as number)
        // The byte with which an item begins is a part of it.
        if (!this.isInItem()) at += 1
        continue
      }
      const end = this.endOfItem(chunk, at)
      const piece = chunk.subarray(at, end < 0 ? chunk.length : end)
      this.pieces.push(piece)
      this.size += piece.length
      if (this.size > this.maxItemBytes) {
        const param = `/requests/${this.count}`
        throw new Problem('payload_too_large', `${param}: has more than ${this.maxItemBytes} bytes`, { param })
      }
      if (end < 0) return items
      items.push(onOneLine(Buffer.concat(this.pieces)))
      this.pieces = []
      this.size = 0
      this.count += 1
      this.place = 'separator'
      at = end
    }
    return items
  }

  private isInItem(): boolean {
    return this.place === 'item'
  }

  /** @throws Problem when the body is not over */
  end(): void {
    if (this.place !== 'end') throw bad('the body breaks off')
  }

  /** Where the open item ends in this chunk; -1: not here. */
  private endOfItem(chunk: Buffer, from: number): number {
    for (let at = from; at < chunk.length; at += 1) {
      const byte = chunk[at] as number
      if (this.inString) {
        // Not JSON; and on one line it would be, with another text.
        if (byte === lineFeed || byte === carriageReturn) {
          const param = `/requests/${this.count}`
          throw bad(`${param}: is not valid JSON: a line break in a text must be written as \\n or \\r`, param)
        }
        if (this.escaped) this.escaped = false
        else if (byte === backslash) this.escaped = true
        else if (byte === quote) this.inString = false
      } else if (byte === quote) this.inString = true
      else if (byte === openBrace || byte === openBracket) this.depth += 1
      else if (byte === closeBrace || byte === closeBracket) {
        this.depth -= 1
        if (this.depth === 0) return at + 1
      }
    }
    return -1
  }

  private between(byte: number): void {
    if (this.place === 'begin' && this.seen.length < bom.length && byte === bom[this.seen.length]) {
      this.seen.push(byte)
      return
    }
    if (this.place === 'name' && this.seen.length > 0) return this.inName(byte)
    if (blanks.has(byte)) return
    switch (this.place) {
      case 'begin':
        return this.expect(byte, openBrace, 'name', 'must be an object')
      case 'name':
        return this.inName(byte)
      case 'colon':
        return this.expect(byte, colon, 'list', 'is not valid JSON')
      case 'list':
        return this.expect(byte, openBracket, 'first', '/requests: must be a list')
      case 'first':
        if (byte === closeBracket) throw bad('/requests: must hold at least one request', '/requests')
        return this.expect(byte, openBrace, 'item', `/requests/${this.count}: must be an object`)
      case 'next':
        return this.expect(byte, openBrace, 'item', `/requests/${this.count}: must be an object`)
      case 'separator':
        if (byte === closeBracket) {
          this.place = 'close'
          return
        }
        return this.expect(byte, comma, 'next', 'is not valid JSON')
      case 'close':
        return this.expect(byte, closeBrace, 'end', 'must have no member but requests')
      default:
        throw bad('is not valid JSON: something follows it')
    }
  }

  private inName(byte: number): void {
    if (this.place === 'name' && this.seen.length < name.length && byte === name[this.seen.length]) {
      this.seen.push(byte)
      if (this.seen.length === name.length) this.place = 'colon'
      return
    }
    throw bad('must have the member requests and no other')
  }

  private expect(byte: number, wanted: number, then: Place, otherwise: string): void {
    if (byte !== wanted) throw bad(otherwise)
    this.place = then
    if (then === 'name') this.seen.length = 0
  }
}

/** An iterator over so many bytes takes ten times as long. */
function onOneLine(item: Buffer): Buffer {
  for (let at = 0; at < item.length; at += 1) {
    if (item[at] === lineFeed || item[at] === carriageReturn) item[at] = space
  }
  return item
}

function bad(detail: string, param = ''): Problem {
  return new Problem('invalid_request', detail.startsWith('/') ? detail : `the body: ${detail}`, { param })
}
