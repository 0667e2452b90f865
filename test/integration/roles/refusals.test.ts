import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startSystem, type System } from '../../fault/system.ts'
import { asRole } from '../../migrated-database.ts'

// A process that cannot work says what and where, and what to do; it changes nothing.
describe('what a role refuses to start with', () => {
  let system: System
  beforeAll(async () => {
    system = await startSystem('embedded')
  })
  afterAll(() => system.stop())

  const refused = async (role: string, env: Record<string, string>): Promise<{ code: number | null; text: string }> => {
    const child = system.spawn(role, env)
    const { code } = await child.exited
    return { code, text: child.stderr.join('\n') }
  }

  test.each(['api', 'worker', 'janitor'])(
    '%s: a database without our schema, which it does not create',
    async (role) => {
      const empty = await system.postgres.createDatabase()
      expect(await refused(role, { DATABASE_URL: empty.url })).toEqual({
        code: 1,
        text: expect.stringMatching(
          /^askonce: The database schema is missing \(0001_init\.sql not applied\)\. Run: askonce migrate$/,
        ) as string,
      })
      await empty.drop()
    },
  )

  test('a schema that is newer than the program, and BullMQ’s when it is missing', async () => {
    await system.sql(`insert into schema_migrations (version, name, checksum) values (9999, '9999_later.sql', 'x')`)
    const newer = await refused('worker', {})
    expect([newer.code, newer.text]).toEqual([
      1,
      expect.stringContaining('9999_later.sql, which this version does not know'),
    ])
    await system.sql('delete from schema_migrations where version = 9999')
    await system.sql('alter schema bullmq rename to elsewhere')
    const without = await refused('worker', {})
    expect([without.code, without.text]).toEqual([1, expect.stringContaining('Run: askonce migrate')])
    await system.sql('alter schema elsewhere rename to bullmq')
  })

  test('a typo in the configuration, and a database address that is none, reported together', async () => {
    const { code, text } = await refused('worker', { ASKONCE_CONCURENCY: '5', DATABASE_URL: 'mysql://here' })
    expect(code).toBe(2)
    expect(text).toContain('ASKONCE_CONCURENCY')
    expect(text).toContain('ASKONCE_CONCURRENCY')
    expect(text).toContain('DATABASE_URL')
  })

  test('a password that Postgres refuses', async () => {
    const url = new URL(system.database.url)
    url.password = 'wrong'
    const { code, text } = await refused('janitor', { DATABASE_URL: url.href })
    expect([code, text]).toEqual([1, expect.stringMatching(/password authentication failed.*DATABASE_URL/)])
  })

  test('a database that is not there, and a role that may not connect: each with what helps', async () => {
    const url = new URL(system.database.url)
    url.pathname = '/nowhere'
    const absent = await refused('worker', { DATABASE_URL: url.href })
    expect([absent.code, absent.text]).toEqual([
      1,
      expect.stringMatching(/database "nowhere" does not exist\. Create it \(create database .*UTF8/) as string,
    ])
    await system.sql(`create role stranger login password 'stranger'`)
    await system.sql('revoke connect on database test_1 from public')
    const stranger = await refused('worker', { DATABASE_URL: asRole(system.database.url, 'stranger') })
    expect([stranger.code, stranger.text]).toEqual([
      1,
      expect.stringMatching(/permission denied for database.*askonce grants --role/) as string,
    ])
    await system.sql('grant connect on database test_1 to public')
    const poor = await refused('worker', { DATABASE_URL: asRole(system.database.url, 'stranger') })
    expect([poor.code, poor.text]).toEqual([
      1,
      expect.stringMatching(/permission denied for table schema_migrations.*askonce grants --role/) as string,
    ])
    await system.sql('revoke usage on schema public from public')
    const blind = await refused('worker', { DATABASE_URL: asRole(system.database.url, 'stranger') })
    expect([blind.code, blind.text]).toEqual([
      1,
      expect.stringMatching(
        /There are tables of Askonce in the schema "public", which the role "stranger" may not use \(.*askonce grants --role stranger/,
      ) as string,
    ])
    await system.sql('grant usage on schema public to public')
  })

  test('a port in use', async () => {
    const server = createServer()
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const { code, text } = await refused('api', { PORT: String(port) })
    expect([code, text]).toEqual([1, expect.stringContaining(`127.0.0.1:${port} is in use`)])
    server.close()
  })
})
