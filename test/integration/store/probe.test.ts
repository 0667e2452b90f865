import { execFileSync } from 'node:child_process'
import { chownSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { openDatabase, StoreProbe, StoreRefusalError, type Database } from '@askonce/store'
import { leakCheck, startTestPostgres, type TestDatabase, type TestPostgres } from '@askonce/testkit'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'

/** A small file system of its own in the place of `folder`; needs root, or a sudo without a password. */
function mountSmall(folder: string, owner: { uid: number; gid: number }): void {
  asRoot('mount', '-t', 'tmpfs', '-o', `size=64k,mode=0700,uid=${owner.uid},gid=${owner.gid}`, 'tmpfs', folder)
}

function asRoot(...command: string[]): void {
  const [program = '', ...args] = process.getuid?.() === 0 ? command : ['sudo', '-n', ...command]
  execFileSync(program, args, { stdio: 'pipe' })
}

describe('whether Postgres does the work of a process', () => {
  let postgres: TestPostgres
  let database: TestDatabase
  let admin: pg.Pool
  let store: Database
  let probe: StoreProbe
  beforeAll(async () => {
    postgres = await startTestPostgres()
    database = await postgres.createDatabase()
    admin = new pg.Pool({
      connectionString: database.url,
      max: 2,
      options: '-c default_transaction_read_only=off -c synchronous_commit=local',
    })
    admin.on('error', () => undefined)
    await admin.query(`create role worker login password 'secret'`)
  })
  afterAll(async () => {
    await admin.end()
    await postgres.stop()
    await leakCheck()
  })
  beforeEach(() => {
    const url = new URL(database.url)
    url.username = 'worker'
    url.password = 'secret'
    store = openDatabase({ url: url.href, name: 'probing', poolSize: 3 })
    probe = new StoreProbe(store.db)
  })
  afterEach(() => store.close())

  const found = async (): Promise<{ what: string; todo: string } | null> => {
    const sinceMs = performance.now()
    const error = await probe.check().then(
      () => null,
      (reason: unknown) => reason,
    )
    expect(performance.now() - sinceMs).toBeLessThan(3_000)
    if (error === null) return null
    expect(error).toBeInstanceOf(StoreRefusalError)
    return { what: (error as Error).message, todo: (error as StoreRefusalError).todo }
  }
  const untilFine = async (): Promise<void> => {
    await expect.poll(found, { timeout: 15_000, interval: 200 }).toBe(null)
  }
  const setServer = async (setting: string, value: string): Promise<void> => {
    await admin.query(`alter system set ${setting} = '${value}'`)
    await admin.query('select pg_reload_conf()')
  }

  it('does where a commit of ours is acknowledged: every five seconds one, whoever asks', async () => {
    const lsn = async (): Promise<string> =>
      (await admin.query<{ lsn: string }>('select pg_current_wal_flush_lsn() as lsn')).rows[0]?.lsn ?? ''
    const before = await lsn()
    await Promise.all([probe.check(), probe.check(), probe.check()])
    const after = await lsn()
    expect(after).not.toBe(before)
    await probe.check()
    expect(await lsn()).toBe(after)
    probe.doubt()
    await probe.check()
    expect(await lsn()).not.toBe(after)
    expect(probe.inTrouble).toBe(false)
  })

  it('a standby takes no writes; promoted, it does', async () => {
    const signal = join(postgres.dataDirectory, 'standby.signal')
    const { uid, gid } = statSync(postgres.dataDirectory)
    writeFileSync(signal, '')
    chownSync(signal, uid, gid)
    await postgres.restart()
    expect(await found()).toEqual({
      what: 'this server is a standby (in recovery): it takes no writes',
      todo: expect.stringMatching(/lead to the primary, or promote this server: select pg_promote/) as string,
    })
    expect(probe.inTrouble).toBe(true)
    await admin.query('select pg_promote()')
    await untilFine()
  })

  it.each([
    ['alter role worker set', /for the role worker$/, 'alter role worker reset default_transaction_read_only;'],
    [
      'alter database test_1 set',
      /for the database test_1$/,
      'alter database test_1 reset default_transaction_read_only;',
    ],
    [
      'alter role worker in database test_1 set',
      /for the role worker in the database test_1$/,
      'alter role worker in database test_1 reset default_transaction_read_only;',
    ],
  ])(
    'read-only by %s: whose setting it is, and what mends it, also for connections that are open',
    async (by, what, todo) => {
      await admin.query(`${by} default_transaction_read_only = on`)
      expect(await found()).toEqual({ what: expect.stringMatching(what) as string, todo })
      await admin.query(todo)
      await untilFine()
    },
  )

  it('read-only by the server', async () => {
    await probe.check()
    await setServer('default_transaction_read_only', 'on')
    await expect
      .poll(found)
      .toMatchObject({ what: 'sessions are read-only: default_transaction_read_only is on for the server' })
    await setServer('default_transaction_read_only', 'off')
    await untilFine()
  })

  it('a full disk, without any traffic; when room is made, it goes on', async () => {
    await probe.check()
    const folder = join(postgres.dataDirectory, 'base', 'pgsql_tmp')
    const { uid, gid } = statSync(postgres.dataDirectory)
    mountSmall(folder, { uid, gid })
    try {
      await expect.poll(found, { timeout: 10_000, interval: 500 }).toMatchObject({
        what: 'the disk of PostgreSQL is full (53100)',
        todo: expect.stringContaining('Make room') as string,
      })
      asRoot('mount', '-o', 'remount,size=8m', folder)
      await untilFine()
    } finally {
      asRoot('umount', '--lazy', folder)
    }
  })

  it('commits that wait for a standby: said in time, and no connection is left waiting', async () => {
    await setServer('synchronous_standby_names', 'elsewhere')
    const what = 'commits wait for a standby that does not confirm them (synchronous_standby_names)'
    await expect
      .poll(
        () => {
          probe.doubt()
          return found()
        },
        { timeout: 10_000 },
      )
      .toMatchObject({ what })
    for (let index = 0; index < 30; index += 1) {
      expect(await found()).toMatchObject({ what })
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    const { rows } = await admin.query(`select 1 from pg_stat_activity where wait_event = 'SyncRep'`)
    expect(rows.length).toBeLessThanOrEqual(1)
    await setServer('synchronous_standby_names', '')
    await untilFine()
  })

  it('a server that says nothing', async () => {
    await probe.check()
    postgres.pause()
    expect(await found()).toMatchObject({ what: 'Postgres does not answer' })
    postgres.resume()
    await untilFine()
  })

  it('which limit of connections is reached', async () => {
    const refusal = async (): Promise<string | undefined> => {
      const other = openDatabase({ url: store.url, name: 'one more', poolSize: 1 })
      const error = await new StoreProbe(other.db).check().then(
        () => null,
        (reason: unknown) => reason,
      )
      await other.close()
      return (error as Error | null)?.message
    }
    await admin.query('alter role worker connection limit 0')
    expect(await refusal()).toBe('too many connections: the limit of the role is reached (53300)')
    await admin.query('alter role worker connection limit -1')
    await admin.query('alter database test_1 connection limit 0')
    expect(await refusal()).toBe('too many connections: the limit of the database is reached (53300)')
    await admin.query('alter database test_1 connection limit -1')
    // Of 200.
    await admin.query('alter system set superuser_reserved_connections = 197')
    await postgres.restart()
    const others = Array.from({ length: 3 }, () => new pg.Client({ connectionString: store.url }))
    for (const other of others) other.on('error', () => undefined)
    await Promise.all(others.map((other) => other.connect()))
    expect(await refusal()).toMatch(/^too many connections: of max_connections only those are left that are reserved/)
    await Promise.all(others.map((other) => other.end()))
  })
})
