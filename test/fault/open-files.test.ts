import { connect, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { chat, startSystem, submit, until, untilState, type System } from './system.ts'

/** Connections that come at once, and files that the API may open. */
const crowd = 1_000
const openFiles = 256

/**
 * DESIGN.md §1.1: what is accepted is durable, and §8: it goes on by itself, where more connections come than the API may open files.
 * Not covered: a limit so low that the process does not start, and the system-wide limit (ENFILE).
 */
describe('more connections than open files', () => {
  let system: System
  beforeAll(async () => {
    system = await startSystem('redis')
  })
  afterAll(() => system.stop())

  test('the rest is closed at once and said, those that are open are served, nothing accepted is lost, and it recovers', async () => {
    const { child, address } = await system.api({}, { openFiles })
    await child.waitForLine(/"event":"process\.open_files_low","role":"api","count":256/, 1_000)
    await system.started('worker')
    const { port } = new URL(address)
    const accepted: string[] = []
    const sockets: Socket[] = []
    const closed: Promise<void>[] = []
    const answered: Promise<void>[] = []
    for (let index = 0; index < crowd; index += 1) {
      const socket = connect(Number(port), '127.0.0.1')
      sockets.push(socket)
      socket.on('error', () => undefined)
      closed.push(new Promise((resolve) => socket.once('close', () => resolve())))
      const key = `crowd-${index}`
      const body = JSON.stringify(chat(key))
      const head = ['POST /v1/jobs HTTP/1.1', 'host: test', 'authorization: Bearer fault-test-key-0123456789']
      const lines = [
        ...head,
        'content-type: application/json',
        `idempotency-key: ${key}`,
        `content-length: ${body.length}`,
      ]
      socket.write(`${lines.join('\r\n')}\r\n\r\n${body}`)
      const answer = new Promise<void>((resolve) => socket.once('data', (bytes) => resolve(accept(key, bytes))))
      answered.push(Promise.race([answer, closed.at(-1) as Promise<void>]))
    }
    const accept = (key: string, bytes: Buffer): void => {
      if (/^HTTP\/1\.1 20[02]/.test(bytes.toString('latin1'))) accepted.push(key)
    }
    await Promise.all(answered)
    expect(accepted.length).toBeGreaterThanOrEqual(100)
    expect(accepted.length).toBeLessThan(openFiles)
    await child.waitForLine(/"event":"api\.connections_refused".*limit of open files \(ulimit -n\)/, 5_000)
    expect(child.stdout.filter((line) => /EMFILE|"event":"store\.unavailable"/.test(line))).toEqual([])

    for (const socket of sockets) socket.destroy()
    await Promise.all(closed)
    const later = await until(
      () => submit(address, 'later', chat('later')).catch(() => null),
      (reply) => reply !== null,
      10_000,
    )
    expect(later?.status).toBe(202)
    await untilState(address, later?.body.id ?? '', 'succeeded', 30_000)
    const unfinished = async () => system.sql(`select idempotency_key from jobs where state <> 'succeeded'`)
    await until(unfinished, (rows) => rows.length === 0, 60_000)
    const rows = await system.sql<{ key: string }>('select idempotency_key as key from jobs')
    const stored = new Set(rows.map(({ key }) => key))
    expect(accepted.filter((key) => !stored.has(key))).toEqual([])
    const calls = await system.upstream.callsBy()
    expect(accepted.filter((key) => calls[key] !== 1)).toEqual([])
  }, 120_000)
})
