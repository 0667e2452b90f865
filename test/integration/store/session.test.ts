import { setTimeout as sleep } from 'node:timers/promises'
import { isUnavailable, notify, Session, settledChannel, type SessionOptions } from '@askonce/store'
import { startTcpProxy, type TcpProxy } from '@askonce/testkit'
import { sql } from 'kysely'
import { afterEach, describe, expect, it } from 'vitest'
import { ping, useStore } from './fixture.ts'

const store = useStore()
const opened: { close: () => Promise<void> }[] = []

afterEach(async () => {
  for (const { close } of opened.splice(0).toReversed()) await close()
})

interface Watched {
  session: Session
  heard: string[]
  errors: Error[]
}

function watch(options: Partial<SessionOptions> = {}): Watched {
  const heard: string[] = []
  const errors: Error[] = []
  const session = new Session({
    url: store.url,
    name: 'under test',
    channels: [settledChannel, 'Odd "name'],
    onNotification: (channel, payload) => heard.push(`${channel}: ${payload}`),
    onError: (error) => errors.push(error),
    queryTimeoutMs: 5_000,
    ...options,
  })
  opened.push({ close: () => session.close() })
  return { session, heard, errors }
}

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await sleep(5)
}

const connections = async (): Promise<number> => {
  const rows = await store.query<{ n: number }>(
    `select count(*) as n from pg_stat_activity where application_name = 'under test' and datname = current_database()`,
  )
  return rows[0]?.n ?? 0
}

