import { redisAddress } from '@askonce/address'
import { ConfigError, loadConfig } from '@askonce/config'
import { describe, expect, it } from 'vitest'

const problemOf = (given: string): string => {
  try {
    loadConfig({ REDIS_URL: given })
  } catch (error) {
    if (error instanceof ConfigError) return error.problems.join('\n')
    throw error
  }
  return ''
}

describe('REDIS_URL', () => {
  it('names one server, as it always did', () => {
    expect(redisAddress('rediss://:p%40ss@cache:6380/2')).toEqual({
      kind: 'redis',
      server: { host: 'cache', port: 6380 },
      db: 2,
      family: 0,
      login: { tls: true, password: 'p@ss' },
    })
  })

  it.each([
    ['redis+cluster://a', [{ host: 'a', port: 6379 }], { tls: false }],
    [
      'redis+cluster://a:1,b:2,[::1]:3/0',
      [
        { host: 'a', port: 1 },
        { host: 'b', port: 2 },
        { host: '::1', port: 3 },
      ],
      { tls: false },
    ],
    ['rediss+cluster://me:p%40s%3As@a:1/', [{ host: 'a', port: 1 }], { tls: true, username: 'me', password: 'p@s:s' }],
    ['redis+cluster://:p:q@a', [{ host: 'a', port: 6379 }], { tls: false, password: 'p:q' }],
  ])('names a cluster by some of its nodes: %s', (given, nodes, login) => {
    expect(redisAddress(given)).toEqual({ kind: 'redis-cluster', nodes, login })
    expect(problemOf(given)).toBe('')
  })

  it('names the primary that the sentinels know, with a login for the servers and one for the sentinels', () => {
    expect(redisAddress('redis+sentinel://a,b:2/mymaster')).toEqual({
      kind: 'redis-sentinel',
      sentinels: [
        { host: 'a', port: 26_379 },
        { host: 'b', port: 2 },
      ],
      primary: 'mymaster',
      db: 0,
      login: { tls: false },
      sentinelLogin: {},
    })
    const given = 'rediss+sentinel://u:p@a/my.master-1/3?sentinel_username=s&sentinel_password=%26t'
    expect(redisAddress(given)).toMatchObject({
      primary: 'my.master-1',
      db: 3,
      login: { tls: true, username: 'u', password: 'p' },
      sentinelLogin: { username: 's', password: '&t' },
    })
    expect(problemOf(given)).toBe('')
  })

  it.each([
    ['redis+cluster://', /expected redis\+cluster:.*at least one node/],
    ['redis://a:1,b:2', /expected redis:\/\/.* or redis\+cluster:/],
    ['redis+clusters://a', /or redis\+cluster:/],
    ['redis+cluster://a,,b', /expected redis\+cluster:.*at least one node/],
    ['redis+cluster://a:99999', /expected redis\+cluster:/],
    ['redis+cluster://a/1', /a cluster has database 0 only/],
    ['redis+cluster://a?db=0', /expected redis\+cluster:/],
    ['redis+cluster://%zz@a', /percent-encode/],
    ['redis+sentinel://a:1', /expected redis\+sentinel:.*the name that they know the primary by/],
    ['redis+sentinel://a:1/', /the name that they know the primary by/],
    ['redis+sentinel://a/m/x', /expected redis\+sentinel:/],
    ['redis+sentinel://a b/m', /percent-encode/],
    ['redis+sentinel://a/m?password=x', /the only options/],
  ])('is refused with what was expected: %s', (given, message) => {
    expect(problemOf(given)).toMatch(/^REDIS_URL is set, but not as needed: /)
    expect(problemOf(given)).toMatch(message)
  })

  it('prints without its passwords, and with everything else', () => {
    const shown = (given: string): string => String(loadConfig({ REDIS_URL: given }).redis.url)
    expect(shown('redis+cluster://me:hunter2@a:1,b:2')).toBe('redis+cluster://me:[redacted]@a:1,b:2')
    expect(shown('redis+cluster://a:1,b:2')).toBe('redis+cluster://a:1,b:2')
    expect(shown('rediss+sentinel://:hunter2@a/m/1?sentinel_password=hunter3&sentinel_username=s')).toBe(
      'rediss+sentinel://:[redacted]@a:26379/m/1?sentinel_username=s&sentinel_password=[redacted]',
    )
    expect(problemOf('redis+cluster://me:hunter2@a/1')).not.toContain('hunter2')
  })
})

describe('DATABASE_DIRECT_URL', () => {
  it('is the server behind the pooler of DATABASE_URL', () => {
    const { database } = loadConfig({
      DATABASE_URL: 'postgres://pooler/a',
      DATABASE_DIRECT_URL: 'postgres://:hunter2@db/a',
    })
    expect([database.url?.reveal(), database.directUrl?.reveal()]).toEqual([
      'postgres://pooler/a',
      'postgres://:hunter2@db/a',
    ])
    expect(String(database.directUrl)).not.toContain('hunter2')
    expect(loadConfig({ DATABASE_URL: 'postgres://db/a' }).database.directUrl).toBeNull()
  })

  it('is nothing without DATABASE_URL', () => {
    expect(() => loadConfig({ DATABASE_DIRECT_URL: 'postgres://db/a' })).toThrow(/set without DATABASE_URL/)
  })
})
