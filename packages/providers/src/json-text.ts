import { isUtf8 } from 'node:buffer'
import { setImmediate } from 'node:timers/promises'
import { parseBody } from './json-value.ts'
import { Skimmer } from './skimmer.ts'

/** A text up to this size is parsed as a whole, which takes a few milliseconds; a larger one is skimmed as it comes. */
const wholeBytes = 256 * 1024
/** What is checked, or repaired, between two turns of the event loop. */
const pieceBytes = 4 * 1024 * 1024

/** A JSON body, as it comes. */
export class JsonText {
  #kept: Buffer[] = []
  #length = 0
  /** Reads on from here, once the text is too large to be parsed as a whole. */
  #skimmer: Skimmer | null = null
  /** Reads the kept parts as far as somebody has looked: each is read once, however often that is. */
  #looker: Skimmer | null = null
  #looked = 0
  /** Length at which the kept bytes were parsed, and what that brought. */
  #parsed: { length: number; value: unknown } | null = null

  push(chunk: Buffer): void {
    this.#length += chunk.length
    if (this.#skimmer !== null) {
      this.#skimmer.push(chunk)
      return
    }
    this.#kept.push(chunk)
    if (this.#length <= wholeBytes) return
    this.#skimmer = this.#skimKept()
    this.#kept = []
  }

  get length(): number {
    return this.#length
  }

  /** Whether a whole object or array has come, whatever stands behind it. */
  isWhole(): boolean {
    if (this.#skimmer !== null) return this.#skimmer.end !== null
    if (closing.has(this.#kept.at(-1)?.at(-1) ?? 0) && this.#parse() !== undefined) return true
    return this.#skimKept().value() !== undefined
  }

  /** What it says, as far as judging needs it; undefined: it is no JSON. */
  value(): unknown {
    return this.#skimmer === null ? this.#parse() : this.#skimmer.value()
  }

  /** As JSON.parse takes the body; what follows the value is cut off where that is all that is wrong with it. Undefined: it is no JSON. */
  async read(body: Buffer): Promise<{ value: unknown; body: Buffer } | undefined> {
    let value = this.value()
    let end = this.#skimmer?.end ?? body.length
    if (value === undefined && this.#skimmer === null) {
      const skimmer = new Skimmer()
      skimmer.push(body)
      end = skimmer.end ?? 0
      value = end === 0 ? undefined : parseBody(body.subarray(0, end))
    }
    if (value === undefined) return undefined
    return { value, body: await readable(isBlank(body.subarray(end)) ? body : body.subarray(0, end)) }
  }

  #skimKept(): Skimmer {
    this.#looker ??= new Skimmer()
    for (const part of this.#kept.slice(this.#looked)) this.#looker.push(part)
    this.#looked = this.#kept.length
    return this.#looker
  }

  #parse(): unknown {
    if (this.#parsed?.length !== this.#length) {
      const [only] = this.#kept
      const bytes = this.#kept.length === 1 && only !== undefined ? only : Buffer.concat(this.#kept)
      this.#parsed = { length: this.#length, value: parseBody(bytes) }
    }
    return this.#parsed.value
  }
}

/** `}`, `]` and what may follow them. */
const closing: ReadonlySet<number> = new Set([0x7d, 0x5d, 0x20, 0x09, 0x0a, 0x0d])

function isBlank(bytes: Buffer): boolean {
  // A little blank space is JSON; more of it than that is not worth looking through.
  return bytes.length <= 1024 && bytes.toString('latin1').trim() === ''
}

/**
 * The body without a byte order mark, and with replacement characters for bytes that are no UTF-8: what any lenient reader would see.
 * It is paid for, so it is an answer; and it is put into documents, lists and lines of files, so each of their readers must be able to
 * parse it.
 */
async function readable(body: Buffer): Promise<Buffer> {
  const text = hasMark(body) ? body.subarray(3) : body
  for (let at = 0; at < text.length;) {
    const end = characterEnd(text, Math.min(at + pieceBytes, text.length))
    if (!isUtf8(text.subarray(at, end))) return repaired(text)
    at = end
    if (at < text.length) await setImmediate()
  }
  return text
}

function hasMark(body: Buffer): boolean {
  return body[0] === 0xef && body[1] === 0xbb && body[2] === 0xbf
}

/** The end moved before a character that it would cut. */
function characterEnd(text: Buffer, end: number): number {
  if (end === text.length) return end
  let start = end
  while (end - start < 3 && ((text[start] ?? 0) & 0xc0) === 0x80) start -= 1
  return start
}

async function repaired(text: Buffer): Promise<Buffer> {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  const pieces: Buffer[] = []
  for (let at = 0; at < text.length; at += pieceBytes) {
    pieces.push(Buffer.from(decoder.decode(text.subarray(at, at + pieceBytes), { stream: true })))
    await setImmediate()
  }
  return Buffer.concat([...pieces, Buffer.from(decoder.decode())])
}
