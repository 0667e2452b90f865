import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { mkdir, writeFile } from 'node:fs/promises'
import { migrateQueueSchema } from '@askonce/queue'
import { migrate, openDatabase, stopLane } from '@askonce/store'
import { leakCheck, startTestPostgres, startTestRedis, type TestDatabase, type TestPostgres } from '@askonce/testkit'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startFakeServer } from './fake-server.ts'
import type { FakeServer } from './fake-state.ts'
import { makeScratch, runCli, type Scratch } from './run-cli.ts'

let postgres: TestPostgres
let database: TestDatabase
let empty: TestDatabase
let scratch: Scratch
let server: FakeServer
let env: Record<string, string>

beforeAll(async () => {
  scratch = await makeScratch()
  postgres = await startTestPostgres({ fsync: true })
  database = await postgres.createDatabase()
  empty = await postgres.createDatabase()
  await migrate(database.url)
  await migrateQueueSchema(database.url)
  server = await startFakeServer()
  env = {
    DATABASE_URL: database.url,
    ASKONCE_URL: server.url,
    ASKONCE_API_KEY: server.apiKey,
    ASKONCE_DATA_DIR: scratch.path('data'),
  }
})
afterAll(async () => {
  await server.close()
  await postgres.stop()
  await scratch.remove()
  await leakCheck()
})

async function sql(text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  try {
    return (await client.query<Record<string, unknown>>(text)).rows
  } finally {
    await client.end()
  }
}

describe('tenants', () => {
  it('are listed with what holds for them, which is set by name', async () => {
    await runCli(['keys', 'create', '--name', 'x', '--tenant', 'derivers'], { env })
    const before = JSON.parse((await runCli(['tenants', 'list', '--json'], { env })).stdout) as { data: object[] }
    expect(before.data).toContainEqual(expect.objectContaining({ id: 'derivers', derive_keys: false }))
    const on = await runCli(['tenants', 'set', 'derivers', '--derive-keys', 'on'], { env })
    expect(on).toMatchObject({
      code: 0,
      stdout:
        'derivers: no limits\nderivers: SDK requests without a key get one made from what they ask\nderivers: what a submission does not say, the server decides\n',
    })
    const rows = await sql("select derive_keys from tenants where id in ('derivers', 'default') order by id")
    expect(rows.map((row) => row['derive_keys'])).toEqual([false, true])
    expect((await runCli(['tenants', 'list'], { env })).stdout).toMatch(/^derivers +on /m)
    const off = await runCli(['tenants', 'set', 'derivers', '--derive-keys', 'off', '--json'], { env })
    expect(JSON.parse(off.stdout)).toMatchObject({ id: 'derivers', derive_keys: false })
  })

  it('have defaults for what their submissions do not say', async () => {
    await runCli(['keys', 'create', '--name', 'x', '--tenant', 'careful'], { env })
    const careful = ['tenants', 'set', 'careful', '--on-uncertain', 'hold', '--max-paid-attempts', '1']
    const set = await runCli([...careful, '--max-attempts', '3', '--ttl', '2d', '--timeout', '90'], { env })
    const text = 'on-uncertain hold, max-attempts 3, max-paid-attempts 1, ttl 172800s, timeout 90s'
    expect(set).toMatchObject({ code: 0, stdout: expect.stringContaining(`careful: ${text}\n`) as string })
    expect((await runCli(['tenants', 'list'], { env })).stdout).toContain(text)
    const back = ['tenants', 'set', 'careful', '--on-uncertain', 'default', '--ttl', 'default', '--json']
    expect(JSON.parse((await runCli(back, { env })).stdout)).toMatchObject({
      on_uncertain: null,
      max_attempts: 3,
      max_paid_attempts: 1,
      ttl_seconds: null,
      timeout_seconds: 90,
    })
    for (const wrong of [
      ['--on-uncertain', 'perhaps'],
      ['--max-attempts', '0'],
      ['--max-attempts', '101'],
      ['--max-paid-attempts', '11'],
      ['--ttl', '0'],
      ['--timeout', '86401'],
      ['--timeout', '25h'],
    ]) {
      expect((await runCli(['tenants', 'set', 'careful', ...wrong], { env })).code, wrong.join(' ')).toBe(2)
    }
  })

  it('are made with limits and budgets, which are set and taken away', async () => {
    const made = await runCli(['tenants', 'create', 'acme', '--max-running', '20', '--budget-day', '$5'], { env })
    expect(made).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('acme: max-running 20, budget-day $5.00') as string,
      stderr: expect.stringContaining('askonce keys create --tenant acme') as string,
    })
    expect((await runCli(['tenants', 'create', 'acme'], { env })).code).toBe(1)
    expect((await runCli(['keys', 'create', '--tenant', 'acme', '--name', 'first'], { env })).code).toBe(0)
    const set = ['tenants', 'set', 'acme', '--max-running', 'none', '--weight', '2', '--max-queued', '0']
    const more = ['--submissions-per-second', '7', '--calls-per-minute', '60', '--tokens-per-minute', '1000']
    const json = JSON.parse(
      (await runCli([...set, ...more, '--budget-month', '0.25', '--json'], { env })).stdout,
    ) as object
    expect(json).toMatchObject({
      object: 'tenant',
      max_running: null,
      weight: 2,
      max_queued: 0,
      submissions_per_second: 7,
      calls_per_minute: 60,
      tokens_per_minute: 1000,
      budget_usd: { day: 5, month: 0.25 },
    })
    await sql(
      `insert into tenant_days values ('acme', (now() at time zone 'utc')::date, 0.2, 0.05) on conflict do nothing`,
    )
    const got = (await runCli(['tenants', 'get', 'acme'], { env })).stdout
    expect(got).toMatch(/^max-running +none +0 running *$/m)
    expect(got).toMatch(/^max-queued +0 +0 queued +reached$/m)
    expect(got).toMatch(/^budget-day +\$5\.00 +\$0\.20 spent, \$0\.05 reserved *$/m)
    expect(got).toMatch(/^budget-month +\$0\.25 .*reached$/m)
    const shown = JSON.parse((await runCli(['tenants', 'get', 'acme', '--json'], { env })).stdout) as object
    expect(shown).toMatchObject({ ...json, use: { running: 0, queued: 0, usd_day: 0.2, reserved_usd: 0.05 } })
    expect((await runCli(['tenants', 'list'], { env })).stdout).toMatch(/^acme .*weight 2, max-queued 0/m)
    for (const wrong of [
      ['--max-running', '-1'],
      ['--max-running', '100001'],
      ['--weight', '0'],
      ['--weight', 'none'],
      ['--budget-day', '-5'],
      ['--budget-day', '1e9'],
      ['--submissions-per-second', '0'],
      ['--tokens-per-minute', 'many'],
    ]) {
      expect((await runCli(['tenants', 'set', 'acme', ...wrong], { env })).code, wrong.join(' ')).toBe(2)
    }
    expect((await runCli(['tenants', 'create', 'No Spaces'], { env })).code).toBe(2)
    expect((await runCli(['tenants', 'get', 'nobody'], { env })).code).toBe(1)
  }, 120_000)

  it('refuse names that are not there, and settings that are none', async () => {
    expect((await runCli(['tenants', 'set', 'nobody', '--derive-keys', 'on'], { env })).code).toBe(1)
    for (const args of [['default'], ['default', '--derive-keys', 'maybe'], ['--derive-keys', 'on']]) {
      expect((await runCli(['tenants', 'set', ...args], { env })).code).toBe(2)
    }
  })
})

