import fc from 'fast-check'
import { canonicalize, ExactInteger, JsonError, maxJsonDepth, parseJson, type Json } from '@askonce/core'
import { describe, expect, it } from 'vitest'
import { anyJson, randomOf, spell } from './core-texts.ts'

/** Every object and array of a value, in the order in which they open. */
function containers(value: Json): object[] {
  if (typeof value !== 'object' || value === null || value instanceof ExactInteger) return []
  return [value, ...Object.values(value).flatMap((part) => containers(part))]
}

function refusal(text: string): JsonError {
  try {
    parseJson(text)
  } catch (error) {
    if (error instanceof JsonError) return error
    throw error
  }
  throw new Error(`accepted: ${text.slice(0, 200)}`)
}

/** What a parser makes of a text: its canonical form, or `refused`. */
function outcome(text: string): string {
  try {
    return canonicalize(parseJson(text).value)
  } catch (error) {
    if (error instanceof JsonError) return 'refused'
    throw error
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

describe('what is parsed', () => {
  it('is the same whatever the spelling, and so is its canonical form', () => {
    fc.assert(
      fc.property(anyJson, fc.nat(), (value, seed) => {
        const { text } = spell(value, randomOf(seed))
        expect(canonicalize(parseJson(text).value)).toBe(canonicalize(value))
      }),
      { numRuns: 500 },
    )
  })

  it('is what JSON.parse makes of it, where that loses nothing', () => {
    fc.assert(
      fc.property(anyJson, fc.nat(), (value, seed) => {
        const { text } = spell(value, randomOf(seed))
        expect(parseJson(text).value).toEqual(JSON.parse(text))
      }),
    )
  })

  it('is the same for a compact text and for one with blanks, which another parser reads', () => {
    fc.assert(
      fc.property(anyJson, (value) => {
        const compact = JSON.stringify(value)
        const quick = parseJson(compact)
        const scanned = parseJson(` ${compact}\n`)
        expect(scanned.value).toEqual(quick.value)
        expect(canonicalize(scanned.value)).toBe(canonicalize(quick.value))
        const parts = containers(quick.value).map((part) => quick.textOf(part))
        expect(containers(scanned.value).map((part) => scanned.textOf(part))).toEqual(parts)
      }),
      { numRuns: 500 },
    )
  })

  it('is refused by both or by neither, for damaged texts too', () => {
    const damage = fc.tuple(
      fc.nat(),
      fc.constantFrom('', '"', '\\', '{', ']', ',', '0', '-', 'e', 'u', ' ', '\u0001', '\ud800'),
    )
    fc.assert(
      fc.property(anyJson, fc.array(damage, { maxLength: 3 }), (value, damages) => {
        let text = JSON.stringify(value)
        for (const [place, put] of damages) {
          const at = place % (text.length + 1)
          text = text.slice(0, at) + put + text.slice(at + (place % 2))
        }
        expect(outcome(` ${text}`)).toBe(outcome(text))
        expect(outcome(text) === 'refused' || isJson(text)).toBe(true)
      }),
      { numRuns: 2_000 },
    )
  })
})

describe('textOf', () => {
  it('gives the exact source of every object and array', () => {
    fc.assert(
      fc.property(anyJson, fc.nat(), (value, seed) => {
        const { text, parts } = spell(value, randomOf(seed))
        const parsed = parseJson(text)
        // Members with number-like names move to the front of a JavaScript object: compare as sets.
        expect(
          containers(parsed.value)
            .map((part) => parsed.textOf(part))
            .toSorted(),
        ).toEqual(parts.toSorted())
      }),
      { numRuns: 500 },
    )
  })

  it('keeps blanks, escapes and numbers as they were sent', () => {
    const { value, textOf } = parseJson('{"request": { "a" : [1.0, "\\u0041"] }, "b": 1}')
    const { request } = value as { request: { a: Json[] } }
    expect(textOf(request)).toBe('{ "a" : [1.0, "\\u0041"] }')
    expect(textOf(request.a)).toBe('[1.0, "\\u0041"]')
  })

  it('knows only parts of its own document', () => {
    expect(() => parseJson(' {}').textOf({})).toThrow('not a part of this document')
  })
})

describe('numbers', () => {
  it.each([
    ['9007199254740993', '9007199254740993'],
    ['-9007199254740993', '-9007199254740993'],
    ['9007199254740993.0', '9007199254740993'],
    ['9007199254740993e0', '9007199254740993'],
    ['90071992547409930E-1', '9007199254740993'],
    ['9007199254740992', '9007199254740992'],
    ['18446744073709551616', '18446744073709551616'],
    ['18446744073709552000', '18446744073709552000'],
    ['1e21', '1e+21'],
    ['1000000000000000000000', '1e+21'],
    ['100000000000000000000000.00', '1e+23'],
    ['1E23', '1e+23'],
    ['-0', '0'],
    ['-0.0', '0'],
    ['0e5', '0'],
    ['1.0', '1'],
    ['10e-1', '1'],
  ])('%s is %s', (text, canonical) => {
    expect(canonicalize(parseJson(text).value)).toBe(canonical)
    expect(canonicalize(parseJson(` ${text}`).value)).toBe(canonical)
  })

  it('keeps integers apart that differ, however large and however spelled', () => {
    const digits = fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n })
    const near = fc.tuple(fc.bigInt({ min: -(2n ** 70n), max: 2n ** 70n }), fc.bigInt({ min: -3n, max: 3n }))
    const pair = fc.oneof(
      fc.tuple(digits, digits),
      near.map(([a, step]) => [a, a + step] as const),
    )
    const spellings = [
      (n: bigint): string => String(n),
      (n: bigint): string => `${n}.0`,
      (n: bigint): string => (n === 0n ? '0e3' : `${n}00e-2`),
      (n: bigint): string =>
        String(n).replace(
          /^(-?)(\d)(\d*)$/,
          (_, sign, first, rest: string) => `${sign}${first}.${rest || '0'}E${rest.length}`,
        ),
    ]
    const spelling = fc.constantFrom(...spellings)
    fc.assert(
      fc.property(pair, spelling, spelling, ([a, b], spellA, spellB) => {
        expect(outcome(spellA(a)) === outcome(spellB(b))).toBe(a === b)
      }),
      { numRuns: 2_000 },
    )
  })
})

