import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { groundSettings } from '@askonce/address'
import { sessionSettings } from '@askonce/store'
import { startTestPostgres } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createAuthority, type Authority } from '../../certificates.ts'
import { runCli } from '../../cli/run-cli.ts'
import { startSystem, type System } from '../../fault/system.ts'

// What an address says, asked of the sessions that whole processes make, and what they say of one that cannot be used.
let system: System
let authority: Authority
let folder: string
let url: URL

beforeAll(async () => {
  system = await startSystem('embedded')
  authority = createAuthority()
  folder = mkdtempSync(join(tmpdir(), 'askonce-addresses-'))
  url = new URL(system.database.url)
})
afterAll(async () => {
  await system.stop()
  authority.remove()
  rmSync(folder, { recursive: true, force: true })
})

const withQuery = (query: string): string => `${url.href}?${query}`

/** Runs a command that ends; the data directory is a new one. */
const run = (args: string[], env: Record<string, string>) =>
  runCli(args, { env: { ASKONCE_DATA_DIR: join(folder, 'data'), ...env } })

interface Doctor {
  checks: { name: string; status: string; detail: string; todo: string | null }[]
}
async function doctor(env: Record<string, string>): Promise<(name: string) => Doctor['checks'][number] | undefined> {
  const { stdout } = await run(['doctor', '--json'], env)
  const { checks } = JSON.parse(stdout) as Doctor
  return (name) => checks.find((check) => check.name === name)
}

describe('settings of sessions', { timeout: 180_000 }, () => {
  const hostile = {
    default_transaction_isolation: 'serializable',
    standard_conforming_strings: 'off',
    array_nulls: 'off',
    bytea_output: 'escape',
    DateStyle: 'German, DMY',
    synchronous_commit: 'off',
    lock_timeout: '0',
    statement_timeout: '0',
  }

  test('those of the address are added to ours, whatever the role and the database have by default', async () => {
    const role = decodeURIComponent(url.username)
    for (const [name, value] of Object.entries(hostile)) {
      await system.sql(`alter role ${role} set ${name} = '${value}'`)
      await system.sql(`alter database ${system.database.name} set ${name} = '${value}'`)
    }
    const worker = await system.started('worker', { DATABASE_URL: withQuery('options=-csearch_path%3Dapp%2Cpublic') })
    const { openDatabase } = await import('@askonce/store')
    const { db, close } = openDatabase({
      url: withQuery('options=-csearch_path%3Dapp%2Cpublic'),
      name: 'look',
      poolSize: 1,
    })
    try {
      const { sql } = await import('kysely')
      const names = [...Object.keys(sessionSettings), 'search_path']
      const { rows } = await sql<{ name: string; setting: string }>`
        select name, setting from pg_settings where name = any (${names})
      `.execute(db)
      const settings = Object.fromEntries(rows.map(({ name, setting }) => [name, setting]))
      expect(settings).toEqual({ ...sessionSettings, search_path: 'app,public' })
      expect(sessionSettings).toMatchObject(groundSettings)
    } finally {
      await close()
      for (const name of Object.keys(hostile)) {
        await system.sql(`alter role ${role} reset ${name}`)
        await system.sql(`alter database ${system.database.name} reset ${name}`)
      }
    }
    expect(worker.stderr).toEqual([])
    await worker.kill()
  })

  test.each([
    ['options=-csynchronous_commit%3Doff', /synchronous_commit too/],
    ['statement_timeout=0', /without statement_timeout: Askonce sets its own limits/],
    ['query_timeout=1', /without query_timeout: Askonce sets its own limits/],
    ['sslmode=bogus', /expected sslmode=disable, require/],
  ])('an address with %s starts nothing', async (query, words) => {
    const { code, stderr } = await run(['start'], { DATABASE_URL: withQuery(query) })
    expect([code, stderr]).toEqual([2, expect.stringMatching(words)])
  })
})

