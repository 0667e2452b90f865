import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { leakCheck } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bootstrapKey, chat, startHarness, type Harness } from './harness.ts'

let harness: Harness
const mib = 1024 * 1024

beforeAll(async () => {
  harness = await startHarness()
})
afterAll(async () => {
  await harness.stop()
  await leakCheck()
})

/** A connection, and all that has come on it. */
async function open(): Promise<{ socket: Socket; read: () => string }> {
  const { hostname, port } = new URL(harness.api.address)
  const socket = connect({ host: hostname, port: Number(port) })
  let text = ''
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
  })
  await once(socket, 'connect')
  return { socket, read: () => text }
}

const head = (path: string, headers: Record<string, string | number>): string =>
  `POST ${path} HTTP/1.1\r\nhost: x\r\n${Object.entries(headers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join('')}\r\n`

const authorization = `Bearer ${bootstrapKey}`
const json = { authorization, 'content-type': 'application/json' }

interface Refusal {
  name: string
  path?: string
  headers: Record<string, string>
  status: number
}
const refusals: Refusal[] = [
  { name: 'too large', headers: json, status: 413 },
  { name: 'without a key', headers: { 'content-type': 'application/json' }, status: 401 },
  { name: 'to an unknown address', path: '/v1/nothing', headers: json, status: 404 },
  { name: 'of another type', headers: { authorization, 'content-type': 'text/plain' }, status: 415 },
  { name: 'compressed', headers: { ...json, 'content-encoding': 'gzip' }, status: 415 },
  { name: 'of no form', path: '/openai/v1/files', headers: json, status: 415 },
]

describe('whoever sends a large body that is refused reads why', () => {
  it.each(refusals)('with fetch: $name', async ({ path = '/v1/jobs', headers, status }) => {
    for (const size of [34 * mib, 60 * mib]) {
      const response = await fetch(`${harness.api.address}${path}`, {
        method: 'POST',
        headers,
        body: Buffer.alloc(size, 0x20),
      })
      expect(response.status).toBe(status)
      await response.text()
    }
  })

  it.each(refusals)('with a client that reads only when it has sent everything: $name', async (refusal) => {
    const { path = '/v1/jobs', headers, status } = refusal
    const { socket, read } = await open()
    socket.pause()
    const chunk = Buffer.alloc(mib, 0x20)
    socket.write(head(path, { ...headers, 'content-length': 60 * mib }))
    for (let sent = 0; sent < 60; sent += 1) {
      if (!socket.write(chunk)) await once(socket, 'drain')
    }
    // The connection lives on: what was refused has been read to its end.
    socket.write(`GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n`)
    socket.resume()
    await expect.poll(read, { timeout: 10_000 }).toMatch(/HTTP\/1.1 200 OK/)
    expect(read()).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
    socket.destroy()
  })

  it('without a length, as soon as there is too much', async () => {
    const { socket, read } = await open()
    socket.write(head('/v1/jobs', { ...json, 'idempotency-key': 'endless', 'transfer-encoding': 'chunked' }))
    const chunk = Buffer.concat([Buffer.from('100000\r\n'), Buffer.alloc(mib, 0x20), Buffer.from('\r\n')])
    for (let sent = 0; sent < 40; sent += 1) {
      if (!socket.write(chunk)) await once(socket, 'drain')
    }
    await expect.poll(read, { timeout: 10_000 }).toMatch(/^HTTP\/1.1 413 /)
    socket.destroy()
  })
})

describe('Expect: 100-continue', () => {
  it('is answered 100 when the body is wanted, and then by what became of it', async () => {
    const { socket, read } = await open()
    const body = JSON.stringify(chat('expected'))
    const length = { 'content-length': body.length, expect: '100-continue' }
    socket.write(head('/v1/jobs', { ...json, ...length, 'idempotency-key': 'expected' }))
    await expect.poll(read).toBe('HTTP/1.1 100 Continue\r\n\r\n')
    socket.write(body)
    await expect.poll(read).toMatch(/HTTP\/1.1 202 Accepted/)
    socket.destroy()
  })

  it.each([
    ...refusals,
    { name: 'too large a batch', path: '/anthropic/v1/messages/batches', headers: json, status: 413 },
  ])(
    'gets the final status without 100, and the end of the connection: $name',
    async ({ path = '/v1/jobs', headers, status }) => {
      const { socket, read } = await open()
      const length = path.includes('batches') ? 300 * mib : 40 * mib
      socket.write(head(path, { ...headers, 'content-length': length, expect: '100-continue' }))
      await once(socket, 'end')
      expect(read()).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
      expect(read()).not.toContain('100 Continue')
      socket.destroy()
    },
  )
})

it('large bodies in memory are bounded for a tenant: more are told to come again, and others are not', async () => {
  const tenants = [await harness.keyFor('greedy'), await harness.keyFor('modest')] as const
  const begin = async (key: string): Promise<{ socket: Socket; read: () => string }> => {
    const opened = await open()
    const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json', 'idempotency-key': 'x' }
    opened.socket.write(head('/v1/jobs', { ...headers, 'content-length': 31 * mib }))
    opened.socket.write(Buffer.alloc(30 * mib, 0x20))
    return opened
  }
  // Not one of them arrives whole.
  const held = [await begin(tenants[0]), await begin(tenants[0]), await begin(tenants[0])]
  const another = async (): Promise<string> => {
    const { socket, read } = await begin(tenants[0])
    await Promise.race([once(socket, 'data'), sleep(500)])
    socket.destroy()
    return read()
  }
  await expect.poll(another, { timeout: 20_000 }).toMatch(/^HTTP\/1.1 503 [^]*retry-after: /)
  const response = await fetch(`${harness.api.address}/v1/jobs`, {
    method: 'POST',
    headers: { authorization: `Bearer ${tenants[1]}`, 'content-type': 'application/json', 'idempotency-key': 'mine' },
    body: JSON.stringify(chat('x'.repeat(5 * mib))),
  })
  expect(response.status).toBe(202)
  await response.text()
  for (const { socket } of held) socket.destroy()
})