describe('keys', () => {
  it('are made, shown once, listed and revoked', async () => {
    const made = await runCli(['keys', 'create', '--name', 'nightly', '--tenant', 'research', '--scopes', 'submit'], {
      env,
    })
    expect(made.code).toBe(0)
    const key = made.stdout.trim()
    expect(key).toMatch(/^\S{20,}$/)
    expect(made.stderr).toContain('not shown again')
    const [row] = await sql(
      `select id, tenant_id, scopes, encode(key_hash, 'hex') as hash from api_keys where name = 'nightly'`,
    )
    expect(row).toMatchObject({ tenant_id: 'research', scopes: ['submit'] })

    const listed = await runCli(['keys', 'list'], { env })
    expect(listed.stdout).toContain('nightly')
    expect(listed.stdout).not.toContain(key)
    const id = String(row?.['id'])
    expect((await runCli(['keys', 'revoke', id], { env })).stdout).toContain('revoked')
    const json = JSON.parse((await runCli(['keys', 'list', '--json'], { env })).stdout) as {
      data: { revoked_at: string }[]
    }
    expect(json.data[0]?.revoked_at).toMatch(/^\d{4}-/)
  })

  it('refuse bad names, scopes and ids', async () => {
    const bad = [
      ['keys', 'create', '--name', 'x', '--tenant', 'No Spaces'],
      ['keys', 'create', '--name', 'x', '--scopes', 'submit,everything'],
      ['keys', 'create'],
      ['keys', 'revoke', 'nonsense'],
    ]
    for (const args of bad) expect((await runCli(args, { env })).code).toBe(2)
    expect((await runCli(['keys', 'revoke', '00000000-0000-4000-8000-000000000000'], { env })).code).toBe(1)
  })

  it('say what is wrong with the database', async () => {
    const unmigrated = await runCli(['keys', 'list'], { env: { ...env, DATABASE_URL: empty.url } })
    expect(unmigrated.code).toBe(1)
    expect(unmigrated.stderr).toContain('askonce migrate')
    const none = await runCli(['keys', 'list'], { env: { ASKONCE_DATA_DIR: scratch.path('nothing') } })
    expect(none.code).toBe(3)
    const away = await runCli(['keys', 'list'], { env: { ...env, DATABASE_URL: 'postgres://127.0.0.1:1/x' } })
    expect(away.code).toBe(3)
  })
})

