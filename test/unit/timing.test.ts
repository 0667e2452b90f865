import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { Worker } from 'node:worker_threads'
import { arrivals, awakeMs, timeLimit, within } from '@askonce/timing'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

// Another thread, so that it answers while the event loop of the test stands still: each connection, so many milliseconds after its bytes.
const answering = `
  const { createServer } = require('node:net')
  const { parentPort } = require('node:worker_threads')
  const server = createServer((socket) =>
    socket.on('data', (delayMs) => setTimeout(() => socket.end('answer'), Number(delayMs))),
  )
  server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port))
`
let server: Worker
let port: number
beforeAll(async () => {
  server = new Worker(answering, { eval: true })
  ;[port] = (await once(server, 'message')) as [number]
})
afterAll(() => server.terminate())

function holdEventLoop(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

async function connected(): Promise<Socket> {
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  return socket
}

/** What comes first: the answer, asked for now, or the end of the limit; the event loop is held up in between. */
async function race(limitMs: number, answerAfterMs: number, heldMs: number): Promise<'answer' | 'over'> {
  const socket = await connected()
  const outcome = new Promise<'answer' | 'over'>((resolve) => {
    timeLimit(limitMs, () => resolve('over'))
    socket.once('data', () => resolve('answer'))
  })
  socket.write(String(answerAfterMs))
  // So that the request has left.
  await arrivals()
  holdEventLoop(heldMs)
  const first = await outcome
  socket.destroy()
  return first
}

describe('a time limit', () => {
  test('ends when nothing comes in its time', async () => {
    const startedAt = performance.now()
    expect(await race(200, 5_000, 0)).toBe('over')
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(199)
  })

  test('counts what arrived while the event loop was held up, briefly or for long', async () => {
    expect(await race(150, 50, 400)).toBe('answer')
    expect(await race(300, 50, 2_000)).toBe('answer')
  })

  test('leaves the other side its time, if that stood still as well', async () => {
    // All but the last of the limit had passed when everything stopped: the other one answers after both went on.
    expect(await race(1_000, 2_500, 2_200)).toBe('answer')
  })

  test('is not ended by having been cancelled late, when its timer has fired already', async () => {
    let isOver = false
    const cancel = timeLimit(20, () => (isOver = true))
    holdEventLoop(50)
    // Timers come first in the turn: this runs between the timer and the last look at the sockets.
    await new Promise((resolve) => setImmediate(resolve))
    cancel()
    await arrivals()
    await arrivals()
    expect(isOver).toBe(false)
  })
})

test('the clock stands still while the event loop does, and goes on with it', async () => {
  const before = awakeMs()
  holdEventLoop(2_000)
  const held = awakeMs() - before
  expect(held).toBeLessThanOrEqual(500)
  await new Promise((resolve) => setTimeout(resolve, 700))
  expect(awakeMs() - before).toBeGreaterThan(held + 600)
})

test('within: the outcome of the promise, or the error that is made when it is late', async () => {
  const late = (): Error => new Error('late')
  expect(await within(Promise.resolve('in time'), 1_000, late)).toBe('in time')
  await expect(within(Promise.reject(new Error('failed')), 1_000, late)).rejects.toThrow('failed')
  await expect(within(new Promise(() => undefined), 20, late)).rejects.toThrow('late')
})
