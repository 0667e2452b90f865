import { readFileSync } from 'node:fs'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ofKind, specOf } from '../../deploy/workloads.ts'
import { render } from '../../deploy/kustomize.ts'
import { inSeconds, insertAttempt, insertJob, useStore } from './fixture.ts'

// What KEDA asks of deploy/kubernetes/autoscaling, as the role that deploy/README.md makes.

interface Trigger {
  name: string
  metadata: { query: string }
}

const [scaled] = ofKind(render('deploy/kubernetes/examples/production'), 'ScaledObject')
const { triggers } = specOf(scaled) as { triggers: Trigger[] }
const [, statements = ''] = /^```sql\n([^]*?)^```/m.exec(readFileSync('deploy/README.md', 'utf8')) ?? []

/** Rows in all, most of them nobody's business here. */
const terminal = 100_000
/** The query counts no further. */
const limit = 5_000

const fixture = useStore()
let scaler: pg.Client

function queryOf(name: string): string {
  const found = triggers.find((trigger) => trigger.name === name)
  if (found === undefined) throw new Error(`no trigger ${name}`)
  return found.metadata.query
}

/** One row of one number, as KEDA reads it. */
async function ask(name: string): Promise<number> {
  const { rows, fields } = await scaler.query<string[]>({ text: queryOf(name), rowMode: 'array' })
  expect([rows.length, fields.map(({ dataTypeID }) => dataTypeID)]).toEqual([1, [pg.types.builtins.INT8]])
  return Number(rows[0]?.[0])
}

/** Jobs that wait for a worker, by copies of one. */
async function waiting(lane: string, count: number, forSeconds: number): Promise<void> {
  await fixture.query(
    `insert into jobs (id, tenant_id, idempotency_key, fingerprint, operation, model, lane, priority, timeout_ms,
      ttl_seconds, deadline_seconds, state, on_uncertain, max_attempts, max_paid_attempts, run_at, deadline_at)
    select gen_random_uuid(), 'default', gen_random_uuid(), sha256('x'), 'embeddings', 'm', $1, 5, 1000, 60, 60, 'queued',
      'rerun', 5, 2, now() - make_interval(secs => $2::integer), now() + interval '1 day'
    from generate_series(1, $3::integer)`,
    [lane, forSeconds, count],
  )
}

beforeAll(async () => {
  for (let part = 0; part < 10; part += 1) {
    await fixture.query(
      `insert into jobs (id, tenant_id, idempotency_key, fingerprint, operation, model, lane, priority, timeout_ms,
        ttl_seconds, deadline_seconds, state, on_uncertain, max_attempts, max_paid_attempts, run_at, deadline_at, completed_at, expires_at)
      select gen_random_uuid(), 'default', 'done' || $2 || n, sha256('x'), 'embeddings', 'm', 'openai', 5, 1000, 60, 60, 'cancelled',
        'rerun', 5, 2, now(), now(), now(), now()
      from generate_series(1, $1::integer) n`,
      [terminal / 10, `part-${part}-`],
    )
  }
  await fixture.query(
    `insert into attempts (job_id, attempt, generation, tenant_id, idempotency_key, fingerprint, operation, lane, model, worker_id,
      finished_at, outcome, billing)
    select id, 1, 1, 'default', 'k', sha256('x'), 'embeddings', 'openai', 'm', gen_random_uuid(), now(), 'rejected', 'none' from jobs`,
  )
  await fixture.query('vacuum analyze jobs, attempts')
  for (const statement of statements.split(';')) {
    if (statement.trim() !== '') await fixture.query(statement)
  }
  const url = new URL(fixture.url)
  url.username = 'askonce_scaler'
  url.password = 'change-me'
  scaler = new pg.Client({ connectionString: url.href })
  await scaler.connect()
}, 120_000)
afterAll(() => scaler.end())

beforeEach(async () => {
  await fixture.query(`delete from jobs where state = 'queued'`)
  await fixture.query('delete from open_attempts')
  await fixture.query('delete from lanes')
})

describe('calls', () => {
  it('is 0 where nothing waits and nothing runs', async () => {
    expect(await ask('calls')).toBe(0)
  })

  it('counts what waits and what runs, of the lane that has most of them', async () => {
    await waiting('openai', 30, 0)
    await waiting('anthropic', 34, 0)
    for (let n = 0; n < 5; n += 1) await insertAttempt(fixture, crypto.randomUUID(), { lane: 'openai' })
    expect(await ask('calls')).toBe(35)
  })

  it('counts nothing that more workers would not bring sooner: what is not due', async () => {
    await insertJob(fixture, { lane: 'openai', run_at: inSeconds(3_600) })
    await insertJob(fixture, { lane: 'openai', run_at: inSeconds(3_600), priority: 0 })
    expect(await ask('calls')).toBe(0)
    await insertJob(fixture, { lane: 'openai' })
    expect(await ask('calls')).toBe(1)
  })

  it('counts no further than a number that is more than enough', async () => {
    await waiting('openai', limit + 10, 0)
    expect(await ask('calls')).toBe(limit)
  })
})