describe('sweep', () => {
  it('deletes what has expired in batches, and only that', async () => {
    await sql(`
      insert into jobs (id, tenant_id, idempotency_key, fingerprint, operation, model, lane, priority, timeout_ms,
        ttl_seconds, deadline_seconds, state, on_uncertain, max_attempts, max_paid_attempts, run_at, deadline_at, error,
        completed_at, expires_at)
      select gen_random_uuid(), 'default', 'k' || n, sha256(n::text::bytea), 'embeddings', 'm', 'simulated', 5, 1000,
        1, 1, 'cancelled', 'rerun', 5, 2, now(), now(), null, now() - interval '1 hour',
        case when n <= 2500 then now() - interval '1 second' else now() + interval '1 day' end
      from generate_series(1, 2510) n`)
    await sql(`
      insert into decisions (at, tenant_id, job_id, idempotency_key, action, accept_duplicate_charge, from_state, to_state,
        attempt, generation, paid, api_key_id, api_key_name)
      select at, 'default', gen_random_uuid(), 'k', 'cancel', false, 'queued', 'cancelled', 0, 1, 0, gen_random_uuid(), 'x'
      from unnest(array[now(), now() - interval '401 days']) at`)
    await sql(`
      insert into stream_chunks (job_id, attempt, position, body, created_at)
      select gen_random_uuid(), 1, 0, 'x', at from unnest(array[now(), now() - interval '2 minutes']) at`)
    await sql(`
      insert into files (id, tenant_id, purpose, filename, status, expires_at)
      select gen_random_uuid(), 'default', 'batch', 'f', 'processed',
        case when n <= 12 then now() - interval '1 second' else now() + interval '1 day' end
      from generate_series(1, 13) n`)
    await sql(`
      insert into batches (id, tenant_id, kind, operation, endpoint, api_key_id, input_file_id, output_file_id, error_file_id,
        key_prefix, completion_window, window_seconds, status, expires_at, ended_at)
      select gen_random_uuid(), 'default', 'openai', 'embeddings', '/v1/embeddings', gen_random_uuid(), gen_random_uuid(),
        gen_random_uuid(), gen_random_uuid(), 'p', '24h', 86400, 'failed', now(), at
      from unnest(array[now(), now() - interval '31 days']) at`)
    const limited = JSON.parse((await runCli(['sweep', '--max-batches', '1', '--json'], { env })).stdout) as object
    const nothing = { stream_chunks: 0, files: 0, batches: 0, attempts: 0, decisions: 0, workers: 0 }
    expect(limited).toEqual({ ...nothing, jobs: 1000, done: false })
    const rest = await runCli(['sweep'], { env })
    expect(rest).toMatchObject({
      code: 0,
      stdout: 'swept 1500 jobs, 1 stream chunk, 12 files, 1 batch, 0 ledger rows, 1 decision, 0 dead workers\n',
    })
    for (const table of ['files', 'batches', 'stream_chunks']) {
      expect(await sql(`select count(*)::int as left from ${table}`), table).toEqual([{ left: 1 }])
    }
    expect(await sql('select count(*)::int as left from jobs')).toEqual([{ left: 10 }])
  })
})

interface Report {
  status: string
  checks: { name: string; status: string; detail: string; todo: string | null }[]
}

