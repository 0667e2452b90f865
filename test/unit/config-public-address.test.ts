import { ConfigError, loadConfig } from '@askonce/config'
import { describe, expect, it } from 'vitest'

function problemsOf(env: Record<string, string>): readonly string[] {
  try {
    loadConfig(env)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  return []
}

describe('ASKONCE_PUBLIC_URL', () => {
  it.each([
    ['https://host.example.com', 'https://host.example.com'],
    ['https://host.example.com/askonce/', 'https://host.example.com/askonce'],
    ['HTTPS://Host.Example.com:443/teams/LLM_1', 'https://host.example.com/teams/LLM_1'],
    ['http://[::1]:8080//', 'http://[::1]:8080'],
  ])('%s is %s', (given, publicUrl) => {
    expect(loadConfig({ ASKONCE_PUBLIC_URL: given }).http.publicUrl).toBe(publicUrl)
  })

  it.each([
    'host.example.com/askonce',
    '/askonce',
    'ftp://host.example.com',
    'https://host.example.com/askonce?x=1',
    'https://host.example.com/ask%6Fnce',
    'https://host.example.com/a//b',
    'https://host.example.com/v1',
    'https://host.example.com/openai/v1',
    'https://host.example.com/docs',
  ])('refuses %s, with an example', (given) => {
    expect(problemsOf({ ASKONCE_PUBLIC_URL: given })).toEqual([
      expect.stringMatching(/: expected an .*, for example ASKONCE_PUBLIC_URL=https:\/\/host\.example\.com\/askonce$/),
    ])
  })

  it('refuses credentials without repeating them', () => {
    const [problem = ''] = problemsOf({ ASKONCE_PUBLIC_URL: 'https://me:hunter2@host.example.com' })
    expect(problem).toContain('without user and password')
    expect(problem).not.toContain('hunter2')
  })
})

describe('ASKONCE_TRUST_PROXY', () => {
  it.each(['loopback', '10.0.0.1', '10.0.0.0/8, 192.168.1.7,uniquelocal', '2001:db8::/32', '::1/128', '0.0.0.0/1'])(
    'takes %s',
    (given) => {
      expect(loadConfig({ ASKONCE_TRUST_PROXY: given }).http.trustProxy).toEqual(
        given.split(',').map((one) => one.trim()),
      )
    },
  )

  it('is nobody when unset', () => {
    expect(loadConfig({}).http.trustProxy).toEqual([])
  })

  // A number of hops, or everybody, would make a client's own header count.
  it.each([
    'true',
    '1',
    '*',
    '0.0.0.0/0',
    '::/0',
    '10.0.0.0/33',
    '10.0.0/8',
    'proxy.example.com',
    '10.0.0.1,',
    'fe80::1%eth0',
  ])('refuses %s, with an example', (given) => {
    const [problem = '', ...others] = problemsOf({ ASKONCE_TRUST_PROXY: given })
    expect(others).toEqual([])
    // What could be a piece of a password is not repeated.
    expect([problem.replace(/ is (?:".*"|set, but not as needed):/, ':')]).toEqual([
      `ASKONCE_TRUST_PROXY: expected IP addresses, networks such as 10.0.0.0/8, or loopback, linklocal, uniquelocal, with commas between, for example ASKONCE_TRUST_PROXY=10.0.0.0/8,loopback`,
    ])
  })
})
