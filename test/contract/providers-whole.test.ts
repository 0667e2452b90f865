import type { Socket } from 'node:net'
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync } from 'node:zlib'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { Operation, Verdict } from '@askonce/core'
import { chunk, chunkedResponse, events, rawServer, stream, streamed, transcripts } from './providers-stream-bench.ts'

/** What makes an answer complete is its content, not how the connection ends. */

const json = '{"id":"c-1","choices":[{"index":0,"message":{"content":"né€😀"},"finish_reason":"stop"}]}'
const jsonHead = 'content-type: application/json\r\n'

async function plain(onRequest: (socket: Socket) => void, timeoutMs = 10_000): Promise<Verdict> {
  const { provider } = await rawServer(onRequest)
  const operation = 'chat.completions'
  const request = Buffer.from('{"model":"m"}')
  return provider(operation).call({ operation, model: 'm', request, timeoutMs, signal: new AbortController().signal })
}

/** A response that says that more comes than does. */
const longer = (body: string): string =>
  `HTTP/1.1 200 OK\r\n${jsonHead}content-length: ${Buffer.byteLength(body) + 100}\r\n\r\n${body}`

/** Ways in which a connection ends that HTTP does not want, or does not end at all. */
const endings: Record<string, (socket: Socket, response: Buffer | string) => void> = {
  'closed without the last chunk': (socket, response) => socket.end(response),
  reset: (socket, response) => void socket.write(response, () => setTimeout(() => socket.resetAndDestroy(), 20)),
  'left open': (socket, response) => void socket.write(response),
  'left open, with blanks that go on': (socket, response) => {
    socket.write(response)
    const timer = setInterval(() => socket.write('1\r\n\n\r\n'), 20)
    onTestFinished(() => clearInterval(timer))
  },
}

function properly(socket: Socket, response: Buffer | string): void {
  socket.write(Buffer.concat([Buffer.from(response), Buffer.from('0\r\n\r\n')]))
}

describe.each(Object.entries(endings))('%s', (_, end) => {
  test('plain JSON that is whole is the answer, within half a second', async () => {
    const started = performance.now()
    const verdict = await plain((socket) => end(socket, chunkedResponse([json], { headers: jsonHead, ending: '' })))
    expect(verdict).toMatchObject({ kind: 'answer', answerId: 'c-1' })
    expect(verdict.kind === 'answer' && verdict.body.toString().trim()).toBe(json)
    expect(performance.now() - started).toBeLessThan(1_500)
  })

  test.each(streamed)('%s: a stream with its ending is the answer, within half a second', async (operation) => {
    const { open, ending, id } = transcripts[operation]
    const { provider } = await rawServer((socket) => end(socket, chunkedResponse([open, ending], { ending: '' })))
    const started = performance.now()
    const { verdict, shown } = await stream(provider(operation), operation, { timeoutMs: 10_000 })
    expect(verdict).toMatchObject({ kind: 'answer', answerId: id })
    expect(verdict.kind === 'answer' && verdict.body.toString().startsWith(open + ending)).toBe(true)
    expect(shown).toBe(open)
    expect(performance.now() - started).toBeLessThan(1_500)
  })

  test('a refusal is one, and none that may have been billed', async () => {
    const error = '{"error":{"message":"no","type":"invalid_request_error"}}'
    const response = chunkedResponse([error], { headers: jsonHead, ending: '' }).toString().replace('200 OK', '400 No')
    const started = performance.now()
    expect(await plain((socket) => end(socket, response))).toMatchObject({
      kind: 'stop',
      billing: 'none',
      message: 'no',
    })
    expect(performance.now() - started).toBeLessThan(1_500)
  })
})

describe('what is not whole', () => {
  test('half an answer is waited for, and is none', async () => {
    const half = { kind: 'unknown', billing: 'maybe', code: 'timeout' }
    expect(await plain((socket) => socket.write(longer('{"choices":[{}')), 600)).toMatchObject(half)
    expect(await plain((socket) => socket.write(longer('{"choices":[{}]')), 600)).toMatchObject(half)
  })

  test('an answer in two halves, with a pause longer than the patience behind an ending', async () => {
    const verdict = await plain((socket) => {
      socket.write(chunkedResponse([json.slice(0, 40)], { headers: jsonHead, ending: '' }))
      setTimeout(
        () => socket.write(`${(Buffer.byteLength(json) - 40).toString(16)}\r\n${json.slice(40)}\r\n0\r\n\r\n`),
        700,
      )
    })
    expect(verdict).toMatchObject({ kind: 'answer', body: Buffer.from(json) })
  })
})

test('a content-length that promises more: the answer is whole all the same', async () => {
  expect(await plain((socket) => socket.write(longer(json)))).toMatchObject({ kind: 'answer', body: Buffer.from(json) })
  expect(await plain((socket) => socket.end(longer(json)))).toMatchObject({ kind: 'answer', body: Buffer.from(json) })
})

