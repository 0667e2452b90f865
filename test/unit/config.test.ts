import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { Writable } from 'node:stream'
import { inspect } from 'node:util'
import { type Config, ConfigError, configTable, loadConfig, renderConfigDocs, Secret } from '@askonce/config'
import { pino } from 'pino'
import { afterAll, describe, expect, it } from 'vitest'

const folder = mkdtempSync(join(tmpdir(), 'askonce-config-'))
afterAll(() => rmSync(folder, { recursive: true }))

function problemsOf(env: Record<string, string | undefined>): readonly string[] {
  try {
    loadConfig(env)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  return []
}

function fileWith(content: unknown): string {
  const file = join(folder, 'askonce.json')
  writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content))
  return file
}

function logged(value: unknown): string {
  let text = ''
  const sink = new Writable({
    write(chunk, _encoding, done) {
      text += String(chunk)
      done()
    },
  })
  pino(sink).info({ value }, 'event')
  return text
}

describe('defaults', () => {
  it('needs nothing', () => {
    expect(loadConfig({})).toMatchObject({
      http: { host: '127.0.0.1', port: 8787, healthPort: null },
      log: { level: 'info' },
      dataDir: resolve('.askonce'),
      database: { url: null, poolSize: 10 },
      redis: { url: null, files: { ca: null, client: null }, prefix: '{askonce}' },
      bootstrapKey: null,
      worker: { concurrency: 50, drainMs: 30_000, leaseMs: 6000, spoolDir: resolve('.askonce/spool') },
      janitor: { sweepIntervalMs: 10_000 },
      limits: {
        defaultTtlMs: 172_800_000,
        defaultOnUncertain: 'rerun',
        defaultMaxAttempts: 5,
        defaultMaxPaidAttempts: 2,
        maxTtlMs: 31_536_000_000,
        maxBodyBytes: 33_554_432,
        maxRequestBytes: 10_485_760,
      },
      simulated: { latencyMs: 300, tokens: 64, failureRate: 0 },
      lanes: [{ name: 'simulated', kind: 'simulated', baseUrl: null, apiKey: null, models: [], lookUp: false }],
      providersOn: false,
      client: { url: null, apiKey: null },
    })
  })

  it('treats empty and blank variables as unset, and ignores white space around values', () => {
    const config = loadConfig({ PORT: '', DATABASE_URL: ' ', LOG_LEVEL: ' debug\n', ASKONCE_LEGACY: '' })
    expect([config.http.port, config.database.url, config.log.level]).toEqual([8787, null, 'debug'])
  })

  it('is frozen all the way down', () => {
    const config = loadConfig({ OPENAI_API_KEY: 'sk-1' }) as { -readonly [Name in keyof Config]: Config[Name] }
    expect(() => (config.dataDir = 'x')).toThrow(TypeError)
    expect(() => Object.assign(config.lanes[0] ?? {}, { name: 'x' })).toThrow(TypeError)
    expect(() => Object.assign(config.lanes[0]?.models ?? [], ['x'])).toThrow(TypeError)
  })
})

describe('problems', () => {
  it('reports every problem at once, each with what was given and what is expected', () => {
    const problems = problemsOf({
      PORT: '65536',
      ASKONCE_LEASE_SECONDS: '2.5',
      LOG_LEVEL: 'verbose',
      HOST: 'http://localhost',
      ASKONCE_SIMULATED_FAILURE_RATE: '1.5',
      ANTHROPIC_BASE_URL: 'https://api.anthropic.com/v1/',
      ASKONCE_URL: 'localhost:8787',
    })
    expect(problems).toEqual([
      expect.stringMatching(/^HOST is "http:\/\/localhost": expected an IP address or a host name/),
      'PORT is "65536": expected a whole number from 0 to 65535, for example PORT=8787',
      expect.stringMatching(/^LOG_LEVEL is "verbose": expected one of fatal, .*silent, for example LOG_LEVEL=debug$/),
      expect.stringMatching(/^ANTHROPIC_BASE_URL is .*without the trailing \/v1/),
      expect.stringMatching(/^ASKONCE_SIMULATED_FAILURE_RATE is "1.5": expected a number from 0 to 1/),
      expect.stringMatching(/^ASKONCE_LEASE_SECONDS is "2.5": expected a whole number from 3 to 60/),
      expect.stringMatching(/^ASKONCE_URL is "localhost:8787": expected an http/),
    ])
  })

  it.each([
    ['ASKONCE_CONCURENCY', 'ASKONCE_CONCURRENCY'],
    ['ASKONCE_PORT', 'PORT'],
    ['ASKONCE_DATABASE_URL', 'DATABASE_URL'],
    ['ASKONCE_DRAIN', 'ASKONCE_DRAIN_SECONDS'],
  ])('suggests for %s', (given, meant) => {
    expect(problemsOf({ [given]: '1' })).toEqual([`${given} is not known: did you mean ${meant}?`])
  })

  it('suggests nothing far-fetched, and leaves foreign and test variables alone', () => {
    expect(problemsOf({ ASKONCE_FOO: '1' })).toEqual(['ASKONCE_FOO is not known: docs/config.md lists every variable'])
    expect(problemsOf({ PATH: '/bin', ASKONCE_TEST_POSTGRES: 'system', OPENAI_ORG: 'x' })).toEqual([])
  })

  it('compares limits that belong together, also while something else is wrong', () => {
    expect(problemsOf({ ASKONCE_MAX_TTL_SECONDS: '60', ASKONCE_MAX_BODY_BYTES: '2048', PORT: 'x' })).toEqual([
      expect.stringMatching(/^PORT /),
      'ASKONCE_DEFAULT_TTL_SECONDS is 172800 when unset: expected at most ASKONCE_MAX_TTL_SECONDS, which is 60',
      'ASKONCE_MAX_REQUEST_BYTES is 10485760 when unset: expected at most ASKONCE_MAX_BODY_BYTES, which is 2048',
    ])
  })

  it.each([
    ['DATABASE_URL', 'mysql://u:hunter2@h/d'],
    ['DATABASE_URL', 'postgres://u:hunter2#@h:1:2/d'],
    ['REDIS_URL', 'hunter2@localhost:6379'],
    ['OPENAI_API_KEY', 'hunter2 hunter2'],
    ['OPENAI_BASE_URL', 'https://me:hunter2@example.com/v1'],
    ['ASKONCE_BOOTSTRAP_KEY', 'hunter2'],
  ])('never repeats a secret: %s', (name, value) => {
    const problems = problemsOf({ [name]: value })
    expect(problems).toHaveLength(1)
    expect(problems[0]).toMatch(new RegExp(`^${name} is set, but not as needed: expected `))
    expect(problems[0]).not.toContain('hunter2')
  })
})

