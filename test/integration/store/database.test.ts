import { setTimeout as sleep } from 'node:timers/promises'
import { isContention, isDataError, isUnavailable, openDatabase, retryContention, type Database } from '@askonce/store'
import { errorReason } from '@askonce/telemetry'
import { startTcpProxy, type TcpProxy } from '@askonce/testkit'
import type * as timing from '@askonce/timing'
import { sql } from 'kysely'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { insertJob, openTransaction, ping, useStore } from './fixture.ts'

/** Statements go half a minute without a reply before they are given up: in a test that waits for it, half a second. */
let impatient = false
vi.mock('@askonce/timing', async (original) => {
  const real = await original<typeof timing>()
  const within: typeof real.within = (promise, limitMs, late) =>
    real.within(promise, impatient && limitMs > 30_000 ? 500 : limitMs, late)
  return { ...real, within }
})

const store = useStore()
const opened: { close: () => Promise<void> }[] = []

afterEach(async () => {
  impatient = false
  for (const { close } of opened.splice(0).toReversed()) await close()
})

function open(url: string, onError?: (error: Error) => void): Database {
  const database = openDatabase({ url, name: 'under test', poolSize: 2, ...(onError && { onError }) })
  opened.push(database)
  return database
}

async function behindProxy(): Promise<{ proxy: TcpProxy; url: string }> {
  const proxy = await startTcpProxy(store.server.port)
  opened.push(proxy)
  const url = new URL(store.url)
  url.port = String(proxy.port)
  return { proxy, url: url.href }
}

const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => new Error('it succeeded'),
    (error: unknown) => error,
  )

/** Sessions of the pool under test. */
const sessions = (where = 'true') =>
  store.query<{ pid: number }>(
    `select pid from pg_stat_activity where application_name = 'under test' and datname = current_database() and ${where}`,
  )

async function until(holds: () => Promise<boolean>): Promise<void> {
  while (!(await holds())) await sleep(5)
}

describe('a session', () => {
  it('has what every session must have', async () => {
    const { db } = open(store.url)
    const { rows } = await sql`
      select current_setting('synchronous_commit') as commit, current_setting('lock_timeout') as lock,
        current_setting('statement_timeout') as statement, current_setting('idle_in_transaction_session_timeout') as idle,
        current_setting('application_name') as name`.execute(db)
    expect(rows).toEqual([{ commit: 'on', lock: '5s', statement: '30s', idle: '30s', name: 'under test' }])
  })

  it('reads bigint and numeric as numbers, and the rest as pg does', async () => {
    const { rows } = await sql`
      select 9007199254740991::bigint as big, 0.0000001234::numeric(20, 10) as cost, null::bigint as none, count(*) as n,
        '\\x00ff'::bytea as bytes, '2026-01-01T00:00:00Z'::timestamptz as at, array['a'] as list`.execute(
      open(store.url).db,
    )
    expect(rows).toEqual([
      {
        big: 9_007_199_254_740_991,
        cost: 0.000_000_123_4,
        none: null,
        n: 1,
        bytes: Buffer.from([0, 255]),
        at: new Date('2026-01-01T00:00:00Z'),
        list: ['a'],
      },
    ])
  })
})

