import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { gzipSync } from 'node:zlib'
import { describe, expect, onTestFinished, test } from 'vitest'
import { maxAnswerBytes, type Verdict } from '@askonce/core'
import {
  chunk,
  chunkedResponse,
  events,
  providerAt,
  rawServer,
  requestOf,
  stream,
  streamed,
  transcripts,
} from './providers-stream-bench.ts'

/** What has arrived counts: also where it could not be read, because the event loop stood still. */

const json = '{"id":"c-1","choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}'
const jsonHead = 'content-type: application/json\r\n'

/** A server of its own thread, whose answers come while the event loop of the test stands still. */
async function answering(response: Buffer, afterMs: number): Promise<string> {
  const source = `
    const { parentPort, workerData } = require('node:worker_threads')
    const server = require('node:net').createServer((socket) => {
      socket.on('error', () => {})
      socket.once('data', () => setTimeout(() => socket.write(workerData.response), workerData.afterMs))
    })
    server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port))
  `
  const worker = new Worker(source, { eval: true, workerData: { response, afterMs } })
  onTestFinished(async () => void (await worker.terminate()))
  const [port] = (await once(worker, 'message')) as [number]
  return `http://127.0.0.1:${port}`
}

function standStill(ms: number): void {
  const until = performance.now() + ms
  while (performance.now() < until);
}

describe('the event loop stands still beyond the time-out while the answer comes', () => {
  const large = Buffer.from(json.replace('"a"', `"${'a'.repeat(1_500_000)}"`))
  test.each([
    ['with its ending', chunkedResponse([json], { headers: jsonHead })],
    ['on a socket that stays open', chunkedResponse([json], { headers: jsonHead, ending: '' })],
    ['compressed', chunkedResponse([gzipSync(json)], { headers: `${jsonHead}content-encoding: gzip\r\n`, ending: '' })],
    ['of more than one read', chunkedResponse([large], { headers: jsonHead, ending: '' })],
  ])('plain JSON, %s: it counts', async (_, response) => {
    for (const reason of ['timeout', 'abort'] as const) {
      const provider = providerAt(await answering(response, 100), 'chat.completions')
      onTestFinished(() => provider.close())
      const abort = new AbortController()
      const verdict = provider.call({
        operation: 'chat.completions',
        model: 'm',
        request: requestOf(),
        timeoutMs: reason === 'timeout' ? 300 : 10_000,
        signal: abort.signal,
        // The request leaves in this turn of the loop, which the next timer then holds up.
        onSent: () =>
          setTimeout(() => {
            standStill(700)
            if (reason === 'abort') abort.abort()
          }, 50),
      })
      expect(await verdict, reason).toMatchObject({ kind: 'answer', answerId: 'c-1' })
    }
  })

  test.each(streamed)('%s: a stream counts', async (operation) => {
    const { open, ending, id } = transcripts[operation]
    const response = chunkedResponse([open, ending], { ending: '' })
    const provider = providerAt(await answering(response, 100), operation)
    onTestFinished(() => provider.close())
    const onSent = (): void => void setTimeout(() => standStill(700), 50)
    const { verdict } = await stream(provider, operation, { timeoutMs: 300, onSent })
    expect(verdict).toMatchObject({ kind: 'answer', answerId: id })
  })

  test('a refusal counts', async () => {
    const error = '{"error":{"message":"slow down","type":"rate_limit_error"}}'
    const response = chunkedResponse([error], { headers: jsonHead }).toString().replace('200 OK', '429 No')
    const provider = providerAt(await answering(Buffer.from(response), 100), 'chat.completions')
    onTestFinished(() => provider.close())
    const onSent = (): void => void setTimeout(() => standStill(700), 50)
    const { verdict } = await stream(provider, 'chat.completions', { timeoutMs: 300, onSent })
    expect(verdict).toMatchObject({ kind: 'pause', billing: 'none' })
  })

  test('half an answer does not', async () => {
    const response = chunkedResponse([json.slice(0, 30)], { headers: jsonHead, ending: '' })
    const provider = providerAt(await answering(response, 100), 'chat.completions')
    onTestFinished(() => provider.close())
    const onSent = (): void => void setTimeout(() => standStill(700), 50)
    const { verdict } = await stream(provider, 'chat.completions', { timeoutMs: 300, onSent })
    expect(verdict).toMatchObject({ kind: 'unknown', billing: 'maybe', code: 'timeout' })
  })
})

