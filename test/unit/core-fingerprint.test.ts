import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { canonicalize, differences, fingerprint, operations, parseJson, type Json } from '@askonce/core'
import { describe, expect, it } from 'vitest'
import { anyJson, anyText, randomOf, spell, toObject } from './core-texts.ts'

/** The double with these 64 bits. */
function double(bits: string): number {
  return Buffer.from(bits, 'hex').readDoubleBE()
}

describe('canonicalize, by the vectors of RFC 8785', () => {
  it.each([
    ['0000000000000000', '0'],
    ['8000000000000000', '0'],
    ['0000000000000001', '5e-324'],
    ['8000000000000001', '-5e-324'],
    ['7fefffffffffffff', '1.7976931348623157e+308'],
    ['ffefffffffffffff', '-1.7976931348623157e+308'],
    ['4340000000000000', '9007199254740992'],
    ['c340000000000000', '-9007199254740992'],
    ['4430000000000000', '295147905179352830000'],
    ['44b52d02c7e14af5', '9.999999999999997e+22'],
    ['44b52d02c7e14af6', '1e+23'],
    ['44b52d02c7e14af7', '1.0000000000000001e+23'],
    ['444b1ae4d6e2ef4e', '999999999999999700000'],
    ['444b1ae4d6e2ef4f', '999999999999999900000'],
    ['444b1ae4d6e2ef50', '1e+21'],
    ['3eb0c6f7a0b5ed8c', '9.999999999999997e-7'],
    ['3eb0c6f7a0b5ed8d', '0.000001'],
    ['41b3de4355555553', '333333333.3333332'],
    ['41b3de4355555554', '333333333.33333325'],
    ['41b3de4355555555', '333333333.3333333'],
    ['41b3de4355555556', '333333333.3333334'],
    ['41b3de4355555557', '333333333.33333343'],
    ['becbf647612f3696', '-0.0000033333333333333333'],
    ['43143ff3c1cb0959', '1424953923781206.2'],
  ])('number %s is %s', (bits, text) => {
    expect(canonicalize(double(bits))).toBe(text)
    expect(canonicalize(parseJson(`[${text}]`).value)).toBe(`[${text}]`)
  })

  it.each([
    [
      'numbers, strings, literals',
      String.raw`{
        "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
        "literals": [null, true, false]
      }`,
      String.raw`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
    ],
    [
      'names in the order of UTF-16 code units',
      String.raw`{"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\ud83d\ude00": 5, "\u0080": 6, "\u00f6": 7}`,
      `{"\\r":2,"1":4,"\u0080":6,"\u00f6":7,"\u20ac":1,"\u{1f600}":5,"\ufb33":3}`,
    ],
    ['arrays keep their order', '[ 56, { "d": true, "10": null, "1": [ ] } ]', '[56,{"1":[],"10":null,"d":true}]'],
    [
      'structures',
      String.raw`{"1": {"f": {"f": "hi","F": 5} ,"\n": 56.0}, "10": { }, "": "empty", "a": { }, "111": [ {"e": "yes","E": "no" } ], "A": { }}`,
      String.raw`{"":"empty","1":{"\n":56,"f":{"F":5,"f":"hi"}},"10":{},"111":[{"E":"no","e":"yes"}],"A":{},"a":{}}`,
    ],
    ['text is not normalised', String.raw`{"a": "A\u030a"}`, '{"a":"A\u030a"}'],
    [
      'markup and DEL stay as they are',
      String.raw`{"\u0080": "\u007f", "</script>": ""}`,
      '{"</script>":"","\u0080":"\u007f"}',
    ],
    [
      'control characters in the short form where there is one',
      String.raw`"\u0008\u0009\u000a\u000c\u000d\u001f"`,
      String.raw`"\b\t\n\f\r\u001f"`,
    ],
  ])('%s', (_, text, canonical) => {
    expect(canonicalize(parseJson(text).value)).toBe(canonical)
  })

  it('is a fixed point', () => {
    fc.assert(
      fc.property(anyJson, (value) => {
        const text = canonicalize(value)
        expect(canonicalize(parseJson(text).value)).toBe(text)
      }),
    )
  })
})

describe('fingerprint', () => {
  it('is the SHA-256 of the canonical operation and request', () => {
    const text = '{"operation":"embeddings","request":{"input":"a","model":"m"}}'
    const expected = createHash('sha256').update(text).digest('hex')
    expect(fingerprint('embeddings', { model: 'm', input: 'a' }).toString('hex')).toBe(expected)
  })

  it('does not depend on member order, blanks, escapes and forms of numbers', () => {
    fc.assert(
      fc.property(anyJson, fc.nat(), fc.nat(), (value, left, right) => {
        const of = (seed: number): string =>
          fingerprint('responses', parseJson(spell(value, randomOf(seed)).text).value).toString('hex')
        expect(of(left)).toBe(of(right))
      }),
    )
  })

  it('differs with the operation, and for values that differ', () => {
    const all = operations.map((operation) => fingerprint(operation, {}).toString('hex'))
    expect(new Set(all).size).toBe(operations.length)
    fc.assert(
      fc.property(anyJson, anyJson, (left, right) => {
        const same = fingerprint('messages', left).equals(fingerprint('messages', right))
        expect(same).toBe(canonicalize(left) === canonicalize(right))
      }),
    )
  })

  it.each([
    ['{"a":9007199254740992}', '{"a":9007199254740993}'],
    ['{"a":9007199254740992}', '{"a":9007199254740993.0}'],
    ['{"a":1}', '{"a":"1"}'],
    ['{"a":null}', '{}'],
    ['{"a":[]}', '{"a":{}}'],
    ['[1,2]', '[2,1]'],
    ['{"__proto__":1}', '{}'],
    ['"\\u00e9"', '"e\\u0301"'],
  ])('%s is another request than %s', (left, right) => {
    const of = (text: string): Buffer => fingerprint('messages', parseJson(text).value)
    expect(of(left).equals(of(right))).toBe(false)
  })
})

describe('differences', () => {
  it.each<[string, string, string[]]>([
    ['{"a":1,"b":2}', '{"b":2,"a":1.0}', []],
    ['{"a":1,"b":2}', '{"a":1,"b":3}', ['/b']],
    ['{"a":{"x":1,"y":2}}', '{"a":{"x":2}}', ['/a/x', '/a/y']],
    ['{"a":1}', '{"c":1}', ['/a', '/c']],
    ['{"a/b":{"m~n":[0]}}', '{"a/b":{"m~n":[1]}}', ['/a~1b/m~0n/0']],
    ['{"~1":0}', '{"~1":1}', ['/~01']],
    ['{"":0}', '{"":1}', ['/']],
    ['1', '2', ['']],
    ['[1,2]', '{"0":1}', ['']],
    ['[1,[2]]', '[1,2]', ['/1']],
    ['[1]', '[1,2,3,4]', ['/1']],
    ['[1,2,3]', '[0]', ['/0', '/1']],
    ['{"__proto__":1}', '{}', ['/__proto__']],
    ['{"toString":1}', '{}', ['/toString']],
    ['{"n":9007199254740993}', '{"n":9007199254740992}', ['/n']],
    ['{"a":null}', '{}', ['/a']],
  ])('%s and %s differ at %j', (left, right, pointers) => {
    expect(differences(parseJson(left).value, parseJson(right).value)).toEqual(pointers)
  })

  it('are none exactly when the fingerprints are equal, and never tell a value', () => {
    fc.assert(
      fc.property(anyJson, anyJson, (left, right) => {
        expect(differences(left, right).length === 0).toBe(canonicalize(left) === canonicalize(right))
        expect(differences(left, left)).toEqual([])
      }),
    )
  })

  it('names the one changed member by its path, whatever the names', () => {
    fc.assert(
      fc.property(fc.array(anyText, { minLength: 1, maxLength: 6 }), anyText, (path, sibling) => {
        const at = (value: Json): Json =>
          path.reduceRight<Json>(
            (inner, name) =>
              toObject([
                [name, inner],
                [sibling, 'same'],
              ]),
            value,
          )
        const pointer = path.map((name) => `/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')
        expect(differences(at(1), at(2))).toEqual([pointer])
      }),
    )
  })

  it('stops at 20 pointers', () => {
    const members = (value: number): Json => toObject(Array.from({ length: 50 }, (_, index) => [`m${index}`, value]))
    expect(differences(members(1), members(2))).toHaveLength(20)
  })
})
