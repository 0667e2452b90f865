import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { tlsAdvice } from '@askonce/address'
import { openDatabase } from '@askonce/store'
import { leakCheck, startTestPostgres, type TestDatabase, type TestPostgres } from '@askonce/testkit'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createAuthority, type Authority, type Certificate } from '../../certificates.ts'

let postgres: TestPostgres
let database: TestDatabase
let authority: Authority
let stranger: Authority
let good: Certificate

beforeAll(async () => {
  postgres = await startTestPostgres()
  database = await postgres.createDatabase()
  authority = createAuthority()
  stranger = createAuthority()
  good = authority.issue({ for: ['DNS:localhost'] })
})
afterAll(async () => {
  await postgres.stop()
  authority.remove()
  stranger.remove()
  await leakCheck()
})

/** Starts the server again with a certificate, and with the one rule that says who may connect how. */
async function serve(
  { cert, key }: Certificate,
  { rule = 'host all all all scram-sha-256', ssl = 'on' } = {},
): Promise<void> {
  // Its folder, wherever it is: the server stands in it.
  const folder = `/proc/${postgres.pid}/cwd`
  const settings = { ssl, ssl_cert_file: cert, ssl_key_file: authority.giveTo(folder, key), ssl_ca_file: authority.ca }
  const lines = Object.entries(settings).map(([name, value]) => `${name} = '${value}'\n`)
  writeFileSync(`${folder}/postgresql.auto.conf`, lines.join(''))
  writeFileSync(`${folder}/pg_hba.conf`, `${rule}\n`)
  await postgres.restart()
}

const addressOf = (query: string, host = 'localhost'): string => {
  const url = new URL(database.url)
  url.hostname = host
  url.search = query
  return url.href
}

/** Connects as the product does; what the server says of that session, or the error. */
async function seen(query: string, host?: string): Promise<{ ssl: boolean; client: string | null }> {
  return await seenAt(addressOf(query, host))
}

async function seenAt(url: string): Promise<{ ssl: boolean; client: string | null }> {
  const { db, close } = openDatabase({ url, name: 'tls test', poolSize: 1 })
  try {
    const { rows } = await sql<{ ssl: boolean; client: string | null }>`
      select ssl, client_dn as client from pg_stat_ssl where pid = pg_backend_pid()
    `.execute(db)
    return rows[0] as { ssl: boolean; client: string | null }
  } finally {
    await close()
  }
}

async function serverVersion(): Promise<number> {
  const { db, close } = openDatabase({ url: database.url, name: 'tls test', poolSize: 1 })
  try {
    const { rows } = await sql<{ major: number }>`
      select current_setting('server_version_num')::int / 10000 as major
    `.execute(db)
    return rows[0]?.major ?? 0
  } finally {
    await close()
  }
}

async function adviceOn(query: string, host?: string): Promise<string | null> {
  return await seen(query, host).then(
    () => 'connected',
    (error: unknown) => tlsAdvice(error, 'postgres'),
  )
}

