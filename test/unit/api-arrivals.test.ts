import { once } from 'node:events'
import { connect, type AddressInfo, type Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { loadConfig } from '@askonce/config'
import { createLog, createMetrics } from '@askonce/telemetry'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { z } from 'zod'
import type { Parts } from '../../apps/api/src/context.ts'
import type { ApiRoute } from '../../apps/api/src/route.ts'
import { addRoutes, createServer } from '../../apps/api/src/server.ts'

const route = {
  method: 'POST',
  scope: null,
  tag: 'Server',
  summary: '',
  query: z.object({}),
  accepts: ['application/json'],
  answers: {},
  errors: [],
} as const
/** Of the one request that waits. */
const waiting = { asked: gate(), answered: gate() }

function gate(): { passed: Promise<void>; open: () => void } {
  let open = (): void => undefined
  const passed = new Promise<void>((resolve) => (open = resolve))
  return { passed, open }
}

const routes: ApiRoute[] = [
  {
    ...route,
    path: '/gathered',
    handle: (_parts, request, reply) => Promise.resolve(reply.send(String(request.body))),
  },
  {
    ...route,
    path: '/streamed',
    streamed: true,
    handle: async (_parts, request, reply) => reply.send(await text(request.raw)),
  },
  {
    ...route,
    path: '/waiting',
    handle: async (_parts, _request, reply) => {
      waiting.asked.open()
      await waiting.answered.passed
      return reply.send('late')
    },
  },
  {
    ...route,
    path: '/refused',
    streamed: true,
    handle: (_parts, _request, reply) => Promise.resolve(reply.send('no')),
  },
]

const limitMs = 120_000
/** Between two looks. */
const stepMs = 5_000

let app: ReturnType<typeof createServer>

// Nothing of Node's own clocks: what happens here happens by ours.
beforeEach(async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] })
  const parts = {
    config: loadConfig({}),
    log: createLog({ level: 'silent', role: 'api' }),
    metrics: createMetrics(),
  } as Parts
  app = createServer(parts, { onClosing: () => undefined, onUnavailable: () => undefined })
  addRoutes(app, parts, routes)
  await app.listen({ host: '127.0.0.1', port: 0 })
})
afterEach(async () => {
  await app.close()
  vi.useRealTimers()
})

interface Talk {
  socket: Socket
  /** Until the server ends the connection. */
  said: Promise<string>
  isOver: () => boolean
}

/** A request of which this has arrived; `answered`: and that has an answer already. */
async function begin(path: string, { method = 'POST', body = '12', answered = false } = {}): Promise<Talk> {
  const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1')
  const begun = answered ? once(socket, 'data') : once(app.server, 'request')
  let heard = ''
  let over = false
  socket.on('data', (data) => (heard += String(data)))
  const said = once(socket, 'end').then(() => {
    over = true
    return heard
  })
  const connection = answered ? 'keep-alive' : 'close'
  socket.write(
    `${method} ${path} HTTP/1.1\r\nhost: x\r\nconnection: ${connection}\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\n${body}`,
  )
  await begun
  return { socket, said, isOver: () => over }
}

describe('a body that does not come to its end', () => {
  it.each([
    ['of a route', '/gathered', 'POST', false, /^HTTP\/1.1 400 [^]*did not arrive in time/],
    ['of no route', '/nothing-here', 'POST', true, /^HTTP\/1.1 404 /],
    ['of a malformed URL', '/%', 'POST', true, /^HTTP\/1.1 400 /],
    ['of a method that is not allowed', '/streamed', 'PUT', true, /^HTTP\/1.1 405 /],
    ['that is read as it comes, once it is answered', '/refused', 'POST', true, /^HTTP\/1.1 200 /],
  ])('is cut off after two minutes: %s', async (_, path, method, answered, answer) => {
    const { said, isOver } = await begin(path, { method, answered })
    vi.advanceTimersByTime(limitMs - stepMs)
    // Had it been cut off, that would be here before the answer to a later request.
    const other = await begin('/gathered', { body: '1234' })
    await other.said
    expect(isOver()).toBe(false)
    vi.advanceTimersByTime(2 * stepMs)
    expect(await said).toMatch(answer)
  })

  it('may take its time where it is read as it comes', async () => {
    const { socket, said } = await begin('/streamed')
    const late = await begin('/gathered')
    vi.advanceTimersByTime(10 * limitMs)
    await late.said
    socket.write('34')
    expect(await said).toMatch(/^HTTP\/1.1 200 [^]*1234$/)
  })
})

it('a body that has come may have a late answer', async () => {
  const { said } = await begin('/waiting', { body: '1234' })
  await waiting.asked.passed
  vi.advanceTimersByTime(10 * limitMs)
  waiting.answered.open()
  expect(await said).toMatch(/^HTTP\/1.1 200 [^]*late$/)
})
