import fc from 'fast-check'

/** What JavaScript cannot hold, what only looks like JSON, and what is good and strange. */
const token = fc.oneof(
  { weight: 3, arbitrary: fc.jsonValue({ maxDepth: 3 }).map((value) => JSON.stringify(value)) },
  fc.constantFrom(
    '-0',
    '-0.0',
    '9007199254740993',
    '-9007199254740993.0',
    '1E-400',
    '0.1e1',
    '1.0',
    '123456789012345678901234567890',
    '1e400',
    '-1e400',
    '9'.repeat(400),
    '01',
    '.5',
    '1.',
    '+1',
    '0x10',
    'NaN',
    'Infinity',
    '-',
    'undefined',
    'tru',
    String.raw`"\ud800"`,
    String.raw`"\udc00\ud800"`,
    '"\ud83d"',
    String.raw`"\ud83d\ude00"`,
    '"\u{1f600}"',

    String.raw`"\u0000"`,
    '"\u0000"',
    '"\u0001"',
    '"\t"',
    String.raw`"\x41"`,
    String.raw`"\u00e"`,
    "'a'",
    '"',
    '"a',
    '{"a":1,"a":2}',
    String.raw`{"a":1,"\u0061":2}`,
    '{"__proto__":{"a":1}}',
    '{"a":1,}',
    '[1,]',
    '{a:1}',
    '[1 2]',

    '['.repeat(100) + ']'.repeat(100),
    '['.repeat(200) + ']'.repeat(200),
    '{"a":'.repeat(5_000),
    '['.repeat(100_000),
    '/* */1',
    '\u00a01',
    '\ufeff1',
    '"\u2028"',
    `"${'x'.repeat(100_000)}"`,
    `"${'\u20ac'.repeat(50_000)}"`,
  ),
)

/** How the whole text is damaged afterwards; mostly not. */
const damage = fc.oneof(
  { weight: 8, arbitrary: fc.constant((text: string) => text) },
  fc.nat().map((at) => (text: string) => text.slice(0, at % text.length)),
  fc.tuple(fc.nat(), fc.constantFrom('"', '{', '}', ',', '\\', '\u0000', '\ud800', 'x')).map(
    ([at, put]) =>
      (text: string) =>
        text.slice(0, at % text.length) + put + text.slice(at % text.length),
  ),
  fc.constantFrom(
    (text: string) => text + text,
    (text: string) => text.replace('{', '{"operation":"embeddings",'),
    (text: string) => text.replace('"x":', '"model":"again","x":'),
  ),
)

/** A submission as text. Line breaks are left out: a line of NDJSON must stay one. */
export const envelopeText = fc
  .tuple(token, token, fc.constantFrom('x', 'metadata', 'priority'), damage)
  .map(([inside, outside, member, spoil]) => {
    const request = `{ "model":"simulated/small","messages":[{"role":"user","content":"a"}], "x":${inside} }`
    const more = member === 'x' ? '' : `,"${member}":${outside}`
    return spoil(`{"operation":"chat.completions","request":${request}${more}}`).replaceAll('\n', ' ')
  })

/** A line that is nothing at all. */
export const badLine = fc.oneof(
  fc.constantFrom(
    '',
    ' ',
    '\t',
    '{}',
    '[]',
    'null',
    '"a"',
    '{"key":1}',
    '{"key":""}',
    '\u0000',
    '{"key":"a"',
    '\ufeff',
  ),
  fc.string({ unit: 'binary', maxLength: 50 }).map((text) => text.replaceAll('\n', '')),
)

export const prefers = fc.constantFrom(
  'wait=0',
  'wait',
  'wait=',
  'wait=-0',
  'wait=1e0',
  'wait=0x1',
  'wait=00',
  'wait="0"',
  'wait="0',
  'Wait = 0',
  ';wait=0',

  'respond-async, wait=0',
  'wait=0, wait=60',
  'a="b, wait=60"',
  '"',
  '\\',
  ',,,,',
  'wait=61',
  `wait=${'9'.repeat(400)}`,
)

export const contentTypes = fc.constantFrom(
  'application/json; charset=utf-16',
  'application/json;charset=latin1',
  'application/json; charset="',
  'APPLICATION/JSON',

  'application/json, text/plain',
  'application/json;',
  'application/jsonx',
  'text/json',
  '*/*',
  ';',
  '/',
  'a'.repeat(5_000),
  'multipart/form-data',
  'application/x-www-form-urlencoded',
  'application/x-ndjson',
  'application/json\u00e9',
)

/** Ids that are nearly one, and queries around a cursor that is one. */
export const anyQuery = (id: string, cursor: string): fc.Arbitrary<{ id: string; query: string }> => {
  const bend = (text: string): fc.Arbitrary<string> =>
    fc.oneof(
      fc.constantFrom(
        text,
        text.toUpperCase(),
        `${text} `,
        `{${text}}`,
        `${text}%00`,
        text.replaceAll('-', ''),
        '.',
        '..',
        '%2e%2e',
      ),
      fc.nat().map((at) => text.slice(0, at % (text.length + 1))),
      fc
        .tuple(fc.nat(), fc.constantFrom('g', '\u0000', '%', '\u20ac', "'", '"', '/'))
        .map(([at, put]) => text.slice(0, at % (text.length + 1)) + put + text.slice((at % (text.length + 1)) + 1)),
      fc.string({ unit: 'binary', minLength: 1, maxLength: 40 }),
    )
  const times = ['9999-12-31 23:59:59+00', '0000-01-01 00:00:00+00', '2026-02-30 00:00:00+00', '2026-01-01 00:00:00+99']
  const forged = fc
    .tuple(fc.constantFrom(...times), bend(id))
    .map((pair) => Buffer.from(JSON.stringify(pair)).toString('base64url'))
  const name = fc.constantFrom(
    'cursor',
    'key',
    'limit',
    'state',
    'created_after',
    'wait',
    'from',
    'to',
    'group_by',
    '__proto__',
  )
  const value = fc.oneof(
    bend(cursor),
    forged,
    fc.constantFrom('0', '1', '-1', '1e9', '9999-12-31', '275760-09-13', '', '[]'),
  )
  const pair = fc.tuple(name, value).map(([left, right]) => `${left}=${encodeURIComponent(right.toWellFormed())}`)
  const queries = fc.oneof(
    fc.array(pair, { maxLength: 4 }).map((pairs) => pairs.join('&')),
    fc.constantFrom('%', '%zz', '&&&', '=', 'a[b]=c', 'cursor', `limit=${'9'.repeat(5_000)}`),
  )
  return fc.record({
    id: bend(id).map((text) => encodeURIComponent(text.toWellFormed()) || '-'),
    // Nobody waits here.
    query: queries.map((text) => text.replaceAll(/wait=(?!0)\d+/g, 'wait=0')),
  })
}
