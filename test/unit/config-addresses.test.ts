import { ConfigError, configTable, loadConfig } from '@askonce/config'
import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'

// A password never shows, whatever it holds, encoded or not, in whatever address.
const marks = ['#', '/', '?', '@', ':', '%', ' ', '/1/', '#@', '?a=', '&']
const [left, right] = ['lefthalf', 'righthalf']

/** Every address that may hold a password, with a port where nobody listens. */
const addresses = (password: string): Record<string, string>[] => [
  { DATABASE_URL: `postgres://someone:${password}@127.0.0.1:1/d`, REDIS_URL: `redis://:${password}@127.0.0.1:1/0` },
  {
    DATABASE_URL: `postgres://127.0.0.1:1/d?user=someone&password=${password}`,
    REDIS_URL: `redis+cluster://u:${password}@127.0.0.1:1`,
  },
  {
    DATABASE_URL: `postgres://someone:${password}@127.0.0.1:1/d`,
    DATABASE_DIRECT_URL: `postgres://someone:${password}@127.0.0.1:2/d`,
    REDIS_URL: `redis+sentinel://:${password}@127.0.0.1:1/m?sentinel_password=${password}`,
  },
  { DATABASE_URL: 'postgres://127.0.0.1:1/d', PGUSER: 'someone', PGPASSWORD: password },
  { OPENAI_BASE_URL: `https://someone:${password}@127.0.0.1:1/v1`, ASKONCE_URL: `http://x:${password}@127.0.0.1:1` },
  { OPENAI_BASE_URL: `http://127.0.0.1:1/v1?key=${password}`, ANTHROPIC_BASE_URL: `http://127.0.0.1:1/#${password}` },
]

/** All that a command could print of a configuration. */
function printed(env: Record<string, string>): string {
  const table = JSON.stringify(configTable(env))
  try {
    return table + inspect(loadConfig(env), { depth: 9, showHidden: true }) + JSON.stringify(loadConfig(env))
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return table + inspect(error) + error.message
  }
}

describe('a password in an address is not printed', () => {
  it.each(marks.flatMap((mark) => [[`${left}${mark}${right}`], [`${mark}${right}`], [`${left}${mark}`]]))(
    '%j',
    (password) => {
      for (const env of [...addresses(password), ...addresses(encodeURIComponent(password))]) {
        expect(printed(env), JSON.stringify(env)).not.toMatch(/lefthalf|righthalf/)
      }
    },
  )
})

describe('the variables of libpq', () => {
  const urlOf = (env: Record<string, string>): string | undefined => loadConfig(env).database.url?.reveal()

  it('complete an address, and change nothing that it says', () => {
    const env = { PGHOST: 'h', PGPORT: '6432', PGUSER: 'u@x', PGPASSWORD: 'p#/', PGDATABASE: 'd', PGSSLMODE: 'require' }
    expect(urlOf({ DATABASE_URL: 'postgres://', ...env })).toBe(
      'postgres://?host=h&port=6432&user=u%40x&password=p%23%2F&dbname=d&sslmode=require',
    )
    expect(urlOf({ DATABASE_URL: 'postgres://me:pw@other:1/mine?sslmode=disable', ...env })).toBe(
      'postgres://me:pw@other:1/mine?sslmode=disable',
    )
    expect(loadConfig(env).database).toMatchObject({ url: null, unread: Object.keys(env) })
  })

  it('are named where they make an address that is refused', () => {
    expect(() => urlOf({ DATABASE_URL: 'postgres://h/d', PGSSLMODE: 'prefer' })).toThrow(
      /DATABASE_URL, completed by PGSSLMODE, is not as needed: expected sslmode=disable/,
    )
    expect(() => urlOf({ DATABASE_URL: 'postgres://h/d', PGOPTIONS: '-c synchronous_commit=off' })).toThrow(
      /synchronous_commit/,
    )
  })

  it('of files mean something only with TLS', () => {
    const files = { PGSSLROOTCERT: '/nowhere/ca.pem' }
    expect(urlOf({ DATABASE_URL: 'postgres://h/d', ...files })).toBe('postgres://h/d')
    expect(() => urlOf({ DATABASE_URL: 'postgres://h/d?sslmode=verify-full', ...files })).toThrow(
      /\/nowhere\/ca.pem, which cannot be read/,
    )
  })
})

describe('what does not go together', () => {
  const problemOf = (env: Record<string, string>) => () => loadConfig(env)

  it('settings in the address of a pooler', () => {
    const direct = { DATABASE_DIRECT_URL: 'postgres://h/d?options=-csearch_path%3Dapp' }
    expect(problemOf({ DATABASE_URL: 'postgres://pooler/d?options=-csearch_path%3Dapp', ...direct })).toThrow(
      /alter role … set search_path/,
    )
    expect(problemOf({ DATABASE_URL: 'postgres://pooler/d', ...direct, PGOPTIONS: '-c work_mem=8MB' })).toThrow(
      /alter role … set work_mem/,
    )
    expect(problemOf({ DATABASE_URL: 'postgres://pooler/d', ...direct })).not.toThrow()
  })

  it('files of a TLS that Redis is not asked for, and half a client certificate', () => {
    expect(problemOf({ ASKONCE_REDIS_CA_FILE: '/ca.pem' })).toThrow(/REDIS_URL does not ask for TLS/)
    expect(problemOf({ ASKONCE_REDIS_CA_FILE: '/ca.pem', REDIS_URL: 'redis://h' })).toThrow(/begins with rediss/)
    expect(problemOf({ ASKONCE_REDIS_CERT_FILE: '/c', REDIS_URL: 'rediss://h' })).toThrow(/expected both, or neither/)
    expect(problemOf({ ASKONCE_REDIS_CA_FILE: '/nowhere.pem', REDIS_URL: 'rediss+cluster://h' })).toThrow(
      /ASKONCE_REDIS_CA_FILE names \/nowhere.pem, which cannot be read/,
    )
  })
})
