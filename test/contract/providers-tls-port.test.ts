import { once } from 'node:events'
import { createServer, type AddressInfo, type Server } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { createProvider } from '@askonce/providers'
import type { Verdict } from '@askonce/core'
import { afterEach, expect, test } from 'vitest'

const servers: Server[] = []
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => new Promise((resolve) => server.close(resolve))))
})

/** One call to a server whose base URL begins with `http://`. */
async function callOver(server: Server): Promise<Verdict> {
  servers.push(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const provider = createProvider(
    { name: 'openai', kind: 'openai', baseUrl: `http://127.0.0.1:${port}/v1`, apiKey: null },
    { simulated: { latencyMs: 0, tokens: 1, failureRate: 0 }, prices: [] },
  )
  const request = Buffer.from('{"model":"m","messages":[]}')
  const verdict = await provider.call({
    operation: 'chat.completions',
    model: 'm',
    request,
    timeoutMs: 10_000,
    signal: new AbortController().signal,
  })
  await provider.close()
  return verdict
}

test('plain HTTP spoken to a TLS port: nothing ran, and the message says what is wrong', async () => {
  // Without a certificate it answers a handshake with an alert, which only a TLS port does.
  expect(await callOver(createTlsServer({}))).toMatchObject({
    kind: 'rerun',
    billing: 'none',
    sent: false,
    code: 'connection_failed',
    message: expect.stringContaining('speaks TLS') as string,
  })
})

test('a server that hangs up on everything has perhaps read the call', async () => {
  const server = createServer((socket) => socket.once('data', () => socket.destroy()))
  expect(await callOver(server)).toMatchObject({ kind: 'unknown', billing: 'maybe', sent: true })
})

test('a port that speaks both has perhaps read the call', async () => {
  const tls = createTlsServer({})
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.once('data', (bytes) => {
      if (bytes[0] === 0x16) {
        socket.unshift(bytes)
        tls.emit('connection', socket)
      } else if (bytes.toString().startsWith('HEAD')) socket.end('HTTP/1.1 200 OK\r\n\r\n')
      else socket.destroy()
    })
  })
  expect(await callOver(server)).toMatchObject({ kind: 'unknown', billing: 'maybe', sent: true })
})
