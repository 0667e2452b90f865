import { maxJsonDepth, maxJsonValues, measureJson } from './json-bounds.ts'

/** An integer that a JavaScript number cannot hold: its digits are kept, without fraction or exponent. */
export class ExactInteger {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

export type Json = null | boolean | number | string | ExactInteger | Json[] | { [name: string]: Json }
export type JsonObject = { [name: string]: Json }

/** Why a text is refused; `pointer` is an RFC 6901 pointer to the place, `` for the whole. */
export class JsonError extends Error {
  readonly pointer: string
  /** It may be good JSON, but holds more than is accepted. */
  readonly tooLarge: boolean
  constructor(message: string, pointer: string, tooLarge = false) {
    super(message)
    this.pointer = pointer
    this.tooLarge = tooLarge
  }
}

export interface ParsedJson {
  value: Json
  /** The text of an object or array of `value` exactly as it was sent. */
  textOf(value: object): string
}

/**
 * Parses JSON without losing anything that could make two different texts equal: refuses duplicate member names,
 * lone surrogates and numbers beyond the range of a double, keeps the digits of integers beyond 2^53, refuses NUL in
 * strings (nothing downstream can be trusted with it), and remembers the source text of every object and array.
 * Throws {@link JsonError}.
 */
export function parseJson(text: string): ParsedJson {
  const quick = parseCompact(text)
  if (quick !== null) return quick
  return new Scanner(text).run()
}

/** As {@link parseJson}, and tells at which character of the text an object or array of `value` begins. */
export function parseJsonInPlace(text: string): ParsedJson & { startOf(value: object): number } {
  return new Scanner(text).run()
}

/**
 * The common case: a compact body made by JSON.stringify. Parsing and writing it again gives the same text exactly when
 * nothing was lost, at a fraction of the scanner's cost (about a tenth for a 4 kB body).
 */
function parseCompact(text: string): ParsedJson | null {
  // Escapes that JSON.stringify also writes but that we refuse: NUL and lone surrogates.
  if (text.includes('\\u0000') || text.includes('\\ud') || text.includes('\\uD')) return null
  // Asked before JSON.parse, which builds a megabyte of brackets for a whole second.
  const { values, depth } = measureJson(text)
  if (values > maxJsonValues || depth > maxJsonDepth) return null
  try {
    const value = JSON.parse(text) as Json
    if (JSON.stringify(value) !== text) return null
    return { value, textOf: (part) => JSON.stringify(part) }
  } catch {
    return null
  }
}

const numberToken = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y
const numberParts = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/
const plainCharacters = /[^"\\\u0000-\u001f]*/y
const simpleEscapes: Record<string, string> = {
  '"': '"',
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
}

/** Recursive descent over the text; recursion is bounded by {@link maxJsonDepth}. */
class Scanner {
  private at = 0
  private readonly path: (string | number)[] = []
  private readonly ranges = new Map<object, [number, number]>()
  private readonly text: string
  private values = 0

  constructor(text: string) {
    this.text = text
  }

  run(): ParsedJson & { startOf(value: object): number } {
    const value = this.value()
    this.skip()
    if (this.at < this.text.length) this.fail('unexpected text after the JSON value')
    return {
      value,
      textOf: (part) => {
        const [start, end] = this.rangeOf(part)
        return this.text.slice(start, end)
      },
      startOf: (part) => this.rangeOf(part)[0],
    }
  }

  private rangeOf(part: object): [number, number] {
    const range = this.ranges.get(part)
    if (range === undefined) throw new Error('not a part of this document')
    return range
  }

  private fail(message: string, tooLarge = false): never {
    throw new JsonError(`${message} (at character ${this.at})`, toPointer(this.path), tooLarge)
  }

  private skip(): void {
    const { text } = this
    for (let code = text.charCodeAt(this.at); isBlank(code); code = text.charCodeAt(this.at)) this.at += 1
  }

  private value(): Json {
    this.values += 1
    if (this.values > maxJsonValues) this.fail(`more than ${maxJsonValues} values`, true)
    this.skip()
    switch (this.text[this.at]) {
      case '{':
        return this.container('{')
      case '[':
        return this.container('[')
      case '"':
        return this.string()
      case 't':
        return this.word('true', true)
      case 'f':
        return this.word('false', false)
      case 'n':
        return this.word('null', null)
      default:
        return this.number()
    }
  }

  private word<Value extends boolean | null>(word: string, value: Value): Value {
    if (!this.text.startsWith(word, this.at)) this.fail('expected a JSON value')
    this.at += word.length
    return value
  }

  private container(open: '{' | '['): Json {
    if (this.path.length >= maxJsonDepth) this.fail(`nested deeper than ${maxJsonDepth} levels`)
    const start = this.at
    this.at += 1
    const container = open === '{' ? this.members() : this.elements()
    this.ranges.set(container, [start, this.at])
    return container
  }

  private members(): JsonObject {
    const object: JsonObject = {}
    for (let first = true; !this.closes('}', first); first = false) {
      this.skip()
      if (this.text[this.at] !== '"') this.fail('expected a member name in double quotes')
      const name = this.string()
      if (Object.hasOwn(object, name)) this.fail(`the member ${JSON.stringify(name)} appears twice`)
      this.skip()
      if (this.text[this.at] !== ':') this.fail('expected a colon')
      this.at += 1
      this.path.push(name)
      const value = this.value()
      // A member of this name must be a member, not a prototype. For others an assignment does, at a tenth of the time.
      if (name === '__proto__') {
        Object.defineProperty(object, name, { value, enumerable: true, writable: true, configurable: true })
      } else object[name] = value
      this.path.pop()
    }
    return object
  }

  private elements(): Json[] {
    const array: Json[] = []
    const depth = this.path.length
    for (let first = true; !this.closes(']', first); first = false) {
      this.path[depth] = array.length
      array.push(this.value())
      this.path.length = depth
    }
    return array
  }

  /** Consumes the closing bracket, or the comma before the next entry. */
  private closes(bracket: '}' | ']', first: boolean): boolean {
    this.skip()
    const character = this.text[this.at]
    if (character === bracket) {
      this.at += 1
      return true
    }
    if (first) return false
    if (character !== ',') this.fail(`expected a comma or ${bracket}`)
    this.at += 1
    this.skip()
    if (this.text[this.at] === bracket) this.fail('a comma before the closing bracket')
    return false
  }

  private string(): string {
    this.at += 1
    let result = ''
    for (;;) {
      plainCharacters.lastIndex = this.at
      plainCharacters.test(this.text)
      result += this.text.slice(this.at, plainCharacters.lastIndex)
      this.at = plainCharacters.lastIndex
      const character = this.text[this.at]
      if (character === '"') break
      if (character !== '\\')
        this.fail(character === undefined ? 'unterminated string' : 'a raw control character in a string')
      result += this.escape()
    }
    this.at += 1
    if (!result.isWellFormed()) this.fail('a lone surrogate in a string')
    if (result.includes('\u0000')) this.fail('a NUL character (\\u0000) in a string')
    return result
  }

  private escape(): string {
    const letter = this.text[this.at + 1] ?? ''
    const simple = simpleEscapes[letter]
    if (simple !== undefined) {
      this.at += 2
      return simple
    }
    const hex = this.text.slice(this.at + 2, this.at + 6)
    if (letter !== 'u' || !/^[0-9a-fA-F]{4}$/.test(hex)) this.fail('an unknown escape in a string')
    this.at += 6
    return String.fromCharCode(Number.parseInt(hex, 16))
  }

  private number(): number | ExactInteger {
    const small = this.smallInteger()
    if (small !== null) return small
    numberToken.lastIndex = this.at
    const match = numberToken.exec(this.text)
    if (match === null) this.fail(this.at >= this.text.length ? 'the text ends too early' : 'expected a JSON value')
    const value = Number(match[0])
    if (!Number.isFinite(value)) this.fail(`the number ${match[0].slice(0, 40)} is out of range`)
    this.at = numberToken.lastIndex
    return Math.abs(value) > Number.MAX_SAFE_INTEGER ? exactly(match[0], value) : value
  }

  /** Consumes what most numbers are: few digits and nothing else. Null: it is something else. */
  private smallInteger(): number | null {
    const { text } = this
    let end = this.at
    let value = 0
    for (let code = text.charCodeAt(end); isDigit(code); code = text.charCodeAt(end)) {
      value = value * 10 + code - zero
      end += 1
    }
    const digits = end - this.at
    if (digits === 0 || digits > 15 || (digits > 1 && text.charCodeAt(this.at) === zero)) return null
    // A fraction or an exponent.
    const next = text[end]
    if (next === '.' || next === 'e' || next === 'E') return null
    this.at = end
    return value
  }
}

const zero = 0x30

function isDigit(code: number): boolean {
  return code >= zero && code <= 0x39
}

function isBlank(code: number): boolean {
  return code === 0x20 || (code >= 0x09 && code <= 0x0d && code !== 0x0b && code !== 0x0c)
}

/** The number as a double, unless it is an integer other than the one that JavaScript writes for that double. */
function exactly(text: string, value: number): number | ExactInteger {
  const digits = integerDigits(text)
  return digits === null || digits === integerDigits(String(value)) ? value : new ExactInteger(digits)
}

/** The digits of an integer, however it is spelled (`1000`, `1e3`, `1000.0`); null: it has a fraction. */
function integerDigits(text: string): string | null {
  const [, sign = '', whole = '', fraction = '', exponent = '0'] = numberParts.exec(text) ?? []
  const digits = whole + fraction
  const length = whole.length + Number(exponent)
  if (!/^0*$/.test(digits.slice(length))) return null
  return (
    sign +
    digits
      .slice(0, length)
      .padEnd(length, '0')
      .replace(/^0+(?=\d)/, '')
  )
}

/** An RFC 6901 JSON pointer. */
export function toPointer(path: readonly (string | number)[]): string {
  return path.map((part) => `/${String(part).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')
}
