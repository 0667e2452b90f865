import { spawnSync } from 'node:child_process'
import {
  assertSchema,
  CannotMigrateError,
  isUnavailable,
  loadMigrations,
  migrate,
  readDatabaseId,
  SchemaVersionError,
} from '@askonce/store'
import { reapAll, spawnNode } from '@askonce/testkit'
import { afterAll, describe, expect, it, onTestFinished } from 'vitest'
import { asRole, makeRole, run } from '../../migrated-database.ts'
import { makeNextVersion } from '../../next-version.ts'
import { openTransaction, untilBlocked, useStore } from './fixture.ts'

const store = useStore()
afterAll(reapAll)

async function refusal(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.then(
    () => new Error('it was accepted'),
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(SchemaVersionError)
  return (error as Error).message
}

const emptyDatabase = async (): Promise<string> => (await store.server.createDatabase()).url
const tables = `select table_name from information_schema.tables where table_schema = 'public' order by 1`

describe('migrate', () => {
  it('applies all migrations to an empty database, and nothing the second time', async () => {
    const url = await emptyDatabase()
    const names = (await loadMigrations()).map(({ name }) => name)
    expect(names.length).toBeGreaterThan(0)
    expect(await migrate(url)).toEqual(names)
    expect(await migrate(url)).toEqual([])
    await assertSchema(url)
    expect(await run(url, 'select name from schema_migrations order by version')).toEqual(
      names.map((name) => ({ name })),
    )
  })

  it('in parallel from one process and from two: each migration is applied once', async () => {
    const url = await emptyDatabase()
    const names = (await loadMigrations()).map(({ name }) => name)
    const script = new URL('migrate-main.ts', import.meta.url).pathname
    const children = [1, 2].map(() => spawnNode(script, { args: [url] }))
    const here = Promise.all([migrate(url), migrate(url), migrate(url)])
    const lines = await Promise.all(children.map((child) => child.waitForLine(/^applied (.*)$/, 30_000)))
    for (const child of children) expect(await child.exited).toEqual({ code: 0, signal: null })
    const elsewhere = lines.flatMap(([, line]) => (line === undefined || line === '' ? [] : line.split(' ')))
    expect([...(await here).flat(), ...elsewhere].toSorted()).toEqual(names)
    await assertSchema(url)
  })

  it('ends when it is told to while it waits for another migrator, and nobody waits behind it any more', async () => {
    const url = await emptyDatabase()
    const database = { ...store.database, adminUrl: url }
    const holder = await openTransaction({ ...store, database }, 'select pg_advisory_xact_lock($1)', [0x61_73_6b_31])
    const waiting = `select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
    const stopping = new AbortController()
    const ended = migrate(url, stopping.signal).catch((reason: unknown) => reason)
    await expect.poll(() => run(url, waiting), { timeout: 20_000 }).toHaveLength(1)
    stopping.abort()
    expect(await ended).toMatchObject({ code: '57014' })
    expect(await run(url, waiting)).toEqual([])
    await holder.finish('commit')
    expect(await run(url, tables)).toEqual([])
  })

  it('waits as long as it takes for its own statements, and at most a minute for a lock', async () => {
    const url = await emptyDatabase()
    const spy = `
      create table timeouts as select ''::text as statement, ''::text as lock limit 0;
      create function note() returns event_trigger language plpgsql as $$ begin
        insert into timeouts values (current_setting('statement_timeout'), current_setting('lock_timeout'));
      end $$;
      create event trigger note on ddl_command_start execute function note();`
    await run(url, spy)
    await migrate(url)
    expect(await run(url, 'select distinct statement, lock from timeouts')).toEqual([{ statement: '0', lock: '1min' }])
  })

  it('that fails leaves nothing behind, and works once the reason is gone', async () => {
    const url = await emptyDatabase()
    await run(url, 'create table jobs ()')
    await expect(migrate(url)).rejects.toThrow('"jobs" already exists')
    expect(await run(url, tables)).toEqual([{ table_name: 'jobs' }])
    await run(url, 'drop table jobs')
    expect(await migrate(url)).toHaveLength((await loadMigrations()).length)
  })

  it('refuses a database whose migrations were edited', async () => {
    const url = await emptyDatabase()
    await migrate(url)
    await run(url, `update schema_migrations set checksum = 'other'`)
    const wanted = 'migrations/0001_init.sql differs from what was applied to this database'
    expect(await refusal(migrate(url))).toContain(wanted)
    expect(await refusal(assertSchema(url))).toContain(wanted)
  })

  it('refuses a database that a newer version has migrated', async () => {
    const url = await emptyDatabase()
    await migrate(url)
    await run(url, `insert into schema_migrations values (9999, '9999_future.sql', 'x')`)
    const wanted = 'The database has migration 9999_future.sql, which this version does not know.'
    expect(await refusal(migrate(url))).toContain(wanted)
    expect(await refusal(assertSchema(url))).toContain(wanted)
    // What runs already goes on.
    await assertSchema(url, { newerIsFine: true })
  })

  it('rejects as unavailable when Postgres is away', async () => {
    const url = 'postgres://nobody@127.0.0.1:1/none'
    for (const ask of [migrate, assertSchema, readDatabaseId]) {
      const error: unknown = await ask(url).catch((reason: unknown) => reason)
      expect(isUnavailable(error)).toBe(true)
    }
  })

  it.each([
    ['migrate', migrate, 'schema_migrations'],
    ['assertSchema', assertSchema, 'schema_migrations'],
    ['readDatabaseId', readDatabaseId, 'settings'],
  ] as const)(
    '%s rejects when its connection is ended in the middle, and nothing else happens',
    async (_, ask, table) => {
      const holder = await openTransaction(store, `lock table ${table}`)
      const asked = ask(store.url).catch((reason: unknown) => reason)
      await untilBlocked(store)
      await store.query(`select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'`)
      expect(isUnavailable(await asked)).toBe(true)
      await holder.finish('rollback')
    },
  )
})

describe('a database that cannot be migrated', () => {
  const cannot = async (url: string): Promise<string> => {
    const error: unknown = await migrate(url).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(CannotMigrateError)
    return (error as Error).message
  }

  it.each(['SQL_ASCII', 'LATIN1'])(
    'has the encoding %s: nothing is applied, and it says how to make one',
    async (encoding) => {
      const name = `in_${encoding.toLowerCase()}`
      await run(store.server.url, `create database ${name} encoding '${encoding}' locale 'C' template template0`)
      const url = new URL(store.server.url)
      url.pathname = `/${name}`
      const message = await cannot(url.href)
      expect(message).toContain(`The database "${name}" has the encoding ${encoding}, and UTF8 is needed.`)
      expect(await run(url.href, tables)).toEqual([])
      const made = /create database .*?;/.exec(message)?.[0] ?? ''
      await run(store.server.url, made)
      url.pathname = `/${name}_utf8`
      expect(await migrate(url.href)).toHaveLength((await loadMigrations()).length)
    },
  )

  it('has a schema in which the role may not make tables: every grant that is missing is named, and is enough', async () => {
    const admin = await emptyDatabase()
    await makeRole(admin, 'poor migrator')
    await run(admin, 'revoke all on schema public from public')
    const url = asRole(admin, 'poor migrator')
    expect(await cannot(url)).toContain('askonce grants --migrator')
    await run(admin, 'grant usage on schema public to "poor migrator"')
    const message = await cannot(url)
    expect(message).toContain('grant create on schema "public" to "poor migrator";')
    expect(await run(admin, tables)).toEqual([])
    await run(admin, /grant create .*?;/.exec(message)?.[0] ?? '')
    expect(await migrate(url)).toHaveLength((await loadMigrations()).length)
  })

  it('has tables of another role: says whose, and a member of that role can', async () => {
    const admin = await emptyDatabase()
    await makeRole(admin, 'second migrator')
    await migrate(admin)
    await run(
      admin,
      'grant all on schema public to "second migrator"; grant select on schema_migrations to "second migrator"',
    )
    const url = asRole(admin, 'second migrator')
    expect(await migrate(url)).toEqual([])
    const latest = (await loadMigrations()).length
    await run(admin, `delete from schema_migrations where version = ${latest}`)
    const [owner] = await run(admin, 'select current_user::text as name')
    expect(await cannot(url)).toContain(`belong to "${String(owner?.['name'])}", and only their owner may change them`)
  })
})

describe('a database of another collation', () => {
  it('is migrated, and its keys are as ever bytes', async () => {
    const create = `create database turkish encoding 'UTF8' locale_provider icu icu_locale 'tr-TR' locale 'C' template template0`
    await run(store.server.url, create)
    const url = new URL(store.server.url)
    url.pathname = '/turkish'
    await migrate(url.href)
    const names = `insert into tenants (id) values ('i'), ('zz'), ('a-b') returning id`
    expect(await run(url.href, names)).toHaveLength(3)
    await expect(run(url.href, `insert into tenants (id) values ('\u0131')`)).rejects.toThrow('tenants_id_check')
  })
})

describe('assertSchema', () => {
  it('says what to run on an empty database, and writes nothing', async () => {
    const url = await emptyDatabase()
    const message = await refusal(assertSchema(url))
    expect(message).toContain('The database schema is missing (0001_init.sql')
    expect(message).toContain('Run: askonce migrate')
    expect(await run(url, tables)).toEqual([])
  })
})

describe('an older schema', () => {
  it('is refused with what is missing, and brought up to date without touching what is there', async () => {
    const url = await emptyDatabase()
    await migrate(url)
    await run(url, `insert into tenants (id) values ('kept')`)
    // To the version that comes after this one the schema of this one is the older one.
    const next = makeNextVersion('alter table tenants add column remark text;')
    const askonce = (...args: string[]): { status: number | null; text: string } => {
      const env = { PATH: process.env['PATH'], DATABASE_URL: url }
      const { status, stdout, stderr } = spawnSync(process.execPath, [next.program, ...args], { encoding: 'utf8', env })
      return { status, text: stdout + stderr }
    }
    onTestFinished(next.remove)
    const refused = askonce('sweep')
    expect(refused.text).toContain(
      `The database schema is older than this version (${next.migration} not applied). Run: askonce migrate`,
    )
    expect(refused.status).not.toBe(0)
    expect(askonce('migrate')).toMatchObject({ status: 0, text: expect.stringContaining(next.migration) as string })
    expect(askonce('sweep').status).toBe(0)
    expect(await run(url, `select id, remark from tenants where id = 'kept'`)).toHaveLength(1)
  }, 120_000)
})

describe('readDatabaseId', () => {
  it('is made by the migration, and stays', async () => {
    const url = await emptyDatabase()
    await migrate(url)
    const id = await readDatabaseId(url)
    expect(id).toMatch(/^[0-9a-f-]{36}$/)
    await migrate(url)
    expect(await readDatabaseId(url)).toBe(id)
    expect(await readDatabaseId(store.url)).not.toBe(id)
  })

  it('cannot be there twice', async () => {
    await expect(run(store.url, 'insert into settings default values')).rejects.toThrow('settings_pkey')
    await expect(run(store.url, 'insert into settings (only_row) values (false)')).rejects.toThrow('only_row')
  })
})