describe('a pool', () => {
  it('connects at the first statement: Postgres may be away at boot', async () => {
    const { proxy, url } = await behindProxy()
    proxy.refuse()
    const { db } = open(url)
    expect(proxy.connections()).toBe(0)
    expect(isUnavailable(await failure(ping(db)))).toBe(true)
    proxy.accept()
    await ping(db)
  })

  it('replaces idle connections that break, and says that they did', async () => {
    const errors: Error[] = []
    const { db } = open(store.url, (error) => errors.push(error))
    await ping(db)
    await sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'under test'`.execute(
      store.db,
    )
    await until(() => Promise.resolve(errors.length > 0))
    expect(errors.every((error) => isUnavailable(error))).toBe(true)
    await ping(db)
  })

  it('rejects the statement whose connection breaks as unavailable, and goes on', async () => {
    const { db } = open(store.url)
    const running = failure(sql`select pg_sleep(60)`.execute(db))
    await until(async () => (await sessions(`query like '%pg_sleep%'`)).length === 1)
    await sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'under test'`.execute(
      store.db,
    )
    expect(isUnavailable(await running)).toBe(true)
    await ping(db)
  })

  it('rejects the statement whose connection is cut as unavailable, and goes on', async () => {
    const { proxy, url } = await behindProxy()
    const { db } = open(url)
    const running = failure(sql`select pg_sleep(60)`.execute(db))
    await until(async () => (await sessions(`query like '%pg_sleep%'`)).length === 1)
    proxy.cutAll()
    expect(isUnavailable(await running)).toBe(true)
    await ping(db)
  })

  it('says why a transaction failed whose connection was ended before its rollback', async () => {
    const { db } = open(store.url)
    const writing = db
      .transaction()
      .setAccessMode('read only')
      .execute((trx) => sql`update settings set database_id = database_id`.execute(trx))
    const error = await failure(writing)
    expect(isUnavailable(error)).toBe(true)
    expect(errorReason(error)).toMatch(/25006 \(the sessions are read-only/)
  })

  it('says that a server takes connections and never answers', async () => {
    const { proxy, url } = await behindProxy()
    proxy.stallReplies()
    const { db } = open(url)
    const error = await failure(ping(db))
    expect(isUnavailable(error)).toBe(true)
    expect(errorReason(error)).toBe('StoreTimeoutError: no connection to Postgres in time')
  })

  it('breaks a connection whose reply does not come, so that nothing waits behind it', async () => {
    const { proxy, url } = await behindProxy()
    const { db } = open(url)
    await ping(db)
    proxy.stallReplies()
    impatient = true
    const stalled = failure(sql`select 'stalled'`.execute(db))
    expect(isUnavailable(await stalled)).toBe(true)
    impatient = false
    await until(() => Promise.resolve(proxy.connections() === 0))
    proxy.accept()
    await ping(db)
  })

  it('has a connection for a statement that waited for one while the event loop was held up', async () => {
    const { db } = open(store.url)
    const all = Array.from({ length: 3 }, () => sql<{ ok: number }>`select 1 as ok from pg_sleep(0.2)`.execute(db))
    // Two run, the third waits: longer than a connection is waited for.
    await until(async () => (await sessions(`query like '%pg_sleep(0.2)%' and state = 'active'`)).length === 2)
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 6_000)
    expect((await Promise.all(all)).map(({ rows }) => rows)).toEqual([[{ ok: 1 }], [{ ok: 1 }], [{ ok: 1 }]])
  })

  it('survives a restart of the server', async () => {
    const { db } = open(store.url)
    await ping(db)
    await store.server.restart({ mode: 'immediate' })
    // The first statement may still meet a connection that has not heard of it.
    await ping(db).catch(() => undefined)
    await expect(ping(db)).resolves.toBeUndefined()
    await ping(store.db).catch(() => undefined)
  })

  it('can be closed while the server hangs', async () => {
    const database = openDatabase({ url: store.url, name: 'closing', poolSize: 2 })
    await ping(database.db)
    store.server.pause()
    try {
      await expect(database.close()).resolves.toBeUndefined()
    } finally {
      store.server.resume()
    }
    await ping(store.db)
  })
})

describe('kinds of errors', () => {
  const coded = (code: string, message = 'x'): Error => Object.assign(new Error(message), { code })

  it.each(['08006', '53300', '53100', '57P01', '57P03', '57014', '58030', 'XX000'])(
    'SQLSTATE %s is unavailability',
    (code) => {
      expect([isUnavailable(coded(code)), isDataError(coded(code)), isContention(coded(code))]).toEqual([
        true,
        false,
        false,
      ])
    },
  )

  it.each(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ENOTFOUND', 'EAI_AGAIN', 'ETIMEDOUT', 'EHOSTUNREACH'])(
    'the network’s %s is unavailability',
    (code) => {
      expect([isUnavailable(coded(code)), isDataError(coded(code)), isContention(coded(code))]).toEqual([
        true,
        false,
        false,
      ])
    },
  )

  it.each([
    'no reply of Postgres in time: timeout',
    'Connection terminated unexpectedly',
    'no connection to Postgres in time',
  ])('the driver’s “%s” is unavailability', (message) => {
    expect(isUnavailable(new Error(message))).toBe(true)
  })

  it.each(['22P02', '22021', '22003', '23502', '23505', '23514'])('SQLSTATE %s is refused data', (code) => {
    expect([isUnavailable(coded(code)), isDataError(coded(code)), isContention(coded(code))]).toEqual([
      false,
      true,
      false,
    ])
  })

  it.each(['40P01', '40001', '55P03'])('SQLSTATE %s is contention', (code) => {
    expect([isUnavailable(coded(code)), isDataError(coded(code)), isContention(coded(code))]).toEqual([
      false,
      false,
      true,
    ])
  })

  it.each([
    coded('42601'),
    coded('42P01'),
    coded('ERR_INVALID_ARG_TYPE'),
    new TypeError('x is not a function'),
    null,
    'text',
  ])('%s is a fault of ours', (error) => {
    expect([isUnavailable(error), isDataError(error), isContention(error)]).toEqual([false, false, false])
  })

  it('a lock that does not come is contention, and tried again', async () => {
    const id = await insertJob(store)
    const holder = await openTransaction(store, 'select 1 from jobs where id = $1 for update', [id])
    let tries = 0
    const result = retryContention(async () => {
      tries += 1
      if (tries === 3) await holder.finish('commit')
      return store.db.transaction().execute(async (transaction) => {
        await sql`set local lock_timeout = '20ms'`.execute(transaction)
        await sql`select 1 from jobs where id = ${id}::uuid for update`.execute(transaction)
      })
    })
    await result
    expect(tries).toBe(3)
  })

  it('contention that lasts is given up, and other errors at once', async () => {
    let tries = 0
    const fail = (code: string) => () => {
      tries += 1
      return Promise.reject(coded(code))
    }
    await expect(retryContention(fail('40P01'), 2)).rejects.toMatchObject({ code: '40P01' })
    expect(tries).toBe(3)
    await expect(retryContention(fail('23505'))).rejects.toMatchObject({ code: '23505' })
    expect(tries).toBe(4)
  })
})
