import {
  isUnavailable,
  openDatabase,
  Session,
  SessionSettingsError,
  sessionOptions,
  type Database,
} from '@askonce/store'
import { leakCheck, startTestPostgres, type TestDatabase, type TestPostgres } from '@askonce/testkit'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { ping } from './fixture.ts'
import { startDropper, type Dropper } from './options-dropper.ts'

describe('a session that has not the settings it was asked for', () => {
  let postgres: TestPostgres
  let database: TestDatabase
  let client: pg.Client
  let dropper: Dropper
  let through: string
  const opened: Database[] = []
  const open = (url: string, poolerUrl: string | null = null): Database => {
    const made = openDatabase({ url, poolerUrl, name: 'test', poolSize: 4 })
    opened.push(made)
    return made
  }
  beforeAll(async () => {
    postgres = await startTestPostgres()
    database = await postgres.createDatabase()
    client = new pg.Client({ connectionString: database.url })
    await client.connect()
    dropper = await startDropper(postgres.port)
    const url = new URL(database.url)
    url.port = String(dropper.port)
    through = url.href
  })
  afterEach(async () => {
    await Promise.all(opened.splice(0).map((one) => one.close()))
    await client.query('alter role current_user reset all')
  })
  afterAll(async () => {
    await client.end()
    dropper.close()
    await postgres.stop()
    await leakCheck()
  })
  const failure = (run: Promise<unknown>): Promise<unknown> =>
    run.then(
      () => null,
      (error: unknown) => error,
    )

  it('meets no statement of ours: the refusal names the setting, what was found, and what to do', async () => {
    const error = (await failure(ping(open(through).db))) as SessionSettingsError
    expect(error).toBeInstanceOf(SessionSettingsError)
    expect(isUnavailable(error)).toBe(true)
    expect(error.message).toMatch(
      /lock_timeout is 0 instead of 5000.*and \d more in a new session.*DATABASE_DIRECT_URL/,
    )
    expect(error.message).toMatch(/alter role \w+ set lock_timeout = '5000';/)
    expect(error.message).not.toContain(new URL(through).password)
  })

  it('is refused for synchronous_commit first, which could lose what is acknowledged; the named statements mend it', async () => {
    await client.query('alter role current_user set synchronous_commit = off')
    const { db } = open(through)
    const error = (await failure(ping(db))) as SessionSettingsError
    expect(error.message).toMatch(/^synchronous_commit is off instead of on.*what is acknowledged could be lost/)
    for (const [statement] of error.message.matchAll(/alter role [^;]*;/g)) await client.query(statement)
    await expect.poll(() => failure(ping(db)), { timeout: 5_000 }).toBe(null)
  })

  it('is refused when the search_path of the address was dropped: it would work on other tables', async () => {
    for (const [name, value] of Object.entries(sessionOptions(database.url, '').rules?.settings ?? {}))
      await client.query(`alter role current_user set ${name} = '${value}'`)
    const own = (url: string): string => `${url}?options=-csearch_path%3Down%2Cpublic`
    const { db } = open(own(through))
    const error = (await failure(ping(db))) as SessionSettingsError
    expect(error.message).toMatch(/^search_path is "\$user", public instead of own,public .*on other tables.*RECONNECT/)
    expect(await failure(ping(open(own(database.url)).db))).toBe(null)
    for (const [statement] of error.message.matchAll(/alter role [^;]*;/g)) await client.query(statement)
    await expect.poll(() => failure(ping(db)), { timeout: 5_000 }).toBe(null)
  })

  it('names the role that logs in, which its settings come from, and not the one that it acts as', async () => {
    await client.query('create role acted nologin; alter role current_user set role = acted')
    const error = (await failure(ping(open(through).db))) as SessionSettingsError
    expect(error.message).toContain(`alter role ${client.user ?? ''} set lock_timeout`)
    await client.query('alter role current_user reset all; drop role acted')
    const as = `${through}?options=-crole%3Dpg_monitor`
    expect(((await failure(ping(open(as).db))) as Error).message).toMatch(/^role is none instead of pg_monitor/)
  })

  it('of a role with weaker ones is ours all the same where nothing drops what we ask for', async () => {
    await client.query('alter role current_user set synchronous_commit = off')
    await client.query('alter role current_user set lock_timeout = 0')
    expect(await failure(ping(open(database.url).db))).toBe(null)
  })

  it('is not made again and again: who asks meanwhile gets the same refusal', async () => {
    const { db } = open(through)
    const before = dropper.connections()
    const refusals: unknown[] = []
    for (const until = performance.now() + 900; performance.now() < until;) refusals.push(await failure(ping(db)))
    expect(dropper.connections() - before).toBeLessThanOrEqual(2)
    expect(refusals.length).toBeGreaterThan(10)
    expect(refusals).not.toContain(null)
  })

  it('keeps a listener away, which tries again with its usual waits and works once the role is right', async () => {
    const errors: Error[] = []
    const before = dropper.connections()
    const session = new Session({
      url: through,
      name: 'test',
      onError: (error) => errors.push(error),
      queryTimeoutMs: 5_000,
    })
    try {
      await expect.poll(() => errors.length, { timeout: 10_000 }).toBeGreaterThanOrEqual(4)
      expect(errors.every((error) => error instanceof SessionSettingsError)).toBe(true)
      expect(dropper.connections() - before).toBeLessThanOrEqual(errors.length + 1)
      expect(session.connected).toBe(false)
      const { message } = errors[0] as Error
      for (const [statement] of message.matchAll(/alter role [^;]*;/g)) await client.query(statement)
      await expect.poll(() => session.connected, { timeout: 5_000 }).toBe(true)
    } finally {
      await session.close()
    }
  })

  it('behind a pooler needs only what an acknowledged commit is worth', async () => {
    await ping(open(database.url, through).db)
    await client.query('alter role current_user set synchronous_commit = off')
    const error = (await failure(ping(open(database.url, through).db))) as SessionSettingsError
    expect(error).toBeInstanceOf(SessionSettingsError)
    expect(error.message).toMatch(/synchronous_commit is off.*behind the pooler of DATABASE_URL.*RECONNECT/)
  })

  it('counts as away while it lasts, and connections that are open go on', async () => {
    const { db } = open(through)
    await client.query(
      Object.entries(sessionOptions(database.url, '').rules?.settings ?? {})
        .map(([name, value]) => `alter role current_user set ${name} = '${value}'`)
        .join(';'),
    )
    await ping(db)
    await client.query('alter role current_user set synchronous_commit = off')
    await ping(db)
    const both = await Promise.all([ping(db), failure(ping(db))])
    expect(both[1]).toBeInstanceOf(SessionSettingsError)
  })
})
