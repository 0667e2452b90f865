import fc from 'fast-check'
import { maxKeyLength, parseKey, parseKeyText } from '@askonce/core'
import { describe, expect, it } from 'vitest'

const printable = fc.string({
  unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)),
  minLength: 1,
  maxLength: maxKeyLength,
})

const quote = (key: string): string => `"${key.replaceAll(/["\\]/g, '\\$&')}"`

function detailOf(text: string): string {
  const parsed = parseKeyText(text)
  if (parsed.ok) throw new Error(`accepted as ${JSON.stringify(parsed.key)}`)
  expect(parsed.code).toBe('idempotency_key_invalid')
  return parsed.detail
}

describe('parseKey', () => {
  it('takes any printable ASCII, quoted or not, as the same key', () => {
    fc.assert(
      fc.property(printable, (text) => {
        const key = text.trim()
        fc.pre(key !== '' && !key.startsWith('"'))
        expect(parseKey([key])).toEqual({ ok: true, key })
        expect(parseKey([` ${key}\t`])).toEqual({ ok: true, key })
        expect(parseKey([quote(key)])).toEqual({ ok: true, key })
      }),
    )
  })

  it('keeps what is inside the quotes, blanks too', () => {
    fc.assert(
      fc.property(printable, (key) => {
        expect(parseKey([` ${quote(key)} `])).toEqual({ ok: true, key })
      }),
    )
  })

  it.each([
    ['"abc"', 'abc'],
    ['abc', 'abc'],
    ['a b,c;d', 'a b,c;d'],
    ['a"b"', 'a"b"'],
    [String.raw`"a\"b\\c"`, String.raw`a"b\c`],
    [String.raw`a\b`, String.raw`a\b`],
    ['" "', ' '],
    ['~', '~'],
  ])('%s is the key %s', (text, key) => {
    expect(parseKey([text])).toEqual({ ok: true, key })
  })

  it('needs exactly one header', () => {
    const missing = { ok: false, code: 'idempotency_key_missing' }
    expect(parseKey(undefined)).toMatchObject(missing)
    expect(parseKey([])).toMatchObject(missing)
    expect(parseKey(['a', 'a'])).toMatchObject({ ok: false, code: 'idempotency_key_invalid' })
  })

  it.each([
    ['nothing', '', 'empty'],
    ['blanks', ' \t ', 'empty'],
    ['empty quotes', '""', 'empty'],
    ['one quote', '"', 'well-formed'],
    ['an open quote', '"abc', 'well-formed'],
    ['text after the quote', '"abc"d', 'well-formed'],
    ['an unknown escape', String.raw`"a\n"`, 'well-formed'],
    ['an escaped closing quote', String.raw`"abc\"`, 'well-formed'],
    ['a tab', 'a\tb', 'printable ASCII'],
    ['a line break', 'a\nb', 'printable ASCII'],
    ['a line break at the end', 'ab\n', 'printable ASCII'],
    ['NUL', 'a\0', 'printable ASCII'],
    ['DEL', 'a\u007f', 'printable ASCII'],
    ['a control character in quotes', '"a\u0001"', 'printable ASCII'],
    ['an umlaut', 'schlüssel', 'printable ASCII'],
    ['a no-break space at the edge', '\u00a0abc', 'printable ASCII'],
    ['an emoji', '🔑', 'printable ASCII'],
  ])('refuses %s', (_, text, detail) => {
    expect(detailOf(text)).toContain(detail)
  })

  it.each([1, 254, 255])('takes %i characters', (length) => {
    const key = 'k'.repeat(length)
    expect(parseKeyText(key)).toEqual({ ok: true, key })
    expect(parseKeyText(`"${key}"`)).toEqual({ ok: true, key })
    const quotes = '"'.repeat(length)
    expect(parseKeyText(quote(quotes))).toEqual({ ok: true, key: quotes })
  })

  it.each([256, 10_000, 10_000_000])('refuses %i characters, and says how many they are', (length) => {
    expect(detailOf('k'.repeat(length))).toContain(`has ${length} characters; at most 255`)
    expect(detailOf(`"${'k'.repeat(length)}"`)).toContain('at most 255')
  })

  it('is quick with blanks in the middle', () => {
    const startedMs = performance.now()
    detailOf(`a${' '.repeat(1_000_000)}b`)
    expect(performance.now() - startedMs).toBeLessThan(1_000)
  })
})