describe('names', () => {
  it.each(['{"__proto__":{"a":1}}', ' { "__proto__" : {"a":1} }'])('%s has a member called __proto__', (text) => {
    const { value } = parseJson(text)
    expect(Object.keys(value as object)).toEqual(['__proto__'])
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype)
    expect(canonicalize(value)).toBe('{"__proto__":{"a":1}}')
  })

  it('twice under one parent are refused, also when one is escaped', () => {
    expect(refusal('{"x":{"a":1,"a":1}}')).toMatchObject({
      pointer: '/x',
      message: expect.stringContaining('"a" appears twice') as string,
    })
    expect(refusal('{"x":{"a":1,"\\u0061":1}}').pointer).toBe('/x')
    expect(refusal('{"__proto__":1,"__proto__":2}').message).toContain('appears twice')
    expect(parseJson('{"a":{"a":1},"b":{"a":1}}').value).toEqual({ a: { a: 1 }, b: { a: 1 } })
  })
})

describe('refused, with a pointer to the place', () => {
  it.each([
    ['a lone surrogate', '{"a/b":["\\ud800"]}', '/a~1b/0', 'lone surrogate'],
    ['a lone low surrogate', '["\\udc00\\ud800"]', '/0', 'lone surrogate'],
    ['a raw lone surrogate', '{"a":"\ud83d"}', '/a', 'lone surrogate'],
    ['a lone surrogate in a name', '{"x":{"\\ud800":1}}', '/x', 'lone surrogate'],
    ['NUL', '{"m~n":"a\\u0000"}', '/m~0n', 'NUL'],
    ['NUL in a name', '{"\\u0000":1}', '', 'NUL'],
    ['a raw control character', '["a\u0001"]', '/0', 'control character'],
    ['a number out of range', '{"n":[0,1e400]}', '/n/1', 'out of range'],
    ['a negative number out of range', '[-1e400]', '/0', 'out of range'],
    ['digits without end', `[${'9'.repeat(400)}]`, '/0', 'out of range'],
    ['a truncated object', '{"a":{"b":1', '/a', 'expected a comma'],
    ['a truncated name', '{"a":{"b', '/a', 'unterminated'],
    ['a truncated value', '{"a":', '/a', 'ends too early'],
    ['nothing', '', '', 'ends too early'],
    ['blanks', ' \n', '', 'ends too early'],
    ['a leading zero', '[01]', '', 'expected a comma'],
    ['NaN', '[NaN]', '/0', 'expected a JSON value'],
    ['a trailing comma', '{"a":[1,]}', '/a', 'a comma before'],
    ['two values', '{} {}', '', 'unexpected text'],
    ['a byte order mark', '\ufeff{}', '', 'expected a JSON value'],
    ['an unknown escape', '["\\x41"]', '/0', 'unknown escape'],
    ['single quotes', "{'a':1}", '', 'double quotes'],
    ['a comment', '[1 /* one */]', '', 'expected a comma'],
  ])('%s', (_, text, pointer, message) => {
    expect(refusal(text)).toMatchObject({ pointer, message: expect.stringContaining(message) as string })
  })

  it('escapes that only look like NUL or surrogates are text', () => {
    expect(parseJson('"\\\\u0000 \\\\ud800 \\ud83d\\ude00"').value).toBe('\\u0000 \\ud800 \u{1f600}')
  })

  it.each(['[', '{"a":'])('nesting of %s beyond 128 levels, in both forms of the text', (open) => {
    const nested = (levels: number): string => open.repeat(levels) + '0' + (open === '[' ? ']' : '}').repeat(levels)
    for (const blank of ['', ' ']) {
      expect(canonicalize(parseJson(blank + nested(maxJsonDepth)).value)).toBe(nested(maxJsonDepth))
      const { message, pointer } = refusal(blank + nested(maxJsonDepth + 1))
      expect(message).toContain('deeper than 128')
      expect(pointer).toBe((open === '[' ? '/0' : '/a').repeat(maxJsonDepth))
    }
  })

  it('brackets inside strings do not count as nesting', () => {
    const text = JSON.stringify(['\\"'.repeat(300), '['.repeat(300), '\\', '{'.repeat(300)])
    expect(JSON.stringify(parseJson(text).value)).toBe(text)
  })

  it('a megabyte of brackets at once: a parser that builds it first needs seconds', () => {
    const startedMs = performance.now()
    refusal('['.repeat(3_000_000) + ']'.repeat(3_000_000))
    refusal('["]",'.repeat(1_000_000) + '0' + ']'.repeat(1_000_000))
    expect(performance.now() - startedMs).toBeLessThan(1_000)
  })
})