describe('age', () => {
  it('is 0 where nothing waits', async () => {
    await insertJob(fixture, { run_at: inSeconds(60) })
    await insertAttempt(fixture, crypto.randomUUID())
    expect(await ask('age')).toBe(0)
  })

  it('is how long the oldest has been waiting for a worker', async () => {
    await waiting('anthropic', 1, 50)
    await insertJob(fixture, { lane: 'openai', tenant_id: 'b', run_at: inSeconds(-100) })
    await insertJob(fixture, { lane: 'openai', tenant_id: 'b', priority: 9, run_at: inSeconds(-10) })
    await waiting('openai', 1, 50)
    const age = await ask('age')
    expect(age).toBeGreaterThanOrEqual(100)
    expect(age).toBeLessThan(160)
  })
})

describe('lanes', () => {
  const until = (seconds: number) => `now() + interval '${seconds} seconds'`

  it.each([
    ['stopped', `'stopped', 'money', null`, 0],
    ['a breaker', `'breaker', 'down', ${until(60)}`, 0],
    ['a breaker that may probe, with one call', `'breaker', 'down', ${until(-60)}`, 0],
    ['paused', `'paused', 'limit', ${until(60)}`, 0],
    ['paused until a while ago', `'paused', 'limit', ${until(-60)}`, 7],
    ['open', `'open', null, null`, 7],
  ])('%s: what waits is counted only where workers may call', async (_what, row, counted) => {
    await waiting('openai', 7, 90)
    await fixture.query(`insert into lanes (name, state, reason, until) values ('openai', ${row})`)
    await waiting('other', 2, 10)
    expect(await ask('calls')).toBe(Math.max(counted, 2))
    expect((await ask('age')) >= 90).toBe(counted > 0)
  })
})

it('of a lane with a paused model counts the other models', async () => {
  await insertJob(fixture, { lane: 'openai', model: 'paused', run_at: inSeconds(-500) })
  await insertJob(fixture, { lane: 'openai', model: 'open', run_at: inSeconds(-100) })
  await fixture.query(
    `insert into lanes (name, model, state, reason, until) values ('openai', 'paused', 'paused', 'limit', now() + interval '1 minute')`,
  )
  expect(await ask('calls')).toBe(1)
  expect(await ask('age')).toBeLessThan(400)
})

interface Plan {
  'Node Type': string
  'Relation Name'?: string
  'Index Name'?: string
  'Actual Rows': number
  Plans?: Plan[]
}

const nodes = (plan: Plan): Plan[] => [plan, ...(plan.Plans ?? []).flatMap(nodes)]

describe('cost', () => {
  it.each([
    ['calls', /^(?:ready_pkey|open_attempts_by_claim|open_attempts_by_tenant|lanes_pkey)$/],
    ['age', /^(?:ready_pkey|lanes_pkey)$/],
  ])('%s reads what waits or runs, and nothing of the rest', async (name, indexes) => {
    await waiting('openai', limit + 1_000, 5)
    // Nobody's turn: behind a closed lane, and for tomorrow.
    await waiting('closed', 20_000, 5)
    await waiting('tomorrow', 20_000, -86_400)
    await fixture.query(`insert into lanes (name, state, reason) values ('closed', 'stopped', 'money')`)
    for (let n = 0; n < 20; n += 1) await insertAttempt(fixture, crypto.randomUUID(), { lane: 'openai' })
    // With and without statistics of the rows that came.
    for (const prepare of ['select 1', 'analyze jobs, ready, attempts']) {
      await fixture.query(prepare)
      // In a session of its own: those of the product have settings for the planner.
      const { rows } = await scaler.query<{ 'QUERY PLAN': [{ Plan: Plan }] }>(
        `explain (analyze, format json) ${queryOf(name)}`,
      )
      const scans = nodes(rows[0]?.['QUERY PLAN'][0].Plan as Plan).filter((node) => node['Node Type'].includes('Scan'))
      const used = scans.map((node) => node['Index Name']).filter((index) => index !== undefined)
      expect(used.filter((index) => !indexes.test(index))).toEqual([])
      const large = scans.filter((node) => ['jobs', 'ready', 'attempts'].includes(node['Relation Name'] ?? ''))
      expect(large.map((node) => node['Node Type']).filter((type) => type === 'Seq Scan')).toEqual([])
      expect(Math.max(...large.map((node) => node['Actual Rows']))).toBeLessThanOrEqual(name === 'age' ? 1 : limit)
    }
  })
})

describe('the role of the scaler', () => {
  it.each([
    'metadata from jobs',
    'idempotency_key from jobs',
    'lane from jobs',
    '* from jobs',
    'request from requests',
    'response from answers',
    'worker_id from open_attempts',
  ])('cannot read %s', async (what) => {
    await expect(scaler.query(`select ${what}`)).rejects.toThrow('permission denied')
  })

  it('cannot write', async () => {
    await expect(scaler.query('delete from jobs')).rejects.toThrow('permission denied')
    await expect(scaler.query(`update lanes set state = 'open'`)).rejects.toThrow('permission denied')
  })
})