test('usage behind the last finish reason is waited for, [DONE] is not insisted on', async () => {
  const body = events(chunk({ content: 'a' }), chunk({}, 'stop'))
  const usage = events({ choices: [], usage: { prompt_tokens: 3, completion_tokens: 4 } })
  const { provider } = await rawServer((socket) => {
    socket.write(chunkedResponse([body], { ending: '' }))
    setTimeout(() => socket.write(`${usage.length.toString(16)}\r\n${usage}\r\n`), 600)
  })
  const { verdict } = await stream(provider('chat.completions'), 'chat.completions', { timeoutMs: 10_000 })
  expect(verdict).toMatchObject({ kind: 'answer', usage: { inputTokens: 3, outputTokens: 4 } })
})

describe.each(streamed)('%s: what says nothing', (operation) => {
  const { open, ending, id } = transcripts[operation]
  const blocks = (text: string): string[] => text.split(/(?<=\n\n)/)

  test.each([
    ['empty data', 'data:\n\n'],
    ['empty data with a blank', 'data: \n\n'],
    ['a ping with empty data', 'event: ping\ndata:\n\n'],
    ['a ping with text', 'event: ping\ndata: alive\n\n'],
    ['an unknown event', 'event: usage_hint\ndata: {}\n\n'],
    ['a comment', ': OPENROUTER PROCESSING\n\n'],
    ['a name without data', 'event: error\n\n'],
    ['an id and a retry', 'id: 7\nretry: 100\n\n'],
    ['blank lines', '\n\n\n'],
    ['an unknown field', 'foo: bar\n\n'],
  ])('%s, first, in the middle, at the end and behind it', async (_, nothing) => {
    const all = [...blocks(open), ...blocks(ending)]
    for (let at = 0; at <= all.length; at += 1) {
      const body = [...all.slice(0, at), nothing, ...all.slice(at)].join('')
      const { provider } = await rawServer((socket) => socket.write(chunkedResponse([body])))
      const { verdict } = await stream(provider(operation), operation)
      expect({ at, ...verdict }).toMatchObject({ at, kind: 'answer', answerId: id, body: Buffer.from(body) })
    }
  })
})

test('a server that names a finish reason in every piece: all pieces are waited for', async () => {
  const pieces = Array.from({ length: 8 }, (_, index) => events(chunk({ content: `word ${index} ` }, 'stop')))
  const { provider } = await rawServer((socket) => {
    socket.write(chunkedResponse([], { ending: '' }))
    for (const [index, piece] of [...pieces, events('[DONE]')].entries()) {
      setTimeout(() => socket.write(`${piece.length.toString(16)}\r\n${piece}\r\n`), index * 400)
    }
  })
  const { verdict } = await stream(provider('chat.completions'), 'chat.completions', { timeoutMs: 10_000 })
  expect(verdict).toMatchObject({ kind: 'answer', body: Buffer.from(pieces.join('') + events('[DONE]')) })
})

test.each(['data: [DONE] \n\n', 'data:[DONE]\n\n', 'data:  [DONE]\t\n\n', 'event: done\ndata: [DONE]\n\n'])(
  '%j ends a stream',
  async (done) => {
    const body = transcripts['chat.completions'].open + events(chunk({}, 'stop')) + done
    const { provider } = await rawServer((socket) => socket.write(chunkedResponse([body])))
    expect((await stream(provider('chat.completions'), 'chat.completions')).verdict).toMatchObject({ kind: 'answer' })
  },
)

test('what follows the ending changes nothing', async () => {
  for (const operation of streamed) {
    const { open, ending } = transcripts[operation]
    for (const more of [
      'data: {"error":{"message":"late"}}\n\n',
      'data: {torn',
      '<html>',
      'event: error\ndata: x\n\n',
    ]) {
      const { provider } = await rawServer((socket) => socket.write(chunkedResponse([open + ending + more])))
      expect((await stream(provider(operation), operation)).verdict).toMatchObject({ kind: 'answer' })
    }
  }
})

describe.each(Object.entries({ 'ended as HTTP wants it': properly, ...endings }))('%s', (_, end) => {
  test.each(['data: [DONE]\n\n', '\0', '{}', '\n{"torn', '\n--boundary--', '<!-- cached -->'])(
    'what follows whole JSON changes nothing: %j',
    async (more) => {
      const response = chunkedResponse([json + more], { headers: jsonHead, ending: '' })
      const verdict = await plain((socket) => end(socket, response), 2_000)
      expect(verdict).toMatchObject({ kind: 'answer', body: Buffer.from(json) })
    },
  )
})