describe('a server with a certificate of a private authority', () => {
  beforeAll(async () => await serve(good))

  it.each([
    ['', 'localhost', false],
    ['sslmode=disable', 'localhost', false],
    ['sslmode=require', '127.0.0.1', true],
    ['ssl=true', '127.0.0.1', true],
    ['sslmode=verify-ca&sslrootcert=CA', '127.0.0.1', true],
    ['sslmode=require&sslrootcert=CA', '127.0.0.1', true],
    ['sslmode=verify-full&sslrootcert=CA', 'localhost', true],
    ['sslmode=verify-full&sslrootcert=CA&channel_binding=require', 'localhost', true],
    ['sslmode=require&channel_binding=prefer', 'localhost', true],
  ])('%s to %s: encrypted is %s', async (query, host, encrypted) => {
    expect(await seen(query.replace('CA', authority.ca), host)).toEqual({ ssl: encrypted, client: null })
  })

  it('sslnegotiation=direct is encrypted from PostgreSQL 17 on, and fails at an older one', async () => {
    const query = `sslmode=verify-full&sslrootcert=${authority.ca}&sslnegotiation=direct`
    const outcome = await seen(query).catch((error: unknown) => (error as Error).message)
    const refused = expect.stringContaining('before secure TLS connection was established') as string
    expect(outcome).toEqual((await serverVersion()) >= 17 ? { ssl: true, client: null } : refused)
  })

  it.each([
    ['sslmode=verify-full', 'localhost', /not trusted here: set sslrootcert=\/path\/to\/ca.pem in DATABASE_URL/],
    ['sslmode=verify-full&sslrootcert=system', 'localhost', /not trusted here: set sslrootcert=/],
    ['sslmode=verify-full&sslrootcert=CA', '127.0.0.1', /is for another host: name the server in DATABASE_URL/],
    ['sslmode=verify-full&sslrootcert=STRANGER', 'localhost', /not trusted here/],
    ['sslmode=verify-ca&sslrootcert=STRANGER', 'localhost', /not trusted here/],
    ['sslmode=require&sslrootcert=STRANGER', 'localhost', /not trusted here/],
  ])('%s to %s is refused with what to set', async (query, host, advice) => {
    expect(await adviceOn(query.replace('CA', authority.ca).replace('STRANGER', stranger.ca), host)).toMatch(advice)
  })
})

describe('a server that asks for certificates', () => {
  const userOf = (): string => decodeURIComponent(new URL(database.url).username)

  it('gets the one of the address, beside a password or instead of it', async () => {
    const { cert, key } = authority.issue({ name: userOf() })
    const locked = authority.write(
      'locked.key',
      execFileSync('openssl', ['pkcs8', '-topk8', '-in', key, '-passout', 'pass:hunter2'], { encoding: 'utf8' }),
    )
    const trusted = `sslmode=verify-full&sslrootcert=${authority.ca}`
    for (const rule of ['hostssl all all all scram-sha-256 clientcert=verify-full', 'hostssl all all all cert']) {
      await serve(good, { rule })
      const client = `/CN=${userOf()}`
      expect(await seen(`${trusted}&sslcert=${cert}&sslkey=${key}`)).toEqual({ ssl: true, client })
      expect(await seen(`${trusted}&sslcert=${cert}&sslkey=${locked}&sslpassword=hunter2`)).toEqual({
        ssl: true,
        client,
      })
      expect(await adviceOn(trusted)).toMatch(/set sslcert=\/path\/to\/client.crt&sslkey=/)
      const foreign = stranger.issue({ name: userOf() })
      expect(await adviceOn(`${trusted}&sslcert=${foreign.cert}&sslkey=${foreign.key}`)).toMatch(
        /does not accept our certificate/,
      )
    }
    const withoutPassword = new URL(addressOf(`${trusted}&sslcert=${cert}&sslkey=${key}`))
    withoutPassword.password = ''
    expect(await seenAt(withoutPassword.href)).toMatchObject({ ssl: true })
  })
})

describe('what does not mend itself is said', () => {
  it.each([
    ['an expired certificate', () => authority.issue({ for: ['DNS:localhost'], days: -1 }), /has expired/],
    ['a self-signed one', () => ({ cert: stranger.ca, key: stranger.ca.replace('.pem', '.key') }), /not trusted here/],
  ])('%s', async (_name, certificate, advice) => {
    await serve(certificate())
    expect(await adviceOn(`sslmode=verify-full&sslrootcert=${authority.ca}`)).toMatch(advice)
    expect(await adviceOn('sslmode=require')).toBe('connected')
  })

  it('a server that wants TLS, and an address that does not ask for it', async () => {
    await serve(good, { rule: 'hostssl all all all scram-sha-256' })
    expect(await adviceOn('')).toMatch(/asks for TLS: add \?sslmode=verify-full to DATABASE_URL, or \?sslmode=require/)
  })

  it('a server without TLS', async () => {
    await serve(good, { ssl: 'off' })
    expect(await adviceOn('sslmode=require')).toMatch(/does not speak TLS there: set sslmode=disable/)
  })
})
