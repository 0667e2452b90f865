import { EventEmitter, once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'
import type { Verdict } from '@askonce/core'
import { createProvider, type Provider, type ProviderCall } from '@askonce/providers'

const open: { provider: Provider; server: Server | null }[] = []
const sockets = new Set<Socket>()

afterEach(async () => {
  for (const { provider, server } of open.splice(0)) {
    await provider.close()
    for (const socket of sockets) socket.destroy()
    server?.close()
  }
})

interface Bench {
  /** Every byte that reached the server, one string a connection. */
  received: string[]
  call: (more?: Partial<ProviderCall>) => Promise<Verdict & { wasSent: boolean }>
  provider: Provider
}

/** A raw TCP server, a provider that calls it, and a record of what arrived. */
async function bench(onConnection: (socket: Socket, number: number) => void, scheme = 'http'): Promise<Bench> {
  const received: string[] = []
  const server = createServer((socket) => {
    sockets.add(socket)
    const number = received.push('') - 1
    socket.on('data', (chunk) => {
      received[number] += chunk.toString('latin1')
    })
    socket.on('error', () => {})
    onConnection(socket, number)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return { received, ...toward(`${scheme}://127.0.0.1:${port}/v1`, server) }
}

function toward(baseUrl: string, server: Server | null = null): Pick<Bench, 'call' | 'provider'> {
  const simulated = { latencyMs: 0, tokens: 1, failureRate: 0 }
  const provider = createProvider({ name: 'raw', kind: 'openai', baseUrl, apiKey: null }, { simulated, prices: [] })
  open.push({ provider, server })
  const call: Bench['call'] = async (more = {}) => {
    let wasSent = false
    const verdict = await provider.call({
      operation: 'chat.completions',
      model: 'm',
      request: Buffer.from('{"model":"m"}'),
      timeoutMs: 5_000,
      signal: new AbortController().signal,
      ...more,
      onSent: () => {
        wasSent = true
        more.onSent?.()
      },
    })
    return { ...verdict, wasSent }
  }
  return { call, provider }
}

/** Something to await, and what makes it happen. */
function signal(): { given: Promise<unknown>; give: () => void } {
  const events = new EventEmitter()
  return { given: once(events, 'given'), give: () => void events.emit('given') }
}

const body = '{"choices":[{"finish_reason":"stop"}]}'
const answer = `HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`
const unsent = { kind: 'rerun', billing: 'none', sent: false, wasSent: false, code: 'connection_failed' }
const unknown = { kind: 'unknown', billing: 'maybe', sent: true, wasSent: true }

/** Calls back when a whole request has arrived on the socket, and again for the next one. */
function onRequest(socket: Socket, then: () => void): void {
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1')
    if (!text.endsWith('{"model":"m"}')) return
    text = ''
    then()
  })
}

describe('proof that nothing was sent', () => {
  test('connection refused', async () => {
    const { call, received, provider } = await bench(() => {})
    await provider.close()
    const server = open.at(-1)?.server
    const address = server?.address()
    const port = typeof address === 'object' && address !== null ? address.port : 0
    await new Promise((resolve) => server?.close(resolve))
    const verdict = await toward(`http://127.0.0.1:${port}/v1`).call()
    expect(verdict).toMatchObject(unsent)
    expect('message' in verdict && verdict.message).toContain('ECONNREFUSED')
    expect(await call(), 'a closed provider sends nothing either').toMatchObject(unsent)
    expect(received).toEqual([])
  })

  test('a host that has no address', async () => {
    // A label of more than 63 characters fails in the resolver, without asking a server.
    expect(await toward(`http://${'a'.repeat(64)}.invalid/v1`).call()).toMatchObject(unsent)
  })

  test('TLS failure', async () => {
    const { call, received } = await bench((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'), 'https')
    expect(await call()).toMatchObject(unsent)
    expect(received.join('')).not.toContain('model')
  })

  test('no TLS handshake within the time', async () => {
    const { call, received } = await bench(() => {}, 'https')
    expect(await call({ timeoutMs: 100 })).toMatchObject(unsent)
    expect(received.join('')).not.toContain('model')
  })

  test('aborted while it waits for a connection', async () => {
    const { call, received } = await bench((socket) => socket.once('data', () => abort.abort()), 'https')
    const abort = new AbortController()
    expect(await call({ signal: abort.signal })).toMatchObject({ ...unsent, code: 'not_sent' })
    expect(received.join('')).not.toContain('model')
  })

  test('aborted before the connection is there: the connection then brings nothing', async () => {
    const closed = signal()
    const { call, received } = await bench((socket) => socket.once('close', () => closed.give()))
    const abort = new AbortController()
    const verdict = call({ signal: abort.signal })
    abort.abort()
    expect(await verdict).toMatchObject({ ...unsent, code: 'not_sent' })
    await closed.given
    expect(received).toEqual([''])
  })

  test('aborted before the call', async () => {
    const { call, received } = await bench(() => {})
    expect(await call({ signal: AbortSignal.abort() })).toMatchObject({ ...unsent, code: 'not_sent' })
    expect(received).toEqual([])
  })
})

describe('sent, and no complete answer', () => {
  test('accepted and reset before reading: what was sent decides', async () => {
    const { call } = await bench((socket) => socket.resetAndDestroy())
    for (let round = 0; round < 50; round += 1) {
      const verdict = await call()
      expect(verdict).toMatchObject(verdict.wasSent ? { ...unknown, code: 'connection_lost' } : unsent)
    }
  })

  test('reset after reading, and never sent again', async () => {
    const { call, received } = await bench((socket) => onRequest(socket, () => socket.resetAndDestroy()))
    expect(await call()).toMatchObject({ ...unknown, code: 'connection_lost', providerStatus: null })
    // The port is asked afterwards whether it speaks TLS only, which is no call.
    expect(received.filter((text) => /POST|"model"/.test(text))).toHaveLength(1)
  })

  test('never answered: the timeout is of the whole call', async () => {
    const { call } = await bench(() => {})
    const started = performance.now()
    expect(await call({ timeoutMs: 150 })).toMatchObject({ ...unknown, code: 'timeout', providerStatus: null })
    expect(performance.now() - started).toBeLessThan(2_000)
  })

  test('stuck in the middle of the body, and dripping', async () => {
    const head = 'HTTP/1.1 200 OK\r\nx-request-id: req_1\r\ncontent-length: 1000\r\n\r\n{"choices":['
    const stuck = await bench((socket) => onRequest(socket, () => socket.write(head)))
    const late = { ...unknown, code: 'timeout', providerStatus: 200, providerRequestId: 'req_1' }
    expect(await stuck.call({ timeoutMs: 150 })).toMatchObject(late)
    const dripping = await bench((socket) =>
      onRequest(socket, () => {
        socket.write(head)
        const timer = setInterval(() => socket.write(' '), 10)
        socket.once('close', () => clearInterval(timer))
      }),
    )
    expect(await dripping.call({ timeoutMs: 150 })).toMatchObject(late)
  })

  test.each([
    ['text that is no HTTP', 'SSH-2.0-OpenSSH_9.2\r\n', 'broken_answer'],
    ['bytes of TLS', '\u0015\u0003\u0001\u0000\u0002\u0002\u0046', 'broken_answer'],
    [
      'a switch of protocols',
      'HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n',
      'connection_lost',
    ],
    ['a chunk that is cut', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{"choices"', 'broken_answer'],
  ])('%s', async (_, text, code) => {
    const { call } = await bench((socket) => onRequest(socket, () => socket.end(text, 'latin1')))
    expect(await call()).toMatchObject({ ...unknown, code })
  })

  test('early hints are no answer; the answer after them is', async () => {
    const hints = 'HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n'
    const { call } = await bench((socket) => onRequest(socket, () => socket.write(hints + answer)))
    expect(await call()).toMatchObject({ kind: 'answer', status: 200 })
  })

  test.each([
    ['before the head', ''],
    ['in the body', 'HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{'],
  ])('aborted after sending, %s: the socket is closed at once', async (_, text) => {
    const abort = new AbortController()
    const closed = signal()
    const { call } = await bench((socket) => {
      socket.once('close', () => closed.give())
      onRequest(socket, () => socket.write(text, () => abort.abort()))
    })
    const started = performance.now()
    expect(await call({ signal: abort.signal })).toMatchObject({ ...unknown, code: 'connection_lost' })
    await closed.given
    expect(performance.now() - started, 'undici would close it half a minute later').toBeLessThan(2_000)
  })

  test('close() ends what is in flight', async () => {
    const { call, provider } = await bench((socket) => onRequest(socket, () => void provider.close()))
    expect(await call()).toMatchObject({ ...unknown, code: 'connection_lost' })
  })
})

describe('a kept-alive socket', () => {
  test('closed while it was idle: the next call takes a new connection', async () => {
    const closed = signal()
    const { call, received } = await bench((socket) => {
      onRequest(socket, () => socket.write(answer))
      socket.once('close', () => closed.give())
    })
    expect(await call()).toMatchObject({ kind: 'answer' })
    for (const socket of sockets) socket.end()
    await closed.given
    expect(await call()).toMatchObject({ kind: 'answer' })
    expect(received).toHaveLength(2)
  })

  test('closed by the server as we reuse it: unknown, and not sent again', async () => {
    const { call, received } = await bench((socket) => {
      let requests = 0
      onRequest(socket, () => ((requests += 1) === 1 ? socket.write(answer) : socket.destroy()))
    })
    expect(await call()).toMatchObject({ kind: 'answer' })
    // The pool takes a socket back a turn of the event loop after its answer.
    await setImmediate()
    await setImmediate()
    expect(await call()).toMatchObject({ ...unknown, code: 'connection_lost' })
    expect(received).toHaveLength(1)
  })

  test('closed right after each answer: a call is answered, or known to have left, or known not to', async () => {
    let requests = 0
    const { call } = await bench((socket) =>
      onRequest(socket, () => {
        requests += 1
        socket.write(answer, () => socket.resetAndDestroy())
      }),
    )
    let left = 0
    for (let round = 0; round < 200; round += 1) {
      const verdict = await call()
      const failed = verdict.wasSent ? unknown : unsent
      expect(verdict).toMatchObject(verdict.kind === 'answer' ? { wasSent: true } : failed)
      left += verdict.wasSent ? 1 : 0
    }
    expect(requests, 'no request arrived that a verdict calls unsent').toBeLessThanOrEqual(left)
  })
})
