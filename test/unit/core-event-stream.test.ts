import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createSplitter, readEvent } from '@askonce/core'

/** The events of the chunks and what is left behind the last, as bytes in latin1. */
function split(chunks: readonly Buffer[]): { events: string[]; rest: string } {
  const splitter = createSplitter()
  const events = chunks.flatMap((chunk) => splitter.push(chunk)).map((event) => event.toString('latin1'))
  return { events, rest: splitter.rest().toString('latin1') }
}

/** What the specification makes of a text: the data of each event that a client would see. */
function dataOf(text: string): string[] {
  const lines = text.replace(/^\uFEFF/, '').split(/\r\n|\r|\n/)
  const found: string[] = []
  let data: string[] = []
  // What follows the last line end is no line.
  for (const line of lines.slice(0, -1)) {
    if (line === '') {
      // Empty data is no event.
      if (data.join('\n') !== '') found.push(data.join('\n'))
      data = []
    } else if (line === 'data' || line.startsWith('data:')) {
      data.push(line.slice(5).replace(/^ /, ''))
    }
  }
  return found
}

const fragments = fc.constantFrom(
  'data: a',
  'data:b',
  'data',
  'data: é€😀',
  ': comment',
  'event: e',
  'id: 1',
  '<p>',
  '\r',
  '\n',
  '\r\n',
  '\n\n',
  '\r\r',
  '\r\n\r\n',
)
const texts = fc
  .tuple(fc.constantFrom('', '\uFEFF'), fc.array(fragments, { maxLength: 30 }))
  .map(([mark, parts]) => `${mark}${parts.join('')}: end`)

/** The bytes cut at any places, also several times at the same one. */
const chunked = texts.chain((text) => {
  const bytes = Buffer.from(text)
  return fc.array(fc.nat({ max: bytes.length }), { maxLength: 40 }).map((cuts) => {
    const at = [0, ...cuts.toSorted((a, b) => a - b), bytes.length]
    return { text, bytes, chunks: at.slice(1).map((end, index) => bytes.subarray(at[index], end)) }
  })
})

describe('the splitter', () => {
  test('any chunking gives the same events, which put together are the bytes', () => {
    fc.assert(
      fc.property(chunked, ({ bytes, chunks }) => {
        const whole = split([bytes])
        expect(split(chunks)).toEqual(whole)
        expect(split(Array.from(bytes, (byte) => Buffer.from([byte])))).toEqual(whole)
        expect(whole.events.join('') + whole.rest).toBe(bytes.toString('latin1'))
      }),
      { numRuns: 1_000 },
    )
  })

  test('the events are those of the specification', () => {
    fc.assert(
      fc.property(texts, (text) => {
        const events = split([Buffer.from(text)]).events.map((event) => readEvent(Buffer.from(event, 'latin1')))
        expect(events.map(({ data }) => data).filter((data) => data !== null)).toEqual(dataOf(text))
      }),
      { numRuns: 1_000 },
    )
  })

  test.each([
    ['LF', '\n'],
    ['CRLF', '\r\n'],
    ['CR', '\r'],
  ])('%s: an event is there with its last byte', (_, end) => {
    const event = `event: a${end}data: b${end}${end}`
    const splitter = createSplitter()
    expect(splitter.push(Buffer.from(event.slice(0, -1)))).toEqual([])
    expect(splitter.push(Buffer.from(event.slice(-1))).join('')).toBe(event)
  })

  test('an event of 64 MB in small pieces costs its length, not its square', () => {
    const splitter = createSplitter()
    const piece = Buffer.alloc(16 * 1024, 'x')
    const started = performance.now()
    splitter.push(Buffer.from('data: '))
    for (let count = 0; count < 4_096; count += 1) expect(splitter.push(piece)).toHaveLength(0)
    const [event] = splitter.push(Buffer.from('\n\n'))
    expect(event?.length).toBe(64 * 1024 * 1024 + 8)
    expect(performance.now() - started, 'copying at each piece takes minutes').toBeLessThan(10_000)
  })
})

test.each([
  ['name and data', 'event: a\ndata: b\n\n', { name: 'a', data: 'b', foreign: false }],
  ['several lines of data', 'data: {\ndata:  "a": 1}\n\n', { name: null, data: '{\n "a": 1}', foreign: false }],
  ['a comment', ': ping\n\n', { name: null, data: null, foreign: false }],
  ['fields without a meaning here', 'id: 1\nretry: 5\n\n', { name: null, data: null, foreign: false }],
  ['empty data', 'event: ping\ndata:\n\n', { name: 'ping', data: null, foreign: false }],
  ['a byte order mark', '\uFEFFdata: b\n\n', { name: null, data: 'b', foreign: false }],
  ['a page', '<html>\n\n', { name: null, data: null, foreign: true }],
])('the fields of an event: %s', (_, text, expected) => {
  expect(readEvent(Buffer.from(text))).toEqual(expected)
})