describe('a success that says that the call failed', () => {
  const ask = async (body: string, isStream: boolean): Promise<Verdict> => {
    const headers = isStream ? 'content-type: text/event-stream\r\n' : jsonHead
    const { provider } = await rawServer((socket) => socket.write(chunkedResponse([body], { headers })))
    const operation = 'chat.completions'
    if (isStream) return (await stream(provider(operation), operation)).verdict
    const signal = new AbortController().signal
    return provider(operation).call({ operation, model: 'm', request: requestOf(), timeoutMs: 5_000, signal })
  }
  const pause = { kind: 'pause', billing: 'none', code: 'provider_rate_limited', providerStatus: 429 }
  const overloaded = { kind: 'rerun', billing: 'none', code: 'provider_unavailable', overloaded: true }

  test.each<[object, object]>([
    [{ error: { code: 429 } }, pause],
    [{ error: { code: '429', message: 'x' } }, pause],
    [{ error: { type: 'rate_limit_error', message: 'x' } }, pause],
    [{ error: { status: 'RESOURCE_EXHAUSTED', message: 'x' } }, pause],
    [
      { type: 'error', error: { type: 'overloaded_error', message: 'x' } },
      { ...overloaded, providerStatus: 529 },
    ],
    [{ type: 'error', code: 'server_is_overloaded', message: 'x', error: { message: 'x' } }, overloaded],
    [{ error: { code: 503, message: 'x' } }, overloaded],
    [{ error: { code: 'server_error', message: 'x' } }, { kind: 'rerun', billing: 'none', code: 'provider_error' }],
    [{ error: { code: 'insufficient_quota', message: 'x' } }, { kind: 'alarm', code: 'provider_quota' }],
    [
      { error: { type: 'invalid_request_error', message: 'x' } },
      { kind: 'stop', billing: 'none', providerStatus: 400 },
    ],
    [{ error: { code: 504, message: 'x' } }, { kind: 'unknown', billing: 'maybe' }],
    [{ error: { message: 'names nothing' } }, { kind: 'unknown', billing: 'maybe', code: 'broken_answer' }],
  ])('%j counts as the status that it stands for', async (error, verdict) => {
    expect(await ask(JSON.stringify(error), false)).toMatchObject(verdict)
    const event = `data: ${JSON.stringify(error)}\n\n`
    for (const before of ['', ': wait\n\n', 'event: ping\ndata: {"type":"ping"}\n\n']) {
      expect(await ask(before + event, true)).toMatchObject(verdict)
      expect(await ask(`${before}event: error\n${event}data: [DONE]\n\n`, true)).toMatchObject(verdict)
    }
  })

  test.each<[string, object]>([
    ['data: {"object":"error","message":"x","type":"ServiceUnavailableError","code":503}\n\n', overloaded],
    ['event: error\ndata: {"type":"overloaded_error","message":"x"}\n\n', { ...overloaded, providerStatus: 529 }],
    ['event: error\ndata: {"code":429,"message":"x"}\n\n', pause],
    ['data: [{"error":{"code":503,"message":"x"}}]\n\n', overloaded],
  ])('so does the first event %j', async (event, verdict) => {
    for (const behind of ['', 'data: [DONE]\n\n']) expect(await ask(event + behind, true)).toMatchObject(verdict)
  })

  test.each([
    'event: error\ndata: {"type":"internal","message":"x"}\n\n',
    'data: {"object":"error","message":"x","code":500}\n\n',
  ])('in the middle of a stream %j makes it no answer', async (event) => {
    const begun = events(chunk({ content: 'a' }))
    const body = begun + event + events(chunk({}, 'stop'), '[DONE]')
    expect(await ask(body, true)).toMatchObject({ kind: 'unknown', billing: 'maybe', code: 'broken_answer' })
  })

  test.each([[null], [''], [false], [0], [{}], [[]]])('an empty error is none: %j', async (error) => {
    const whole = { choices: [{ index: 0, message: { content: 'a' }, finish_reason: 'stop' }] }
    const inChoice = { choices: [{ ...whole.choices[0], error }] }
    for (const body of [{ ...whole, error }, inChoice]) {
      expect(await ask(JSON.stringify(body), false)).toMatchObject({ kind: 'answer' })
      expect(await ask(events(body, '[DONE]'), true)).toMatchObject({ kind: 'answer' })
    }
  })

  test('an error that nests a hundred thousand deep counts like any other', async () => {
    const deep = `${'['.repeat(100_000)}${']'.repeat(100_000)}`
    for (const error of [`{"code":429,"x":${deep}}`, `{"code":429,"message":"x","x":${deep}}`]) {
      expect(await ask(`{"error":${error}}`, false)).toMatchObject(pause)
      expect(await ask(`data: {"error":${error}}\n\n`, true)).toMatchObject(pause)
    }
    expect(await ask(`{"error":{"x":${deep}}}`, false)).toMatchObject({ kind: 'unknown', code: 'broken_answer' })
  })

  const usage = { prompt_tokens: 1_000, completion_tokens: 500, total_tokens: 1_500 }
  const failures: object[] = [
    {
      choices: [{ index: 0, message: { content: 'a' }, finish_reason: 'error', error: { code: 502, message: 'gone' } }],
    },
    { choices: [{ index: 0, message: { content: 'a' }, finish_reason: 'error' }] },
    { choices: [{ index: 0, message: { content: 'a' }, finish_reason: 'stop', error: { message: 'gone' } }] },
    { error: { code: 429, message: 'x' }, choices: [{ index: 0, message: {}, finish_reason: 'stop' }] },
  ]
  test.each(failures)('%j is no answer: billed where it says what it used', async (body) => {
    const unknown = { kind: 'unknown', code: 'broken_answer', providerStatus: 200 }
    const model = 'gpt-4o-mini'
    const billed = { ...unknown, billing: 'billed', usage: { inputTokens: 1_000, outputTokens: 500 } }
    for (const isStream of [false, true]) {
      const shaped = (value: object): string =>
        isStream ? `data: ${JSON.stringify(value)}\n\ndata: [DONE]\n\n` : JSON.stringify(value)
      expect(await ask(shaped({ model, ...body }), isStream)).toMatchObject({ ...unknown, billing: 'maybe' })
      expect(await ask(shaped({ model, ...body, usage }), isStream)).toMatchObject(billed)
    }
  })
})