describe('doctor', () => {
  const doctor = async (extra: Record<string, string> = {}) => {
    const { code, stdout } = await runCli(['doctor', '--json'], { env: { ...env, ...extra } })
    const report = JSON.parse(stdout) as Report
    return { code, report, of: (name: string) => report.checks.find((check) => check.name === name) }
  }

  it('finds a sound database, and that no worker lives and a lane is stopped', async () => {
    const { db, close } = openDatabase({ url: database.url, name: 'test', poolSize: 1 })
    await stopLane(db, 'openai', 'provider_auth', 'The provider refused the credentials')
    await close()
    await sql(`insert into tenants (id, max_running, budget_day_usd) values ('full', 0, null), ('spent', null, 0)`)
    await sql(
      `insert into ready (lane, tenant_id, model, priority, run_at, job_id, deadline_at, created_at)
       select lane, tenant, 'm', 5, now(), gen_random_uuid(), now(), now()
       from (values ('openai', 'full'), ('other', 'full'), ('more', 'full'), ('other', 'spent'), ('other', 'default')) j (lane, tenant)`,
    )
    await mkdir(scratch.path('data/spool'), { recursive: true })
    await writeFile(scratch.path('data/spool/0199c0de-0000-7000-8000-000000000001.1.answer'), '{}')
    const { code, report, of } = await doctor()
    expect(code).toBe(1)
    expect(report.status).toBe('problem')
    for (const name of [
      'node',
      'config',
      'data directory',
      'postgres',
      'durability',
      'clock',
      'schema',
      'queue schema',
      'api',
      'api key',
    ]) {
      expect(of(name), name).toMatchObject({ status: 'ok' })
    }
    expect(of('workers')).toMatchObject({
      status: 'problem',
      todo: expect.stringContaining('askonce worker') as string,
    })
    expect(of('lane openai')).toMatchObject({
      status: 'problem',
      todo: expect.stringContaining('lanes resume openai') as string,
    })
    expect(of('waiting')).toMatchObject({ status: 'warn', detail: '1 job waits behind what is closed in lane openai' })
    expect(of('tenant full')).toMatchObject({
      status: 'warn',
      detail: '2 jobs wait for max_running',
      todo: expect.stringContaining('askonce tenants set full --max-running') as string,
    })
    expect(of('tenant spent')).toMatchObject({
      status: 'warn',
      detail: '1 job waits for the budget of the day',
      todo: expect.stringContaining('askonce tenants set spent --budget-day') as string,
    })
    expect(of('tenant default')).toBeUndefined()
    expect(of('spool')).toMatchObject({ status: 'warn', detail: expect.stringContaining('1 paid answer') as string })
  })

  it('tells a wrong provider key from a right one and from a server that is away, without a paid call', async () => {
    const paths: string[] = []
    const provider: Server = createServer((request, response) => {
      paths.push(`${request.method} ${request.url}`)
      const right = request.headers.authorization === 'Bearer right'
      response.writeHead(right ? 200 : 401).end('{}')
    })
    await new Promise<void>((resolve) => provider.listen(0, '127.0.0.1', resolve))
    const url = `http://127.0.0.1:${(provider.address() as AddressInfo).port}/v1`
    const right = await doctor({ OPENAI_BASE_URL: url, OPENAI_API_KEY: 'right' })
    expect(right.of('provider openai')).toMatchObject({
      status: 'ok',
      detail: expect.stringContaining('key accepted') as string,
    })
    const wrong = await doctor({
      OPENAI_BASE_URL: url,
      OPENAI_API_KEY: 'wrong',
      ANTHROPIC_BASE_URL: 'http://127.0.0.1:1',
    })
    expect(wrong.of('provider openai')).toMatchObject({
      status: 'problem',
      detail: expect.stringContaining('refuses the key') as string,
    })
    expect(wrong.of('provider anthropic')).toMatchObject({
      status: 'problem',
      detail: expect.stringContaining('cannot be reached') as string,
    })
    expect(JSON.stringify(wrong.report)).not.toContain('"wrong"')
    provider.closeAllConnections()
    await new Promise((resolve) => provider.close(resolve))
    expect(new Set(paths)).toEqual(new Set(['GET /v1/models']))
  })

  it('looks at Redis, and warns where it may forget', async () => {
    const redis = await startTestRedis({})
    try {
      const { of } = await doctor({ REDIS_URL: redis.url })
      expect(of('redis')?.detail).toMatch(/^Redis \d+\.\d+/)
      expect(of('queue schema')).toBeUndefined()
      // The client's own line about it is part of the report, and not above it.
      const withPassword = redis.url.replace('//', '//:secret@')
      const { stdout, stderr } = await runCli(['doctor'], { env: { DATABASE_URL: '', REDIS_URL: withPassword } })
      expect(stdout).toMatch(/warn +redis +Redis needs no password, and REDIS_URL has one/)
      expect(stderr).not.toContain('WARN')
    } finally {
      await redis.stop()
    }
    const { of } = await doctor({ REDIS_URL: 'redis://:secret@127.0.0.1:1' })
    expect(of('redis')).toMatchObject({
      status: 'problem',
      detail: expect.stringContaining('does not answer') as string,
    })
    expect(of('redis')?.detail).not.toContain('secret')
  })

  it('names what is missing when nothing is there, for people too', async () => {
    const { code, stdout } = await runCli(['doctor'], { env: { ASKONCE_DATA_DIR: scratch.path('none') } })
    expect(code).toBe(1)
    expect(stdout).toMatch(/^problem {2}postgres .*\n +-> Start it with: npm start/m)
    expect(stdout).toMatch(/^problem {2}api .*\n +-> Start one with: npm start/m)
    expect(stdout).toMatch(/\n2 problems, 0 warnings\.\n$/)
    const typo = await runCli(['doctor'], { env: { ASKONCE_CONCURRENZY: '4' } })
    expect(typo.stdout).toContain('did you mean ASKONCE_CONCURRENCY?')
  })
})