describe('a login', { timeout: 180_000 }, () => {
  test('without a password says so, and one of ~/.pgpass is used without a warning', async () => {
    const bare = new URL(url)
    bare.password = ''
    const env = { DATABASE_URL: bare.href, HOME: folder }
    const { code, stderr } = await run(['migrate'], env)
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/PostgreSQL asks for a password, and DATABASE_URL has none/),
    ])
    expect(stderr).not.toMatch(/left open|SASL/)
    expect((await doctor(env))('postgres')?.detail).toMatch(/refuses: PostgreSQL asks for a password/)
    writeFileSync(join(folder, '.pgpass'), `*:*:*:*:${decodeURIComponent(url.password)}\n`, { mode: 0o600 })
    expect(await run(['migrate'], env)).toMatchObject({ code: 0, stderr: '' })
  })

  test('that asks for a role which it may not have is refused with its name', async () => {
    const env = { DATABASE_URL: withQuery('options=-crole%3Dno_such_role') }
    expect((await doctor(env))('postgres')?.detail).toMatch(/refuses: .*no_such_role/)
  })

  test('for replication is none of ours', async () => {
    const { code, stderr } = await run(['migrate'], { DATABASE_URL: url.href, PGREPLICATION: 'database' })
    expect([code, stderr]).toEqual([2, expect.stringMatching(/PGREPLICATION is set.*Unset it/)])
  })
})

describe('TLS', { timeout: 180_000 }, () => {
  let verified: string
  beforeAll(async () => {
    const at = `/proc/${system.postgres.pid}/cwd`
    const { cert, key } = authority.issue({ for: ['DNS:localhost'] })
    const settings = { ssl: 'on', ssl_cert_file: cert, ssl_key_file: authority.giveTo(at, key) }
    const lines = Object.entries(settings).map(([name, value]) => `${name} = '${value}'\n`)
    writeFileSync(`${at}/postgresql.auto.conf`, lines.join(''))
    await system.postgres.restart()
    url.hostname = 'localhost'
    verified = `sslmode=verify-full&sslrootcert=${authority.ca}`
  })
  afterAll(() => (url.hostname = '127.0.0.1'))

  test('every session of every role is encrypted, BullMQ’s too, and nothing warns', async () => {
    const env = { DATABASE_URL: withQuery(verified) }
    const { child: api } = await system.api(env)
    const roles = [api, await system.started('worker', env), await system.started('janitor', env)]
    const sessions = await system.sql<{ name: string; ssl: boolean }>(
      `select application_name as name, bool_and(ssl) as ssl from pg_stat_activity join pg_stat_ssl using (pid)
       where application_name like '%askonce%' group by 1`,
    )
    expect(sessions.length).toBeGreaterThan(4)
    expect(sessions.map(({ name }) => name)).toContain('askonce queue')
    expect(sessions.filter(({ ssl }) => !ssl)).toEqual([])
    for (const role of roles) expect(role.stderr).toEqual([])
    await Promise.all(roles.map((role) => role.kill()))
    const migrated = await run(['migrate'], env)
    expect([migrated.code, migrated.stderr]).toEqual([0, ''])
  })

  test('a certificate that does not verify ends every command with what to set', async () => {
    const env = { DATABASE_URL: withQuery('sslmode=verify-full') }
    const ended = await Promise.all(['worker', 'migrate', 'start'].map((command) => run([command], env)))
    for (const { code, stderr } of ended) {
      expect([code, stderr]).toEqual([
        1,
        expect.stringMatching(/not trusted here: set sslrootcert=\/path\/to\/ca.pem in DATABASE_URL/),
      ])
    }
    const check = (await doctor(env))('postgres')
    expect(check).toMatchObject({ status: 'problem', todo: expect.stringContaining('set sslrootcert=') as string })
  })

  test('the authorities that Node trusts are those of sslrootcert=system', async () => {
    const env = { DATABASE_URL: withQuery('sslmode=verify-full&sslrootcert=system'), NODE_EXTRA_CA_CERTS: authority.ca }
    expect((await doctor(env))('postgres')).toMatchObject({ status: 'ok' })
  })

  test('a file that cannot be used is named before anything is connected', async () => {
    const empty = authority.write('empty.pem', '')
    const cases = [
      [
        'sslmode=verify-full&sslrootcert=/nowhere/ca.pem',
        /sslrootcert names \/nowhere\/ca.pem, which cannot be read \(ENOENT\)/,
      ],
      [
        `sslmode=verify-full&sslrootcert=${empty}`,
        /sslrootcert names .*empty.pem, which holds no certificate in PEM format/,
      ],
      [`sslmode=require&sslcert=${authority.ca}&sslkey=${empty}`, /which are not a certificate and its key/],
    ] as const
    for (const [query, words] of cases) {
      const { code, stderr } = await run(['migrate'], { DATABASE_URL: withQuery(query) })
      expect([code, stderr]).toEqual([2, expect.stringMatching(words)])
    }
  })
})