describe('large answers', () => {
  const limitMb = maxAnswerBytes / 1024 / 1024

  /** The verdict over a body of so many pieces of 1 MiB, and the longest time that the event loop was held up meanwhile. */
  async function outsized(pieces: number, parts: { before: string; piece: string; after: string }, isStream = false) {
    const source = `
      const { parentPort, workerData: { before, piece, after, pieces, type } } = require('node:worker_threads')
      const server = require('node:net').createServer((socket) => {
        socket.on('error', () => {})
        socket.once('data', async () => {
          socket.write('HTTP/1.1 200 OK\\r\\ncontent-type: ' + type + '\\r\\nconnection: close\\r\\n\\r\\n' + before)
          const bytes = Buffer.from(piece)
          for (let sent = 0; sent < pieces && !socket.destroyed; sent += 1)
            if (!socket.write(bytes)) await new Promise((resolve) => socket.once('drain', resolve).once('close', resolve))
          socket.end(after)
        })
      })
      server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port))
    `
    const type = isStream ? 'text/event-stream' : 'application/json'
    const worker = new Worker(source, { eval: true, workerData: { ...parts, pieces, type } })
    onTestFinished(async () => void (await worker.terminate()))
    const [port] = (await once(worker, 'message')) as [number]
    const provider = providerAt(`http://127.0.0.1:${port}`, 'chat.completions')
    onTestFinished(() => provider.close())
    let longestMs = 0
    let last = performance.now()
    const beat = setInterval(() => {
      longestMs = Math.max(longestMs, performance.now() - last)
      last = performance.now()
    }, 1)
    const { verdict } = isStream
      ? await stream(provider, 'chat.completions', { timeoutMs: 60_000 })
      : {
          verdict: await provider.call({
            operation: 'chat.completions',
            model: 'm',
            request: requestOf(),
            timeoutMs: 60_000,
            signal: new AbortController().signal,
          }),
        }
    clearInterval(beat)
    return { verdict, longestMs }
  }

  const text = {
    before: '{"choices":[{"message":{"content":"',
    piece: 'aé\\"x'.padEnd(8, 'b').repeat(116_508),
    after: '"},"finish_reason":"length"}],"usage":{"prompt_tokens":7,"completion_tokens":8},"id":"c-9"}',
  }
  const answer = { kind: 'answer', answerId: 'c-9', flags: ['truncated'], usage: { inputTokens: 7, outputTokens: 8 } }

  test('an answer of 200 MB is judged without holding up the event loop', async () => {
    const { verdict, longestMs } = await outsized(195, text)
    expect(verdict).toMatchObject(answer)
    expect(verdict.kind === 'answer' && verdict.body.length > 200e6).toBe(true)
    expect(longestMs, 'the others run beside it').toBeLessThan(250)
  }, 60_000)

  test('numbers beyond counting, and what stands behind them', async () => {
    const numbers = {
      ...text,
      before: '{"choices":[{"message":{"content":[0',
      piece: ',1'.repeat(524_288),
      after: text.after.replace('"}', ']}'),
    }
    const { verdict, longestMs } = await outsized(60, numbers)
    expect(verdict).toMatchObject(answer)
    expect(longestMs).toBeLessThan(250)
  }, 60_000)

  test('a stream with one event of 60 MB', async () => {
    const chunkOf = {
      before: `data: ${text.before.replace('message', 'delta')}`,
      piece: text.piece,
      after: `${text.after}\n\ndata: [DONE]\n\n`,
    }
    const { verdict, longestMs } = await outsized(60, chunkOf, true)
    expect(verdict).toMatchObject(answer)
    expect(longestMs).toBeLessThan(250)
  }, 60_000)

  test(`beyond ${limitMb} MiB it is billed and cannot be stored`, async () => {
    const unstorable = { kind: 'unstorable', billing: 'billed', code: 'answer_not_storable', providerStatus: 200 }
    const { verdict } = await outsized(limitMb + 60, text)
    expect(verdict).toMatchObject(unstorable)
    const head = `HTTP/1.1 200 OK\r\n${jsonHead}content-length: ${maxAnswerBytes + 1}\r\n\r\n{`
    const { provider } = await rawServer((socket) => socket.write(head))
    const announced = await stream(provider('chat.completions'), 'chat.completions')
    expect(announced.verdict).toMatchObject(unstorable)
  }, 60_000)

  test('a gzip body that swells beyond it takes no more memory than that', async () => {
    const bomb = gzipSync(Buffer.alloc(maxAnswerBytes + 1024 * 1024, 0x20))
    const headers = `${jsonHead}content-encoding: gzip\r\n`
    const { provider } = await rawServer((socket) => socket.write(chunkedResponse([bomb], { headers })))
    const { verdict } = await stream(provider('chat.completions'), 'chat.completions', { timeoutMs: 60_000 })
    expect(verdict).toMatchObject({ kind: 'unstorable', billing: 'billed' })
  }, 60_000)
})
