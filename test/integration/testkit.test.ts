import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { withClient } from '@askonce/embedded'
import {
  type TestPostgres,
  leakCheck,
  reapAll,
  spawnNode,
  startTcpProxy,
  startTestPostgres,
  startTestRedis,
} from '@askonce/testkit'
import pg from 'pg'
import { afterAll, afterEach, describe, expect, it } from 'vitest'

const leaver = fileURLToPath(new URL('testkit-leaver.ts', import.meta.url))

async function one(url: string, text: string): Promise<unknown> {
  const rows = await withClient(url, 3_000, async (client) => (await client.query<{ one: unknown }>(text)).rows)
  return rows[0]?.one
}

async function redis(port: number, line: string): Promise<string> {
  return await new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(`${line}\r\n`))
    socket.once('error', reject)
    socket.once('data', (bytes) => {
      socket.destroy()
      resolve(bytes.toString().trim())
    })
  })
}

// A process that has ended and whose parent has yet to hear of it still has an entry, in state Z.
function isAlive(pid: number): boolean {
  try {
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'))
  } catch {
    return false
  }
}

async function until(what: string, holds: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`not within 10 s: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

afterEach(reapAll)
afterAll(leakCheck)

async function expectItAll(server: TestPostgres): Promise<void> {
  const template = await server.createDatabase()
  await one(template.url, 'create table kept as select 7 as one')
  const clone = await server.createDatabase(template)
  expect(await one(clone.url, 'select one from kept')).toBe(7)
  await clone.drop()
  await expect(one(clone.url, 'select 1')).rejects.toThrow(/does not exist/)

  const before = server.pid
  for (const mode of ['fast', 'immediate', 'kill'] as const) await server.restart({ mode })
  expect(server.pid).not.toBe(before)
  expect(await one(template.url, 'select one from kept')).toBe(7)

  await server.kill()
  await expect(one(template.url, 'select 1')).rejects.toThrow(/ECONNREFUSED/)
  await server.restart()

  const client = new pg.Client(template.url)
  await client.connect()
  server.pause()
  let answered = false
  const answer = client.query('select 1').then(() => (answered = true))
  await expect(withClient(template.url, 200, async () => {})).rejects.toThrow(/timeout/)
  expect(answered).toBe(false)
  server.resume()
  expect(await answer).toBe(true)
  await client.end()
  const last = server.pid
  await server.stop()
  await server.stop()
  expect(isAlive(last)).toBe(false)
}

describe('a private PostgreSQL', () => {
  it('is the embedded one', async () => {
    const server = await startTestPostgres({ flavour: 'embedded' })
    expect(server.major).toBe(18)
    expect(await one(server.url, `select current_setting('fsync') as one`)).toBe('off')
    await expectItAll(server)
  })

  it('is the one of the system, durable where asked', async () => {
    const server = await startTestPostgres({ flavour: 'system', fsync: true, settings: { max_connections: '20' } })
    expect(server.major).toBeGreaterThanOrEqual(15)
    expect(await one(server.url, `select current_setting('fsync') || current_setting('max_connections') as one`)).toBe(
      'on20',
    )
    await expectItAll(server)
  })
})

describe('a private Redis', () => {
  it('forgets on restart, unless it appends', async () => {
    for (const appendonly of [false, true]) {
      const server = await startTestRedis({ appendonly })
      expect(await redis(server.port, 'set key value')).toBe('+OK')
      await server.restart()
      expect(await redis(server.port, 'exists key')).toBe(appendonly ? ':1' : ':0')
      expect(await redis(server.port, 'set key value')).toBe('+OK')
      await server.flushAll()
      expect(await redis(server.port, 'exists key')).toBe(':0')
      await server.kill()
      await expect(redis(server.port, 'ping')).rejects.toThrow(/ECONNREFUSED/)
      await server.restart()
      expect(await redis(server.port, 'ping')).toBe('+PONG')
      await server.stop()
    }
  })

  it('refuses writes when it is full', async () => {
    const server = await startTestRedis({ maxmemory: '1' })
    expect(await redis(server.port, 'set key value')).toMatch(/^-OOM/)
    await server.stop()
  })
})

describe('the proxy', () => {
  it('cuts, refuses, swallows replies and swallows everything', async () => {
    const server = await startTestRedis()
    const proxy = await startTcpProxy(server.port)
    expect(await redis(proxy.port, 'ping')).toBe('+PONG')

    proxy.stallReplies()
    const unanswered = redis(proxy.port, 'set reached yes')
    await until('the request has arrived', () => proxy.connections() === 1)
    let reached = ''
    while (reached !== ':1') reached = await redis(server.port, 'exists reached')
    proxy.cutAll()
    await expect(unanswered).rejects.toThrow(/ECONNRESET/)

    proxy.hold()
    const swallowed = redis(proxy.port, 'set swallowed yes')
    await until('it is connected', () => proxy.connections() === 1)
    proxy.cutAll()
    await expect(swallowed).rejects.toThrow(/ECONNRESET/)
    expect(await redis(server.port, 'exists swallowed')).toBe(':0')

    proxy.refuse()
    await expect(redis(proxy.port, 'ping')).rejects.toThrow(/ECONNRESET/)
    proxy.accept()
    expect(await redis(proxy.port, 'ping')).toBe('+PONG')
    await proxy.close()
    await expect(redis(proxy.port, 'ping')).rejects.toThrow(/ECONNREFUSED/)
    await server.stop()
  })
})

describe('what a test leaves running', () => {
  it('fails its file, by name, and is stopped', async () => {
    const { pid } = await startTestRedis()
    await expect(leakCheck()).rejects.toThrow(/left running by this test file: Redis in/)
    expect(isAlive(pid)).toBe(false)
    await leakCheck()
  })

  it('ends when the test process is killed', async () => {
    const TMPDIR = mkdtempSync(join(tmpdir(), 'askonce-testkit-'))
    const child = spawnNode(leaver, { env: { TMPDIR } })
    const [, ...pids] = await child.waitForLine(/^left (\d+) (\d+)$/, 40_000)
    const alive = (): boolean[] => pids.map((pid) => isAlive(Number(pid)))
    expect(alive()).toEqual([true, true])
    const ours = (): string[] => readdirSync(TMPDIR).filter((name) => name.startsWith('askonce-'))
    expect(ours()).toHaveLength(2)
    await child.kill()
    await until('both servers and their folders are gone', () => !alive().includes(true) && ours().length === 0)
    rmSync(TMPDIR, { recursive: true })
  })

  it('is a process that sees nothing of our environment', async () => {
    process.env['ASKONCE_TEST_SECRET'] = 'x'
    const child = spawnNode(leaver, { args: ['env'], env: { GIVEN: 'yes' } })
    const [, names] = await child.waitForLine(/^env (.*)$/, 40_000)
    expect((names ?? '').split(',').filter((name) => !['PATH', 'HOME', 'TMPDIR'].includes(name))).toEqual(['GIVEN'])
    expect(await child.exited).toEqual({ code: 0, signal: null })
    await expect(child.waitForLine(/never/, 1_000)).rejects.toThrow(/ended \(code 0, signal null\) without a line like/)
    delete process.env['ASKONCE_TEST_SECRET']
  })
})