describe('the variables of libpq', { timeout: 180_000 }, () => {
  const variables = (): Record<string, string> => ({
    PGHOST: url.hostname,
    PGPORT: url.port,
    PGUSER: url.username,
    PGPASSWORD: url.password,
    PGDATABASE: url.pathname.slice(1),
  })

  test('are the server of DATABASE_URL=postgres://, and never show the password', async () => {
    const env = { DATABASE_URL: 'postgres://', ...variables() }
    const { code, stdout } = await run(['migrate'], env)
    expect([code, stdout]).toEqual([0, expect.stringMatching(/^The schema is up to date/)])
    const { stdout: report } = await run(['doctor', '--json'], env)
    expect(report).toContain(`postgres://${url.username}:[redacted]@${url.host}${url.pathname}`)
    expect(report).not.toContain(url.password)
  })

  test('connect nobody without it: who sets them is told so', async () => {
    const ended = await Promise.all(['worker', 'migrate'].map((command) => run([command], variables())))
    for (const { code, stderr } of ended) {
      expect([code, stderr]).toEqual([
        2,
        expect.stringMatching(
          /PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE are set and not read.*DATABASE_URL=postgres:\/\//,
        ),
      ])
    }
    expect((await doctor(variables()))('database')).toMatchObject({
      status: 'warn',
      todo: expect.stringContaining('PGHOST') as string,
    })
    const start = system.spawn('start', {
      DATABASE_URL: '',
      REDIS_URL: '',
      ...variables(),
      PGSSLMODE: 'require',
      PGOPTIONS: '-c fsync=nonsense',
    })
    await start.waitForLine(/PGOPTIONS, PGSSLMODE are set and not read without DATABASE_URL/, 60_000)
    start.signal('SIGTERM')
    expect((await start.exited).code).toBe(0)
  })
})

describe('a socket of this machine', { timeout: 180_000 }, () => {
  test('carries whole processes, in either way to write it', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'askonce-socket-'))
    // The server may run as another user.
    chmodSync(directory, 0o777)
    const postgres = await startTestPostgres({ settings: { unix_socket_directories: directory } })
    try {
      const { username, password, port } = new URL(postgres.url)
      const ended = await Promise.all(
        [
          `postgres://${username}:${password}@/postgres?host=${directory}&port=${port}`,
          `postgres://${username}:${password}@${encodeURIComponent(directory)}:${port}/postgres`,
        ].map((address) => run(['migrate'], { DATABASE_URL: address, PGHOST: '127.0.0.1', PGPORT: '1' })),
      )
      for (const { code, stdout } of ended)
        expect([code, stdout]).toEqual([0, expect.stringMatching(/Applied|up to date/)])
    } finally {
      await postgres.stop()
      rmSync(directory, { recursive: true, force: true })
    }
  })
})