describe('secrets', () => {
  const config = loadConfig({
    OPENAI_API_KEY: 'hunter2',
    ASKONCE_BOOTSTRAP_KEY: 'hunter2-hunter2-hunter2',
    DATABASE_URL: 'postgres://app@db:5432/askonce?password=hunter2&options=-csearch_path%3Dapp',
    REDIS_URL: 'redis://:hunter2@cache/1',
  })

  it.each([
    ['util.inspect', (value: unknown) => inspect(value, { depth: 9, showHidden: true })],
    ['JSON.stringify', (value: unknown) => JSON.stringify(value)],
    ['pino', logged],
    ['string conversion', (value: unknown) => String((value as Config).database.url)],
  ])('are redacted by %s, but reveal themselves on request', (_name, print) => {
    expect(print(config)).toContain('[redacted]')
    expect(print(config)).not.toContain('hunter2')
    expect(config.lanes[0]?.apiKey?.reveal()).toBe('hunter2')
    expect(config.redis.url?.reveal()).toBe('redis://:hunter2@cache/1')
  })

  it('keep host and database of an address readable', () => {
    expect(String(config.database.url)).toBe('postgres://app:[redacted]@db:5432/askonce?options=-c%20search_path%3Dapp')
    expect(String(config.redis.url)).toBe('redis://:[redacted]@cache:6379/1')
    expect(String(new Secret('x'))).toBe('[redacted]')
  })

  it('are redacted in the table of effective values', () => {
    const rows = configTable({ DATABASE_URL: 'postgres://app:hunter2@db/d', OPENAI_API_KEY: 'hunter2', PORT: 'x' })
    const valueOf = (name: string) => rows.find(({ variable }) => variable === name)
    expect(valueOf('DATABASE_URL')).toMatchObject({ value: 'postgres://app:[redacted]@db:5432/d', from: 'environment' })
    expect(valueOf('OPENAI_API_KEY')).toMatchObject({ value: '[redacted]', from: 'environment' })
    expect(valueOf('PORT')).toMatchObject({ value: '(invalid)', from: 'environment' })
    expect(valueOf('HOST')).toMatchObject({ value: '127.0.0.1', from: 'default' })
  })
})

