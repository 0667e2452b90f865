import { userInfo } from 'node:os'
import { parsePostgresUrl, postgresParts, showPostgresAddress } from '@askonce/address'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

const valueOf = (given: string) => {
  const parsed = parsePostgresUrl(given)
  if ('expected' in parsed) throw new Error(parsed.expected)
  return parsed.value
}
const refusalOf = (given: string): string => {
  const parsed = parsePostgresUrl(given)
  return 'expected' in parsed ? parsed.expected : ''
}
const settingsOf = (options: string): Record<string, string> =>
  Object.fromEntries(valueOf(`postgres://h/d?options=${encodeURIComponent(options)}`).settings)

describe('an address of PostgreSQL', () => {
  it.each([
    ['postgres://', { host: 'localhost', port: 5432, user: null, password: null, database: null }],
    ['postgresql://u:p@h:5433/d', { host: 'h', port: 5433, user: 'u', password: 'p', database: 'd' }],
    ['postgres://u:p:q@h/d', { user: 'u', password: 'p:q' }],
    ['postgres://us%20er:p%23%2F%3F%40%3A%25%20@h/d%2Fe%3F', { user: 'us er', password: 'p#/?@:% ', database: 'd/e?' }],
    ['postgres://[::1]:5433/d', { host: '::1', port: 5433 }],
    ['postgres://db_1.internal/d', { host: 'db_1.internal' }],
    ['postgres://u@/d?host=/run/postgresql', { host: '/run/postgresql', port: 5432, user: 'u', database: 'd' }],
    ['postgres:///d?host=/run/postgresql&port=5433', { host: '/run/postgresql', port: 5433 }],
    ['postgres://%2Frun%2Fpostgresql:5433/d', { host: '/run/postgresql', port: 5433 }],
    ['postgres://?host=h&port=1&user=u&password=p%26&dbname=d', { host: 'h', port: 1, user: 'u', password: 'p&' }],
    ['postgres://h/d?target_session_attrs=read-write&gssencmode=prefer&uselibpqcompat=true', { tls: null }],
  ])('is read: %s', (given, parts) => {
    expect(valueOf(given)).toMatchObject(parts)
  })

  it.each([
    // Ports and texts that no server has.
    ['postgres://h:0/d', /port from 1 to 65535/],
    ['postgres://h:65536/d', /port from 1 to 65535/],
    ['postgres://h/d?port=x', /port from 1 to 65535/],
    ['postgres://h/d%00', /percent-encode/],
    [`postgres://u:${'x'.repeat(10_000)}@h/d`, /percent-encode/],
    ['postgres://h/d?host=other', /the host and the port once/],
    ['postgres://u@h/d?user=other', /each name once/],
    ['postgres://h/d?sslmode=require&sslmode=disable', /each name once/],
    ['postgres://h/d?options=-c+search_path%3Da', /in a value \+ and & too/],
    // Several servers.
    [
      'postgres://u:p@h1:5432,h2:5432/d?target_session_attrs=read-write',
      /^one host: give the address that leads to the primary/,
    ],
    ['postgres:///d?host=h1,h2', /^one host/],
    ['postgres://h/d?target_session_attrs=prefer-standby', /Askonce works on the primary/],
    // What would take the place of ours.
    ['postgres://h/d?statement_timeout=0', /without statement_timeout: Askonce sets its own limits/],
    ['postgres://h/d?query_timeout=1', /without query_timeout: Askonce sets its own limits/],
    ['postgres://h/d?lock_timeout=0', /without lock_timeout/],
    ['postgres://h/d?max=1', /ASKONCE_DATABASE_POOL/],
    ['postgres://h/d?application_name=x', /names its connections itself/],
    ['postgres://h/d?client_encoding=latin1', /always UTF8/],
    ['postgres://h/d?replication=true', /an ordinary session/],
    ['postgres://h/d?connect_timeout=15', /without connect_timeout: a connection is given 5 s/],
    ['postgres://h/d?foo=1', /without foo, which is not known here/],
    // What other programs and providers write.
    [
      'postgres://h/d?pgbouncer=true&connection_limit=1',
      /without pgbouncer: only Prisma reads it.*DATABASE_DIRECT_URL/,
    ],
    ['postgres://h/d?schema=app', /options=-csearch_path/],
    ['postgres://h/d?search_path=app', /without search_path: write options=-csearch_path/],
    ["psql 'postgres://h/d'", /without quotes, psql or jdbc: before it/],
    ['postgres://h/d?sslmode=require&supa=base-pooler.x', /without supa: only Supabase/],
    ['postgres://h/d?options=endpoint%3Dep-cool-name', /TLS tells the provider the host name/],
    ['postgres://h/d?options=project%3Dep-cool-name', /TLS tells the provider the host name/],
  ])('is refused in its own words: %s', (given, words) => {
    expect(refusalOf(given)).toMatch(words)
  })

  it.each(['#', '/', '?', '@', '%', ' '])(
    'is refused and not repeated with a %j in its password that nobody encoded',
    (mark) => {
      for (const password of [
        `left${mark}right`,
        `left${mark}`,
        `${mark}right`,
        `l${mark}${mark}r`,
        `left${mark}12/right`,
      ]) {
        const given = `postgres://someone:${password}@h/d`
        expect(refusalOf(given)).toMatch(/percent-encode/)
        expect(refusalOf(given)).not.toMatch(/left|right|someone/)
        expect(refusalOf(`postgres://h/d?sslmode=require&password=${password}@`)).not.toMatch(/left|right/)
      }
    },
  )

  it('says no name out of a query that holds a password: it may be a piece of it', () => {
    expect(refusalOf('postgres://u@h/d?password=left&right=1')).toMatch(/without unknown parameters/)
    expect(refusalOf('postgres://u@h/d?password=left&right=1')).not.toContain('right')
  })

  it('brings any user, password and database to the driver, and shows no password', () => {
    const text = fc
      .string({ unit: 'binary', minLength: 1, maxLength: 40 })
      .filter((each) => !each.includes('\0') && each.isWellFormed())
    fc.assert(
      fc.property(text, text, text, (user, password, database) => {
        const [u, p, d] = [user, password, database].map(encodeURIComponent)
        const url = `postgres://${u}:${p}@h/${d}`
        expect(postgresParts(url, null)).toMatchObject({ user, password, database })
        expect(showPostgresAddress(valueOf(url))).toBe(`postgres://${u}:[redacted]@h:5432/${d}`)
      }),
    )
  })

  it('leaves nothing to the variables that pg reads by itself', () => {
    const { username } = userInfo()
    expect(postgresParts('postgres://', { a: 'b c', d: '\\' })).toEqual({
      host: 'localhost',
      port: 5432,
      user: username,
      database: username,
      password: expect.any(Function) as unknown,
      ssl: false,
      sslnegotiation: 'postgres',
      enableChannelBinding: false,
      client_encoding: 'UTF8',
      options: String.raw`-c a=b\ c -c d=\\`,
    })
  })
})

