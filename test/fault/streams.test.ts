import { readFile } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import type { Child } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { apiKey, formOfRun, ledger, startSystem, until, type Form, type System } from './system.ts'

/** Events of a stream as the upstream makes it: head, pieces, finish, usage, [DONE]. */
const pieces = 40

/**
 * DESIGN.md §1.2 and §1.3 for streams: whoever follows one sees the beginning and the end of one answer, the stored one, or an error;
 * a call that broke off in the middle is maybe billed, and the policy decides.
 * Not covered: a reader that takes a cut connection for the end, as some do. We never end a stream without its ending or an error.
 */
describe.each<Form>([formOfRun])('a stream under faults (%s form)', (form) => {
  let system: System
  let apis: { child: Child; address: string }[]
  let worker: Child
  let keys = 0
  beforeAll(async () => {
    system = await startSystem(form)
    apis = await Promise.all([system.api(), system.api()])
    await system.started('janitor')
    worker = await system.started('worker')
  })
  afterAll(() => system.stop())

  const newKey = (): string => {
    keys += 1
    return `stream-${keys}`
  }
  const address = (index: number): string => apis[index]?.address ?? ''

  /** Asks for a stream and reads it as it comes. */
  const follow = (
    key: string,
    { api = 0, lastEventId, options }: { api?: number; lastEventId?: string; options?: object } = {},
  ) => {
    let text = ''
    const reply = fetch(`${address(api)}/openai/v1/chat/completions`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${apiKey}`,
        'content-type': 'application/json',
        'idempotency-key': key,
        ...(lastEventId === undefined ? {} : { 'last-event-id': lastEventId }),
        ...(options === undefined ? {} : { 'askonce-options': JSON.stringify(options) }),
      },
      body: JSON.stringify({
        model: 'gpt-test',
        user: key,
        stream: true,
        messages: [{ role: 'user', content: key }],
      }),
      signal: AbortSignal.timeout(60_000),
    })
    const done = reply.then(async (response) => {
      for await (const chunk of response.body ?? []) text += Buffer.from(chunk as Uint8Array).toString()
      return text
    })
    done.catch(() => undefined)
    return { reply, done, text: () => text }
  }
  /** The stored stream of a key as a client gets it, and its job. */
  const stored = async (key: string): Promise<{ id: string; text: string; calls: number }> => {
    const [row] = await system.sql<{ id: string }>('select id from jobs where idempotency_key = $1', [key])
    const text = await follow(key).done
    return { id: row?.id ?? '', text, calls: (await system.upstream.callsBy())[key] ?? 0 }
  }
  const ids = (text: string): string[] => [...text.matchAll(/^id: (.*)$/gm)].map((match) => match[1] ?? '')
  const slow = (key: string, more: object = {}) => ({
    kind: 'answer',
    match: { marker: key },
    chunks: pieces,
    chunkDelayMs: 50,
    ...more,
  })

  test('a worker killed in mid-stream: followers are told, the rerun is another stream, both calls are in the ledger', async () => {
    const key = newKey()
    await system.upstream.script([
      { kind: 'hang', match: { marker: key }, afterEvents: 3 },
      slow(key, { chunkDelayMs: 0 }),
    ])
    const first = follow(key)
    await until(
      () => Promise.resolve(ids(first.text()).length),
      (count) => count === 3,
      20_000,
    )
    await worker.kill()
    worker = await system.started('worker')
    const text = await first.done
    expect(text).toContain('"code":"stream_interrupted"')
    expect(text).not.toContain('[DONE]')
    expect(ids(text)).toEqual(['1-0', '1-1', '1-2'])
    const after = await stored(key)
    expect(after.calls).toBe(2)
    expect(new Set(ids(after.text).map((id) => id.split('-')[0]))).toEqual(new Set(['2']))
    expect(after.text).toContain('[DONE]')
    expect(await ledger(system, after.id)).toMatchObject([
      { outcome: 'lost', billing: 'maybe' },
      { outcome: 'answered', billing: 'billed' },
    ])
  })

  test('the same under the policy hold: one call, and the key says that it is held', async () => {
    const key = newKey()
    await system.upstream.script([{ kind: 'hang', match: { marker: key }, afterEvents: 3 }])
    const first = follow(key, { options: { on_uncertain: 'hold' } })
    await until(
      () => Promise.resolve(ids(first.text()).length),
      (count) => count === 3,
      20_000,
    )
    await worker.kill()
    worker = await system.started('worker')
    expect(await first.done).toContain('"code":"job_uncertain"')
    const again = follow(key)
    expect((await again.reply).status).toBe(400)
    expect(await again.done).toContain('job_uncertain')
    expect((await system.upstream.callsBy())[key]).toBe(1)
  })

  test('a stream that breaks off, or ends without its ending, is maybe billed and never shown as complete', async () => {
    for (const kind of ['cut', 'unfinished', 'stream_error']) {
      const key = newKey()
      await system.upstream.script([
        { kind, match: { marker: key }, afterEvents: 3, ...(kind === 'cut' ? { after: 'half' } : {}) },
      ])
      const first = follow(key, { options: { on_uncertain: 'hold' } })
      const text = await first.done
      expect(text).toContain('"code":"job_uncertain"')
      expect(text).not.toContain('[DONE]')
      const [row] = await system.sql<{ id: string }>('select id from jobs where idempotency_key = $1', [key])
      expect(await ledger(system, row?.id ?? '')).toMatchObject([{ outcome: 'unknown', billing: 'maybe' }])
    }
  })

  test('an API killed in mid-stream: another one resumes behind the last event, and nothing is missing or twice', async () => {
    const key = newKey()
    await system.upstream.script([slow(key)])
    const first = follow(key, { api: 1 })
    await until(
      () => Promise.resolve(ids(first.text()).length),
      (count) => count >= 5,
      20_000,
    )
    await apis[1]?.child.kill()
    await expect(first.done).rejects.toThrow(/terminated|reset|socket/i)
    const whole = first.text().slice(0, first.text().lastIndexOf('\n\n') + 2)
    const last = ids(whole).at(-1) ?? ''
    const rest = follow(key, { lastEventId: last })
    const joined = whole + (await rest.done)
    const after = await stored(key)
    expect(joined).toBe(after.text)
    expect(after.calls).toBe(1)
    apis[1] = await system.api()
  })

  test('Redis lost and Postgres restarted in mid-stream: the stream goes on to its end, one call', async () => {
    const key = newKey()
    await system.upstream.script([slow(key, { chunkDelayMs: 150 })])
    const first = follow(key)
    const watcher = follow(key, { api: 1 })
    await until(
      () => Promise.resolve(ids(first.text()).length),
      (count) => count >= 4,
      20_000,
    )
    await system.redis?.kill()
    await system.redis?.restart()
    await system.postgres.restart({ mode: 'immediate' })
    const texts = await Promise.all([first.done, watcher.done])
    const after = await stored(key)
    expect(texts).toEqual([after.text, after.text])
    expect(after.text).toContain('[DONE]')
    expect(after.calls).toBe(1)
  })

  test('an API that stops tells its followers with an error event; the stream is whole afterwards', async () => {
    const key = newKey()
    await system.upstream.script([slow(key)])
    const first = follow(key, { api: 1 })
    await until(
      () => Promise.resolve(ids(first.text()).length),
      (count) => count >= 3,
      20_000,
    )
    apis[1]?.child.signal('SIGTERM')
    expect(await first.done).toContain('"code":"unavailable"')
    const stoppingAt = performance.now()
    expect(await apis[1]?.child.exited).toMatchObject({ code: 0 })
    // Its connection, kept alive, does not hold up the stop.
    expect(performance.now() - stoppingAt).toBeLessThan(5_000)
    apis[1] = await system.api()
    const after = await stored(key)
    expect(after.text).toContain('[DONE]')
    expect(after.calls).toBe(1)
  })

  test('readers that do not read cost a page each, not the stream', async () => {
    const key = newKey()
    const bytes = 6 * 1024 * 1024
    await system.upstream.script([slow(key, { chunks: 100, chunkDelayMs: 0, answerBytes: bytes })])
    const pid = apis[0]?.child.pid ?? 0
    expect((await follow(key).done).length).toBeGreaterThan(bytes)
    const before = await residentBytes(pid)
    const sockets = await Promise.all(Array.from({ length: 60 }, () => unread(address(0), key)))
    // Each has begun: what they do not take is waiting for them.
    await Promise.all(
      sockets.map((socket) =>
        until(
          () => Promise.resolve(socket.readableLength),
          (length) => length > 0,
          20_000,
        ),
      ),
    )
    const after = await residentBytes(pid)
    for (const socket of sockets) socket.destroy()
    // Whole streams would be 360 MiB.
    expect((after - before) / 1024 / 1024).toBeLessThan(150)
  })

  /** Asks for the stream of a key and reads no more of the answer than the socket takes by itself. */
  async function unread(base: string, key: string): Promise<Socket> {
    const { hostname, port } = new URL(base)
    const socket = connect({ host: hostname, port: Number(port) })
    const body = JSON.stringify({
      model: 'gpt-test',
      user: key,
      stream: true,
      messages: [{ role: 'user', content: key }],
    })
    socket.write(
      `POST /openai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${apiKey}\r\nIdempotency-Key: ${key}\r\n` +
        `Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    )
    await new Promise((resolve) => socket.once('readable', resolve))
    return socket
  }
})

async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024
}