describe('bytes that only a lenient reader takes for JSON', () => {
  const answered = async (bytes: Buffer): Promise<string | null> => {
    const verdict = await plain((socket) => socket.write(chunkedResponse([bytes], { headers: jsonHead })))
    return verdict.kind === 'answer' ? verdict.body.toString('latin1') : null
  }
  const latin1 = (text: string): string => Buffer.from(text).toString('latin1')

  test('a byte order mark is left out', async () => {
    expect(await answered(Buffer.from(`\uFEFF${json}`))).toBe(latin1(json))
  })

  test('bytes that are no UTF-8 become replacement characters', async () => {
    for (const [bytes, shown] of [
      ['ff', '\uFFFD'],
      ['c3', '\uFFFD'],
      ['eda080', '\uFFFD\uFFFD\uFFFD'],
    ] as const) {
      const [before = '', after = ''] = json.split('€')
      const body = Buffer.concat([Buffer.from(before), Buffer.from(bytes, 'hex'), Buffer.from(after)])
      expect(await answered(body)).toBe(latin1(before + shown + after))
    }
  })

  test('another encoding is none', async () => {
    expect(await answered(Buffer.from(`\uFEFF${json}`, 'utf16le'))).toBeNull()
  })
})

describe('a large text is JSON by the same rules as a small one', () => {
  const large = 400_000
  const answer = (content: string) => `{"choices":[{"message":{"content":"${content}"}}]}`
  const vector = (rest: string) => `{"data":[{"embedding":[${'0.25,'.repeat(large / 5)}${rest}]}]}`
  const judge = async (operation: Operation, body: string): Promise<Verdict['kind']> => {
    const { provider } = await rawServer((socket) => socket.write(chunkedResponse([body], { headers: jsonHead })))
    const request = Buffer.from('{"model":"m"}')
    const { signal } = new AbortController()
    return (await provider(operation).call({ operation, model: 'm', request, timeoutMs: 5_000, signal })).kind
  }
  const isJson = (text: string): boolean => {
    try {
      JSON.parse(text)
      return true
    } catch {
      return false
    }
  }
  const ends = ['\\"', '\\\\', '\\/\\b\\f\\n\\r\\t', '\\u00e9', '\n', '\t', '\0', '\\q', '\\u12', '\\u12g4', '\\U0041']
  const rests = [
    '-0.5e+10',
    '0',
    '1E5',
    'null',
    'true',
    '{}',
    '[]',
    '{"a":[]}',
    ' 1 ',
    'NaN',
    '-Infinity',
    '01',
    '1.',
    '.5',
  ]
  const faults = [
    '+1',
    '-',
    '1e',
    '1e+',
    '0x1',
    'tru',
    'nulll',
    "'a'",
    '',
    ',',
    '1,',
    '1 2',
    '"a" "b"',
    '{"a"}',
    '{"a":}',
    '{a:1}',
    '{"a":1,}',
    '1:2',
    '}',
    '\\',
  ]

  test.each(ends)('a string that ends with %j', async (end) => {
    const body = answer('x'.repeat(large) + end)
    expect(await judge('chat.completions', body)).toBe(isJson(body) ? 'answer' : 'unknown')
  })

  test.each([...rests, ...faults])('an array that ends with %j', async (rest) => {
    expect(await judge('embeddings', vector(rest))).toBe(isJson(vector(rest)) ? 'answer' : 'unknown')
  })
})

describe('content encodings', () => {
  const long = json.replace('né€😀', 'né€😀 '.repeat(50_000))
  const encodings: [string, (body: string) => Buffer][] = [
    ['gzip', gzipSync],
    ['x-gzip', gzipSync],
    ['deflate', deflateSync],
    ['deflate', deflateRawSync],
    ['br', brotliCompressSync],
    ['gzip, br', (body) => brotliCompressSync(gzipSync(body))],
    ['identity, GZIP', gzipSync],
  ]

  test.each(encodings)('%s', async (name, encode) => {
    for (const body of [json, long]) {
      const bytes = encode(body)
      const headers = `${jsonHead}content-encoding: ${name}\r\n`
      const how = [
        (socket: Socket) => void socket.write(chunkedResponse([bytes], { headers })),
        (socket: Socket) =>
          void socket.write(
            chunkedResponse(
              [...bytes].map((byte) => Buffer.of(byte)),
              { headers },
            ),
          ),
        (socket: Socket) => void socket.write(chunkedResponse([bytes], { headers, ending: '' })),
        (socket: Socket) => void socket.end(chunkedResponse([bytes], { headers, ending: '' })),
      ]
      for (const onRequest of body === json ? how : how.slice(0, 1)) {
        const verdict = await plain(onRequest)
        expect(verdict.kind === 'answer' && verdict.body.toString()).toBe(body)
      }
    }
  })

  test('what does not decode, or is cut off, may have been billed', async () => {
    const headers = `${jsonHead}content-encoding: gzip\r\n`
    for (const bytes of [Buffer.from('no gzip at all'), gzipSync(long).subarray(0, 200)]) {
      const verdict = await plain((socket) => socket.write(chunkedResponse([bytes], { headers })))
      expect(verdict).toMatchObject({ kind: 'unknown', billing: 'maybe', code: 'broken_answer' })
    }
  })
})
