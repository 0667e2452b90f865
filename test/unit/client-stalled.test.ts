import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { Askonce } from '@askonce/client'
import { afterAll, beforeAll, expect, test } from 'vitest'

// Another thread, so that it answers while the event loop of the test stands still. `/slow` comes in six pieces, 250 ms apart.
const answering = `
  const { createServer } = require('node:http')
  const { parentPort } = require('node:worker_threads')
  const server = createServer((request, reply) => {
    parentPort.postMessage(request.url)
    if (!request.url.includes('slow')) {
      setTimeout(() => reply.end('{"id":"j1","state":"succeeded"}'), 100)
      return
    }
    const pieces = ['{"id"', ':', '"j1"', ',"state"', ':', '"succeeded"}']
    const next = () => {
      reply.write(pieces.shift())
      if (pieces.length > 0) setTimeout(next, 250)
      else reply.end()
    }
    next()
  })
  server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port))
`
let server: Worker
let baseUrl: string
const arrived: unknown[] = []
beforeAll(async () => {
  server = new Worker(answering, { eval: true })
  const [port] = (await once(server, 'message')) as [number]
  baseUrl = `http://127.0.0.1:${port}`
  server.on('message', (url) => arrived.push(url))
})
afterAll(() => server.terminate())

const client = (timeoutMs: number): Askonce => new Askonce({ baseUrl, timeoutMs, retry: { maxRetries: 0 } })

test('an answer that arrived while the program stood still is returned, not asked for again', async () => {
  for (const timeoutMs of [300, 1_200]) {
    arrived.length = 0
    const asked = client(timeoutMs).get('j1')
    await once(server, 'message')
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2_000)
    expect(await asked).toMatchObject({ id: 'j1' })
    expect(arrived).toHaveLength(1)
  }
})

test('an answer that comes slowly is not late as long as it comes', async () => {
  expect(await client(600).get('slow')).toMatchObject({ id: 'j1' })
})
