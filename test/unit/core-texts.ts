import fc from 'fast-check'
import type { Json, JsonObject } from '@askonce/core'

/** Well-formed text of every plane, control characters included; NUL is refused everywhere and tested by itself. */
export const anyText = fc
  .oneof(
    fc.string(),
    fc.string({ unit: 'binary' }),
    fc.constantFrom(
      '__proto__',
      'toString',
      'a/b',
      'm~n',
      '~1',
      '"',
      '\\',
      '',
      '0',
      '10',
      '\u2028',
      '\u20ac',
      '\ud83d\ude00',
    ),
  )
  .map((text) => text.replaceAll('\0', ''))

const anyNumber = fc.oneof(
  fc.integer(),
  fc.maxSafeInteger(),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.constantFrom(0, -0, 1e21, 1e-7, 5e-324, 1.7976931348623157e308, 2 ** 53, 2 ** 64, 0.1),
)

/** Any document of plain JavaScript values. */
export const anyJson: fc.Arbitrary<Json> = fc.letrec<{ value: Json }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constantFrom<Json>(null, true, false),
    anyNumber,
    anyText,
    fc.array(tie('value'), { maxLength: 5 }),
    fc.array(fc.tuple(anyText, tie('value')), { maxLength: 5 }).map((members) => toObject(members)),
  ),
})).value

/** An object with these members in this order; the first of equal names stays. */
export function toObject(members: readonly (readonly [string, Json])[]): JsonObject {
  const object: JsonObject = {}
  for (const [name, value] of members) {
    if (Object.hasOwn(object, name)) continue
    Object.defineProperty(object, name, { value, enumerable: true, writable: true, configurable: true })
  }
  return object
}

/** A repeatable source of small whole numbers: `next(n)` is in 0 … n − 1. */
export function randomOf(seed: number): (below: number) => number {
  let state = seed >>> 0
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

export interface Spelled {
  text: string
  /** Source text of every object and array, in the order in which they open. */
  parts: string[]
}

/** Writes a value as JSON in some other spelling: member order, blanks, escapes, forms of numbers. */
export function spell(value: Json, next: (below: number) => number): Spelled {
  const parts: string[] = []
  const blank = (): string => ['', '', ' ', '\n', '\t\r'][next(5)] ?? ''
  const list = (open: string, entries: (() => string)[], close: string): string => {
    const place = parts.push('') - 1
    const inside = entries.map((entry) => blank() + entry() + blank()).join(',')
    parts[place] = open + (inside || blank()) + close
    return parts[place]
  }
  const write = (part: Json): string => {
    if (typeof part === 'string') return spellString(part, next)
    if (typeof part === 'number') return spellNumber(part, next)
    if (Array.isArray(part))
      return list(
        '[',
        part.map((entry) => () => write(entry)),
        ']',
      )
    if (typeof part !== 'object' || part === null) return JSON.stringify(part)
    const members = shuffle(Object.entries(part as JsonObject), next)
    return list(
      '{',
      members.map(
        ([name, member]) =>
          () =>
            `${spellString(name, next)}${blank()}:${blank()}${write(member)}`,
      ),
      '}',
    )
  }
  const text = blank() + write(value) + blank()
  return { text, parts }
}

function spellString(text: string, next: (below: number) => number): string {
  const units = Array.from({ length: text.length }, (_, index) => {
    if (next(6) === 0) {
      const hex = text.charCodeAt(index).toString(16).padStart(4, '0')
      return `\\u${next(2) === 0 ? hex : hex.toUpperCase()}`
    }
    return text[index] === '/' && next(2) === 0 ? '\\/' : null
  })
  // A surrogate pair is escaped as a whole or not at all: half of it raw would not be text.
  const written = units.map((escape, index) => {
    const unit = text[index] as string
    if (escape !== null && !/[\ud800-\udfff]/.test(unit)) return escape
    return /["\\\u0000-\u001f]/.test(unit) ? JSON.stringify(unit).slice(1, -1) : unit
  })
  return `"${written.join('')}"`
}

function spellNumber(value: number, next: (below: number) => number): string {
  const plain = Object.is(value, -0) ? '-0' : String(value)
  const forms = [plain, plain.includes('e') ? plain.replace('e', 'E') : `${plain}e0`]
  if (/^-?\d+$/.test(plain)) forms.push(`${plain}.0`, `${plain}.00E+0`, ...(value === 0 ? [] : [`${plain}0e-1`]))
  if (/^-?\d+\.\d+$/.test(plain)) forms.push(`${plain}0`, `${plain}e+00`)
  return forms[next(forms.length)] ?? plain
}

function shuffle<Entry>(entries: Entry[], next: (below: number) => number): Entry[] {
  return entries
    .map((entry) => [next(1_000_000), entry] as const)
    .toSorted(([left], [right]) => left - right)
    .map(([, entry]) => entry)
}
