import { readFile } from 'node:fs/promises'
import { assertOwnSessions, PoolerError, readPoolerFacts, SessionSettingsError, sessionSettings } from '@askonce/store'
import { leakCheck, startTestPgbouncer, startTestPostgres, type TestPostgres } from '@askonce/testkit'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'

// A pooler passes no settings on, and neither does a connection through which none are sent: the server itself stands in for one.
describe('what sessions behind a pooler must be like', () => {
  let postgres: TestPostgres
  let url: string
  let sql: (statement: string) => Promise<unknown>
  let client: pg.Client
  beforeAll(async () => {
    postgres = await startTestPostgres()
    const database = await postgres.createDatabase()
    url = database.url
    client = new pg.Client({ connectionString: url })
    await client.connect()
    sql = (statement) => client.query(statement)
    await sql('create table settings as select gen_random_uuid() as database_id')
  })
  afterAll(async () => {
    await client.end()
    await postgres.stop()
    await leakCheck()
  })
  beforeEach(() => sql('alter role current_user reset all'))

  const setAll = async (settings: Readonly<Record<string, string>>): Promise<void> => {
    for (const [name, value] of Object.entries(settings)) await sql(`alter role current_user set ${name} = '${value}'`)
  }

  test('nothing is missing when the role has every setting, and each one that it lacks is named', async () => {
    await setAll(sessionSettings)
    expect(await readPoolerFacts(url, url)).toEqual({ missing: [], remedy: '' })
    await sql('alter role current_user reset lock_timeout')
    const { missing, remedy } = await readPoolerFacts(url, url)
    expect(missing).toEqual([{ setting: 'lock_timeout', wanted: '5000', found: '0' }])
    expect(remedy).toMatch(/^alter role \w+ set lock_timeout = '5000';$/)
    await sql(remedy)
    expect((await readPoolerFacts(url, url)).missing).toEqual([])
  })

  test('one that stands where sessions have to be ours alone gives itself away', async () => {
    await setAll(sessionSettings)
    const pooler = await startTestPgbouncer({ url, poolSize: 4, ignore: 'options' })
    try {
      await expect(assertOwnSessions(pooler.url)).rejects.toThrow(PoolerError)
      await expect(assertOwnSessions(pooler.url)).rejects.toThrow(/set DATABASE_DIRECT_URL to the server itself/)
      await assertOwnSessions(url)
    } finally {
      await pooler.stop()
    }
  })

  test('operations.md has every statement that the role needs', async () => {
    const page = await readFile('docs/operations.md', 'utf8')
    const statements = Object.entries(sessionSettings).map(
      ([name, value]) => `alter role current_user set ${name} = '${value}';`,
    )
    expect(statements.filter((statement) => !page.includes(statement))).toEqual([])
    expect(page.match(/^alter role current_user set /gm)).toHaveLength(statements.length)
  })

  test('an acknowledged commit that is not on disk is refused; without a standby, all but off wait for the disk', async () => {
    await setAll({ synchronous_commit: 'off' })
    await expect(readPoolerFacts(url, url)).rejects.toThrow(SessionSettingsError)
    for (const synchronous_commit of ['local', 'remote_write', 'remote_apply']) {
      await setAll({ synchronous_commit })
      expect((await readPoolerFacts(url, url)).missing[0]?.setting).toBe('synchronous_commit')
    }
  })

  test('with a standby, what does not wait for its disk is refused, too', async () => {
    // The standby does not exist, and nothing may wait for it.
    await sql('set synchronous_commit = local')
    const standbys = async (names: string): Promise<void> => {
      await sql(`alter system set synchronous_standby_names = '${names}'`)
      await sql('select pg_reload_conf()')
      await expect
        .poll(async () => (await client.query<object>('show synchronous_standby_names')).rows[0])
        .toEqual({
          synchronous_standby_names: names,
        })
    }
    await standbys('elsewhere')
    try {
      for (const synchronous_commit of ['local', 'remote_write']) {
        await setAll({ synchronous_commit })
        await expect(readPoolerFacts(url, url)).rejects.toThrow(SessionSettingsError)
      }
      for (const synchronous_commit of ['on', 'remote_apply']) {
        await setAll({ synchronous_commit })
        expect(await readPoolerFacts(url, url)).toBeDefined()
      }
    } finally {
      await standbys('')
    }
  })

  test('a pooler that leads to another database is refused', async () => {
    const other = await postgres.createDatabase()
    const there = new pg.Client({ connectionString: other.url })
    await there.connect()
    await there.query('create table settings as select gen_random_uuid() as database_id')
    await there.end()
    await setAll(sessionSettings)
    await expect(readPoolerFacts(other.url, url)).rejects.toThrow(/different databases/)
  })
})
