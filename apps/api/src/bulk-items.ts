import { setImmediate as nextTurn } from 'node:timers/promises'
import { maxJsonDepth } from '@askonce/core'
import { bulkBody, maxBulkItems } from '@askonce/intake'
import { Problem } from './problem.ts'
import { isSmall, readBody } from './request-body.ts'

/** Bytes that are looked at before others get the processor: a millisecond or two. */
const sliceBytes = 512 * 1024

const quote = 0x22
const backslash = 0x5c
const comma = 0x2c
const lineFeed = 0x0a
const bom = [0xef, 0xbb, 0xbf]
const blanks = new Set([0x20, 0x09, lineFeed, 0x0d])

/**
 * The items of a bulk body as they were sent: the lines of NDJSON, or the elements of the `jobs` of a JSON body. It looks at brackets, commas
 * and quotes only, and holds nothing but places: what an item is, and whether it is JSON, is asked when its turn comes.
 * @throws Problem `invalid_request` when there is none, more than 10,000, or the body around them is malformed
 */
export async function splitBulk(body: Buffer, isNdjson: boolean): Promise<Buffer[]> {
  if (body.length === 0) throw new Problem('invalid_request', 'The body is empty.', { param: '' })
  const items = isNdjson ? await split(new Lines(body), body) : await elementsOf(body)
  if (items.length > 0) return items
  throw new Problem('invalid_request', `The body has 0 items; 1 to ${maxBulkItems} are allowed.`, {
    param: isNdjson ? '' : '/jobs',
  })
}

async function split(splitter: Lines | Elements, body: Buffer): Promise<Buffer[]> {
  for (let end = 0; end < body.length;) {
    end = Math.min(body.length, end + sliceBytes)
    splitter.lookUntil(end)
    if (end < body.length) await nextTurn()
  }
  return splitter.end()
}

async function elementsOf(body: Buffer): Promise<Buffer[]> {
  try {
    return await split(new Elements(body), body)
  } catch (error) {
    // What is wrong around the items a parser says best, and of a small body it can be asked.
    if (isSmall(body)) readBody(bulkBody, body)
    throw error
  }
}

function tooMany(param: string): Problem {
  const detail = `The body has more than ${maxBulkItems} items; 1 to ${maxBulkItems} are allowed.`
  return new Problem('invalid_request', detail, { param })
}

function startOf(body: Buffer): number {
  return bom.every((byte, index) => body[index] === byte) ? bom.length : 0
}

/** Lines that are not blank. */
class Lines {
  private readonly body: Buffer
  private readonly items: Buffer[] = []
  private start: number
  private at: number
  private isBlank = true

  constructor(body: Buffer) {
    this.body = body
    this.start = startOf(body)
    this.at = this.start
  }

  lookUntil(end: number): void {
    const { body } = this
    for (; this.at < end; this.at += 1) {
      const byte = body[this.at] as number
      if (byte === lineFeed) this.close()
      else if (this.isBlank && !blanks.has(byte)) this.isBlank = false
    }
  }

  end(): Buffer[] {
    this.close()
    return this.items
  }

  /** Blanks that only Unicode knows. */
  private isBlankText(): boolean {
    const line = this.body.subarray(this.start, this.at)
    return line.length <= maxBlankBytes && line.toString().trim() === ''
  }

  private close(): void {
    if (!this.isBlank && !this.isBlankText()) {
      if (this.items.length === maxBulkItems) throw tooMany('')
      this.items.push(this.body.subarray(this.start, this.at))
    }
    this.start = this.at + 1
    this.isBlank = true
  }
}

/** The elements of the one member `jobs`. Depth 1 is in the object, 2 in its list, and what is deeper is in an item. */
class Elements {
  private readonly body: Buffer
  private readonly items: Buffer[] = []
  private at: number
  private depth = 0
  private inString = false
  private list: 'before' | 'open' | 'closed' = 'before'
  /** Of the item that is open. */
  private start = -1
  /** Behind the last byte of an item that is no blank. */
  private stop = -1

  constructor(body: Buffer) {
    this.body = body
    this.at = startOf(body)
  }

  lookUntil(end: number): void {
    const { body } = this
    for (; this.at < end; this.at += 1) {
      const byte = body[this.at] as number
      if (this.inString) {
        if (byte === backslash) this.at += 1
        else if (byte === quote) this.inString = false
        else continue
        this.stop = this.at + 1
        continue
      }
      if (blanks.has(byte)) continue
      this.read(byte)
    }
  }

  private read(byte: number): void {
    const { list } = this
    if (list === 'closed' && !(this.depth === 1 && isClosing(byte))) throw malformed()
    if (list === 'open' && this.depth === 2 && (byte === comma || isClosing(byte))) this.close(byte)
    else if (list === 'open' && this.start < 0) this.start = this.at
    if (byte === quote) this.inString = true
    else if (isOpening(byte)) {
      this.depth += 1
      if (list === 'before' && this.depth === 2) this.open(byte)
      if (this.depth > maxJsonDepth + 2) throw malformed(`is nested deeper than ${maxJsonDepth} levels`)
    } else if (isClosing(byte)) {
      this.depth -= 1
      if (this.depth < 0) throw malformed()
      if (list === 'before') throw jobsOnly()
    }
    this.stop = this.at + 1
  }

  /** What stands before the list must be `{"jobs":`. */
  private open(byte: number): void {
    const head = this.body.subarray(startOf(this.body), Math.min(this.at, maxHeadBytes)).toString('latin1')
    if (!/^[ \t\n\r]*\{[ \t\n\r]*"jobs"[ \t\n\r]*:[ \t\n\r]*$/.test(head)) throw jobsOnly()
    if (byte !== openBracket) throw new Problem('invalid_request', '/jobs: must be a list', { param: '/jobs' })
    this.list = 'open'
  }

  private close(byte: number): void {
    const isLast = byte !== comma
    if (this.start >= 0) {
      if (this.items.length === maxBulkItems) throw tooMany('/jobs')
      this.items.push(this.body.subarray(this.start, this.stop))
    } else if (!isLast || this.items.length > 0) throw malformed()
    this.start = -1
    if (isLast) this.list = 'closed'
  }

  end(): Buffer[] {
    if (this.list === 'closed' && this.depth === 0) return this.items
    if (this.list === 'before') throw jobsOnly()
    throw malformed('ends too early')
  }
}

const openBracket = 0x5b
/** A line of more bytes than this is no blank one. */
const maxBlankBytes = 256
/** Blanks before the list, and the name of its member. */
const maxHeadBytes = 4_096

function isOpening(byte: number): boolean {
  return byte === 0x7b || byte === openBracket
}

function isClosing(byte: number): boolean {
  return byte === 0x7d || byte === 0x5d
}

function malformed(what = 'something is before, between or behind the items'): Problem {
  return new Problem('invalid_request', `The body is not valid JSON: ${what}.`, { param: '' })
}

function jobsOnly(): Problem {
  return new Problem('invalid_request', '/jobs: the body must be an object with the list `jobs` and nothing else', {
    param: '/jobs',
  })
}