describe('lanes', () => {
  it('turn on by a key or by a base URL', () => {
    const { lanes, providersOn } = loadConfig({ ANTHROPIC_API_KEY: 'k', OPENAI_BASE_URL: 'http://127.0.0.1:11434/v1/' })
    expect(providersOn).toBe(true)
    expect(lanes.map(({ name, baseUrl, models }) => [name, baseUrl, models])).toEqual([
      ['anthropic', 'https://api.anthropic.com', []],
      ['openai', 'http://127.0.0.1:11434/v1', []],
      ['simulated', null, []],
    ])
    expect(lanes[1]?.apiKey).toBeNull()
    expect(loadConfig({ OPENAI_API_KEY: 'k' }).lanes[0]?.baseUrl).toBe('https://api.openai.com/v1')
  })

  it('come from the file too, before the built-in ones, with their key from the environment', () => {
    const file = fileWith({
      lanes: [
        { name: 'vllm', kind: 'openai', base_url: 'http://h/v1/', api_key_env: 'VLLM_API_KEY', models: ['qwen*'] },
      ],
      prices: [{ model: 'qwen*', input_per_million_usd: 0.1, output_per_million_usd: 0 }],
    })
    const config = loadConfig({ ASKONCE_CONFIG: file, VLLM_API_KEY: 'k', OPENAI_API_KEY: 'k' })
    expect(config.lanes.map(({ name }) => name)).toEqual(['vllm', 'openai', 'simulated'])
    expect(config.lanes[0]).toMatchObject({ kind: 'openai', baseUrl: 'http://h/v1', models: ['qwen*'] })
    expect(config.lanes[0]?.apiKey?.reveal()).toBe('k')
    expect(config.prices).toEqual([
      { maxOutputTokens: null, model: 'qwen*', inputPerMillionUsd: 0.1, outputPerMillionUsd: 0 },
    ])
    expect(problemsOf({ ASKONCE_CONFIG: file })).toEqual([
      expect.stringMatching(/^VLLM_API_KEY, named by .*askonce\.json \/lanes\/0\/api_key_env, is not set/),
    ])
  })
})

describe('the configuration file', () => {
  const lane = { name: 'a', kind: 'openai', base_url: 'http://h/v1', models: ['*'] }
  const price = { model: '*', input_per_million_usd: 1, output_per_million_usd: 1 }
  it.each<[string, unknown, string]>([
    ['unknown member', { lane: [] }, '/lane is not known: did you mean lanes?'],
    [
      'unknown member of a lane',
      { lanes: [{ ...lane, 'base-url': 'x' }] },
      '/lanes/0/base-url is not known: did you mean base_url?',
    ],
    [
      'escaped pointer',
      { prices: [{ ...price, 'a/~b': 1 }] },
      '/prices/0/a~1~0b is not known: known are model, input_per',
    ],
    [
      'missing member',
      { lanes: [lane, { ...lane, kind: undefined }] },
      '/lanes/1/kind is missing: expected the API it speaks',
    ],
    ['bad name', { lanes: [{ ...lane, name: 'Big' }] }, '/lanes/0/name is "Big": expected lower-case letters'],
    [
      'built-in name',
      { lanes: [{ ...lane, name: 'openai' }] },
      '/lanes/0/name is "openai": expected a name that is not a built-in lane',
    ],
    ['same name twice', { lanes: [lane, lane] }, '/lanes/1/name is "a": expected a name of its own'],
    [
      'wrong /v1',
      { lanes: [{ ...lane, kind: 'anthropic' }] },
      '/lanes/0/base_url is "http://h/v1": expected an address without the trailing /v1',
    ],
    [
      'our own variable',
      { lanes: [{ ...lane, api_key_env: 'ASKONCE_API_KEY' }] },
      '/lanes/0/api_key_env is "ASKONCE_API_KEY": expected the name',
    ],
    ['no models', { lanes: [{ ...lane, models: [] }] }, '/lanes/0/models is []: expected a list of at least one'],
    [
      'negative price',
      { prices: [{ ...price, input_per_million_usd: -1 }] },
      '/prices/0/input_per_million_usd is -1: expected US dollars',
    ],
    ['not an object', [], '(the document) is []: expected an object with lanes and prices'],
  ])('%s', (_name, content, problem) => {
    const file = fileWith(content)
    expect(problemsOf({ ASKONCE_CONFIG: file })).toEqual([expect.stringContaining(`${file}: ${problem}`)])
  })

  it('names the file that is absent or no JSON, beside the other problems', () => {
    const file = fileWith('{"lanes": [}')
    expect(problemsOf({ ASKONCE_CONFIG: file, PORT: 'x' })).toEqual([
      expect.stringMatching(/^PORT /),
      expect.stringContaining(`ASKONCE_CONFIG is "${file}", which is not JSON: `),
    ])
    expect(problemsOf({ ASKONCE_CONFIG: join(folder, 'none') })[0]).toMatch(/which cannot be read: ENOENT/)
  })

  it('does not repeat credentials of an address', () => {
    const file = fileWith({ lanes: [{ ...lane, base_url: 'http://me:hunter2@h/v1' }] })
    expect(problemsOf({ ASKONCE_CONFIG: file })[0]).toMatch(
      /\/lanes\/0\/base_url is not valid: expected an address without user/,
    )
  })
})

it('docs/config.md is the generated page, and its example file is accepted', () => {
  const page = renderConfigDocs()
  const file = fileWith(/```json\n(.*?)```/s.exec(page)?.[1] ?? '')
  expect(problemsOf({ ASKONCE_CONFIG: file, VLLM_API_KEY: 'k' })).toEqual([])
  expect(page.match(/^\| `[A-Z_]+` \|/gm)).toHaveLength(configTable({}).length)
  expect(readFileSync('docs/config.md', 'utf8')).toBe(page)
})