const terminate = () =>
  sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'under test'`.execute(store.db)

const sleepers = async (): Promise<number> => {
  const rows = await store.query<{ n: number }>(
    `select count(*)::int as n from pg_stat_activity where query like '%pg_sleep(0.1)%' and pid <> pg_backend_pid()`,
  )
  return rows[0]?.n ?? 0
}

function holdEventLoop(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

/** Fails if a second connection shows up within a while: long enough for every timer of a reconnect. */
async function expectOneConnection(): Promise<void> {
  for (let left = 60; left > 0; left -= 1) {
    expect(await connections()).toBe(1)
    await sleep(10)
  }
}

async function proxied(): Promise<{ proxy: TcpProxy; url: string }> {
  const proxy = await startTcpProxy(store.server.port)
  opened.push(proxy)
  const url = new URL(store.url)
  url.port = String(proxy.port)
  return { proxy, url: url.href }
}

describe('a session', () => {
  it('hears what is said on its channels, and runs statements', async () => {
    const { session, heard } = watch()
    await until(() => session.connected)
    await ping(session.db)
    await notify(store.db, settledChannel, ['a', 'b'])
    await notify(store.db, 'Odd "name', ['c'])
    await until(() => heard.length === 2)
    expect(heard).toEqual([`${settledChannel}: a,b`, 'Odd "name: c'])
  })

  it('comes back when its connection was ended, and listens again', async () => {
    const { session, heard, errors } = watch()
    await until(() => session.connected)
    for (let round = 1; round <= 3; round += 1) {
      await terminate()
      await until(() => errors.length >= round)
      await until(() => session.connected)
      await notify(store.db, settledChannel, [`round ${round}`])
      await until(() => heard.length === round)
    }
    await expectOneConnection()
    expect(errors).toHaveLength(3)
  })

  it('rejects statements at once while it is down, as unavailable', async () => {
    const { proxy, url } = await proxied()
    proxy.refuse()
    const { session, errors } = watch({ url })
    await until(() => errors.length > 0)
    const error: unknown = await ping(session.db).catch((reason: unknown) => reason)
    expect(isUnavailable(error)).toBe(true)
    proxy.accept()
    await until(() => session.connected)
    await ping(session.db)
  })

  it('comes back within a second of the server', async () => {
    const { session, errors } = watch()
    await until(() => session.connected)
    await store.server.kill()
    await until(() => errors.length > 3)
    await store.server.restart()
    const backAtMs = performance.now()
    await until(() => session.connected)
    expect(performance.now() - backAtMs).toBeLessThan(2_500)
    await ping(store.db).catch(() => undefined)
  })

  it('gives up a statement without a reply, takes a new connection, and has no more than that', async () => {
    const { session, errors, heard } = watch({ queryTimeoutMs: 2_000 })
    await until(() => session.connected)
    const error: unknown = await sql`select pg_sleep(60)`.execute(session.db).catch((reason: unknown) => reason)
    expect(isUnavailable(error)).toBe(true)
    await until(() => session.connected && errors.length > 0)
    await sql`select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()`.execute(
      store.db,
    )
    await until(async () => (await connections()) === 1)
    await expectOneConnection()
    await notify(store.db, settledChannel, ['once'])
    await until(() => heard.length > 0)
    expect(heard).toHaveLength(1)
    expect(errors).toHaveLength(1)
  })

  it('takes a reply that arrived while the event loop was held up beyond the time-out', async () => {
    const { session, errors } = watch({ queryTimeoutMs: 400 })
    await until(() => session.connected)
    const reply = sql<{ ok: number }>`select 1 as ok from pg_sleep(0.1)`.execute(session.db)
    await until(async () => (await sleepers()) === 1)
    holdEventLoop(1_000)
    expect((await reply).rows).toEqual([{ ok: 1 }])
    expect([session.connected, errors]).toEqual([true, []])
  })

  it('takes a connection that was made while the event loop was held up beyond the time-out', async () => {
    const { session, errors } = watch({ queryTimeoutMs: 2_000 })
    holdEventLoop(3_000)
    await until(() => session.connected || errors.length > 0)
    expect(errors).toEqual([])
  })

  it('keeps its connection when a statement fails for its own reasons', async () => {
    const { session, errors } = watch()
    await until(() => session.connected)
    await expect(sql`select 1 / 0`.execute(session.db)).rejects.toMatchObject({ code: '22012' })
    await sql`set statement_timeout = '20ms'`.execute(session.db)
    await expect(sql`select pg_sleep(5)`.execute(session.db)).rejects.toMatchObject({ code: '57014' })
    await ping(session.db)
    expect(errors).toEqual([])
  })
})

describe('closing', () => {
  it('ends the connection, for good', async () => {
    const { session, errors } = watch()
    await until(() => session.connected)
    await session.close()
    expect(session.connected).toBe(false)
    await until(async () => (await connections()) === 0)
    await expect(ping(session.db)).rejects.toThrow('is down')
    expect(errors).toEqual([])
  })

  it('while it connects leaves no connection behind', async () => {
    const { proxy, url } = await proxied()
    proxy.hold()
    const { session, errors } = watch({ url, queryTimeoutMs: 60_000 })
    await until(() => proxy.connections() === 1)
    await session.close()
    await until(() => proxy.connections() === 0)
    expect(errors).toEqual([])
  })

  it('does not wait for a server that hangs', async () => {
    const { session } = watch()
    await until(() => session.connected)
    store.server.pause()
    try {
      await expect(session.close()).resolves.toBeUndefined()
    } finally {
      store.server.resume()
    }
  })
})

describe('notify', () => {
  it('splits many ids over several payloads, none longer than Postgres takes', async () => {
    const { session, heard } = watch()
    await until(() => session.connected)
    const ids = Array.from({ length: 450 }, (_, index) => String(index).padStart(36, '0'))
    await notify(store.db, settledChannel, ids)
    await until(() => heard.length === 3)
    const payloads = heard.map((line) => line.slice(`${settledChannel}: `.length))
    expect(payloads.flatMap((payload) => payload.split(','))).toEqual(ids)
    await notify(store.db, settledChannel, [])
    await notify(store.db, settledChannel, ['last'])
    await until(() => heard.length === 4)
    expect(heard[3]).toBe(`${settledChannel}: last`)
  })
})