describe('options', () => {
  it('are read as the server reads them', () => {
    const given = String.raw`-c search_path=app,\ public -cwork_mem=64MB  --maintenance-work-mem=1GB --TimeZone=Asia/Tokyo`
    expect(settingsOf(given)).toEqual({
      search_path: 'app, public',
      work_mem: '64MB',
      maintenance_work_mem: '1GB',
      timezone: 'Asia/Tokyo',
    })
  })

  it.each([
    'synchronous_commit',
    'lock_timeout',
    'statement_timeout',
    'idle_in_transaction_session_timeout',
    'transaction_timeout',
    'default_transaction_isolation',
    'default_transaction_read_only',
    'session_replication_role',
    'fsync',
    'enable_seqscan',
    'plan_cache_mode',
    'standard_conforming_strings',
    'bytea_output',
    'datestyle',
    'client_encoding',
    'array_nulls',
    'app.tenant',
  ])('may not set %s, in any spelling', (name) => {
    for (const form of [
      `-c ${name}=off`,
      `-c${name}=off`,
      `--${name}=off`,
      `--${name.toUpperCase()}=off`,
      `--${name.replaceAll('_', '-')}=off`,
    ]) {
      expect(() => settingsOf(form), form).toThrow(/options that set nothing but search_path/)
    }
    expect(() => settingsOf(`-c work_mem=1MB -c ${name}=off`)).toThrow(name)
  })

  it.each(['-F', '-f s', '-B 100', '-c', '-c work_mem', 'work_mem=1', '-o x', '-E', "-c 'work_mem=1'"])(
    'may be nothing but settings: %s',
    (form) => {
      expect(() => settingsOf(form)).toThrow(/-c name=value/)
    },
  )
})

describe('TLS of PostgreSQL, as libpq means it', () => {
  const tlsOf = (query: string) => valueOf(`postgres://h/d?${query}`).tls

  it.each([
    ['', null],
    ['sslmode=disable', null],
    ['sslmode=require', { mode: 'require', files: { ca: null, client: null } }],
    ['ssl=true', { mode: 'require' }],
    [
      'sslmode=require&sslrootcert=/ca.pem',
      { mode: 'verify-ca', files: { ca: { path: '/ca.pem', from: 'sslrootcert' } } },
    ],
    ['sslmode=verify-full', { mode: 'verify-full', files: { ca: null } }],
    ['sslmode=verify-full&sslrootcert=system', { mode: 'verify-full', files: { ca: null } }],
    ['sslmode=require&sslnegotiation=direct', { negotiation: 'direct' }],
    ['sslmode=require&channel_binding=prefer', { mode: 'require', channelBinding: true }],
    ['sslmode=verify-full&channel_binding=require', { mode: 'verify-full', channelBinding: true }],
  ])('%s', (query, tls) => {
    expect({ tls: tlsOf(query) }).toMatchObject({ tls })
  })

  it('does not encrypt a socket of this machine', () => {
    expect(tlsOf('sslmode=disable')).toBeNull()
    expect(valueOf('postgres:///d?host=/run/postgresql&sslmode=require').tls).toBeNull()
  })

  it.each([
    ['sslmode=bogus', /^sslmode=disable, require/],
    ['sslmode=prefer', /fall back to a connection without encryption/],
    ['sslmode=allow', /fall back to a connection without encryption/],
    ['sslmode=no-verify', /^sslmode=disable, require/],
    ['ssl=1', /sslmode=disable, require/],
    ['ssl=no-verify', /sslmode=disable, require/],
    ['ssl=true&sslmode=disable', /sslmode=disable, require/],
    ['sslmode=verify-ca', /sslrootcert=\/path\/to\/ca.pem beside sslmode=verify-ca/],
    ['sslmode=require&sslrootcert=system', /sslmode=verify-full beside sslrootcert=system/],
    ['sslrootcert=/ca.pem', /sslmode=verify-full beside sslrootcert/],
    ['sslcert=/c&sslkey=/k', /sslmode=verify-full beside/],
    ['sslmode=require&sslcert=/c', /sslcert and sslkey together/],
    ['sslmode=require&channel_binding=require', /^sslmode=verify-full where channel_binding=require is asked for/],
    ['sslmode=require&channel_binding=bogus', /channel_binding=disable, prefer or require/],
    ['gssencmode=require', /encrypted by TLS/],
  ])('refuses %s', (query, words) => {
    expect(refusalOf(`postgres://h/d?${query}`)).toMatch(words)
  })
})
