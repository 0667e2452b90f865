import { randomUUID } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  appendStreamChunks,
  beatWorker,
  claimJobs,
  deleteStreamChunks,
  endAttempts,
  nameAnswers,
  notify,
  readAnswers,
  readBeats,
  readJobs,
  readOpenAttempts,
  readSettled,
  readStreams,
  reclaimAttempts,
  submitBatch,
  type NewJob,
} from '@askonce/store'
import { beforeAll, describe, expect, it } from 'vitest'
import { addWorker, ending, newJob, uncertainTtlSeconds, useStore } from './fixture.ts'

/** Rows that each statement gets. */
const rows = 20
/** Entries of indexes and rows of tables that it may read for each of them, versions left behind by updates included. */
const readsPerRow = 30
const tables = ['jobs', 'requests', 'answers', 'ready', 'attempts', 'stream_chunks']

/** One connection: what it prepares and what it reads can be asked of it. */
const fixture = useStore({ poolSize: 1 })

interface Plan {
  'Node Type': string
  'Relation Name'?: string
  'Index Name'?: string
  'Index Cond'?: string
  'TID Cond'?: string
  Plans?: Plan[]
}

/** The kept plan of every statement that the connection has prepared. */
async function keptPlans(): Promise<Map<string, Plan>> {
  const prepared = await fixture.ownQuery<{ name: string; types: string[] }>(
    'select name, parameter_types::text[] as types from pg_prepared_statements order by name',
  )
  const plans = new Map<string, Plan>()
  for (const { name, types } of prepared) {
    const nulls = types.map((type) => `null::${type}`).join(', ')
    const [row] = await fixture.ownQuery<{ 'QUERY PLAN': [{ Plan: Plan }] }>(
      `explain (format json) execute ${name}${nulls === '' ? '' : ` (${nulls})`}`,
    )
    plans.set(name, row?.['QUERY PLAN'][0].Plan as Plan)
  }
  return plans
}

function nodes(plan: Plan): Plan[] {
  return [plan, ...(plan.Plans ?? []).flatMap(nodes)]
}

/** Scans of the large tables, as `statement: scan`, that begin at no place of an index. */
function unguided(plans: Map<string, Plan>): string[] {
  return [...plans].flatMap(([name, plan]) =>
    nodes(plan)
      .filter((node) => node['Node Type'].endsWith('Scan') && (node['Index Cond'] ?? node['TID Cond']) === undefined)
      // A bitmap's rows come from its index, which is a node of its own and names no table.
      .filter((node) => node['Node Type'] !== 'Bitmap Heap Scan')
      .filter((node) => tables.some((table) => (node['Relation Name'] ?? node['Index Name'] ?? '').startsWith(table)))
      .map((node) => `${name}: ${node['Index Name'] ?? node['Node Type']}`),
  )
}

/** The names of all statements that the sources call hot. */
function hotOnes(): string[] {
  const sources = join(import.meta.dirname, '../../../packages/store/src')
  const files = readdirSync(sources, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'))
  const texts = files.map((file) => readFileSync(join(sources, file), 'utf8'))
  return texts.flatMap((text) => [...text.matchAll(/\(db, '([a-z_]+)'/g)].map(([, name = '']) => name)).toSorted()
}

/** Partial indexes that hold only what is waiting or open, read in their order from the beginning, and as far as the limit goes. */
const fromTheBeginning = new Set(['reclaim_attempts: open_attempts_by_claim'])

async function entriesRead(): Promise<number> {
  await fixture.ownQuery('select pg_stat_force_next_flush()')
  const [row] = await fixture.ownQuery<{ entries: number }>(
    `select (select sum(idx_tup_read) from pg_stat_user_indexes where relname = any($1))
      + (select sum(seq_tup_read) from pg_stat_user_tables where relname = any($1)) as entries`,
    [tables],
  )
  return row?.entries ?? Number.NaN
}

/** Runs every hot statement over jobs of `keys`; what each one read. */
async function everyHotStatement(prefix: string): Promise<Record<string, number>> {
  const { db } = fixture
  const read: Record<string, number> = {}
  const counted = async <Result>(name: string, run: () => Promise<Result>): Promise<Result> => {
    const before = await entriesRead()
    const result = await run()
    read[name] = (await entriesRead()) - before
    return result
  }
  const jobs = Array.from({ length: rows }, (_, index) =>
    newJob(`${prefix}-${index}`, { lane: prefix, ownerBatch: randomUUID(), streamed: true }),
  )
  const again = (given: Partial<NewJob> = {}): NewJob[] => jobs.map((job) => ({ ...job, id: randomUUID(), ...given }))
  const ids = jobs.map(({ id }) => id)
  const attempts = ids.map((jobId) => ({ jobId, attempt: 1 }))
  const update = (set: string): Promise<unknown> =>
    fixture.query(`update jobs set ${set} where id = any($1::uuid[])`, [ids])
  const worker = await addWorker(fixture)

  await counted('insert_jobs', () => submitBatch(db, jobs))
  await counted('read_by_keys', () => submitBatch(db, jobs))
  await counted('disown_jobs', () => submitBatch(db, again({ ownerBatch: null })))
  const refs = ids.map((id) => ({ tenantId: 'default', id }))
  await counted('read_jobs', () => readJobs(db, refs))
  await counted('read_answers', () => readAnswers(db, refs))
  await counted('read_settled', () => readSettled(db, ids))
  const turn = { tenant: '', credit: 0 }
  const request = { workerId: worker, number: 1, lane: prefix, places: rows, turn, agedFirst: false, known: [] }
  const { claims } = await counted('claim_jobs', () => claimJobs(db, request))
  expect(claims).toHaveLength(rows)
  await counted('beat_worker', () => beatWorker(db, worker))
  await counted('read_beats', () => readBeats(db))
  await counted('read_open_attempts', () => readOpenAttempts(db, worker, 0))
  await counted('append_stream_chunks', () =>
    appendStreamChunks(
      db,
      attempts.map((one) => ({ ...one, position: 0, body: Buffer.from('data: 1\n\n') })),
    ),
  )
  await counted('name_answers', () =>
    nameAnswers(
      db,
      attempts.map((one) => ({ ...one, answerId: one.jobId })),
    ),
  )
  await counted('read_streams', () =>
    readStreams(
      db,
      ids.map((jobId) => ({ tenantId: 'default', jobId, attempt: null, position: 0 })),
    ),
  )
  await counted('end_attempts', () =>
    endAttempts(
      db,
      ids.map((id) => ending(id, 'stop')),
      uncertainTtlSeconds,
    ),
  )
  await counted('rerun_failed', () => submitBatch(db, again()))
  await claimJobs(db, { ...request, number: 2 })
  await counted('end_attempts', () =>
    endAttempts(
      db,
      ids.map((id) => ending(id, 'answer', { attempt: 2 })),
      uncertainTtlSeconds,
    ),
  )
  await counted('delete_stream_chunks', () => deleteStreamChunks(db, attempts))
  await update(`expires_at = now() - interval '1 second'`)
  await counted('take_over_expired', () => submitBatch(db, again(), 'look first'))
  await counted('reclaim_attempts', () => reclaimAttempts(db, '{}', rows, uncertainTtlSeconds))
  await counted('notify', () => notify(db, 'askonce_settled', ids))
  // Out of the way of the next ones.
  await fixture.query(`delete from jobs where idempotency_key like '${prefix}-%'`)
  return read
}

/** Succeeded jobs with one attempt each, and queued ones. */
async function fill(prefix: string, succeeded: number, queued: number): Promise<void> {
  const columns = `id, tenant_id, idempotency_key, fingerprint, operation, model, lane, priority, timeout_ms,
    ttl_seconds, deadline_seconds, on_uncertain, max_attempts, max_paid_attempts, run_at, deadline_at`
  const values = (
    kind: string,
  ): string => `gen_random_uuid(), 'default', '${prefix}-${kind}-' || n, sha256('one'), 'chat.completions',
    'simulated/one', 'simulated', 5, 60000, 3600, 86400, 'rerun', 5, 2, now(), now() + interval '1 day'`
  await fixture.query(
    `with made as (
      insert into jobs (${columns}, state, attempt, tries, paid, billed, started_at, completed_at, expires_at, response_status, answer_attempt)
      select ${values('old')}, 'succeeded', 1, 1, 1, 1, now(), now(), now() + interval '1 day', 200, 1
      from generate_series(1, $1::integer) n
      returning *
    ),
    asked as (insert into requests (job_id, request) select id, '{}' from made),
    answered as (
      insert into answers (job_id, tenant_id, attempt, response, response_content_type, answer_id, findable)
      select id, tenant_id, 1, '{}', 'application/json', id, true from made
    )
    insert into attempts (job_id, attempt, generation, tenant_id, idempotency_key, fingerprint, operation, lane, model, worker_id,
      finished_at, outcome, billing)
    select id, 1, 1, tenant_id, idempotency_key, fingerprint, operation, lane, model, gen_random_uuid(), now(), 'answered', 'billed'
    from made`,
    [succeeded],
  )
  await fixture.query(
    `insert into jobs (${columns}, state)
    select ${values('waiting')}, 'queued' from generate_series(1, $1::integer) n`,
    [queued],
  )
}

/**
 * Promise: what a statement of the hot path costs does not depend on how much is stored or waits, although its plan is kept, and was
 * perhaps made when there was nothing. Guards: `checked` and `lockOrder` in fragments.ts, the planner's settings in database.ts, and the order of
 * indexes in 0001_init.sql. Does not cover: what the janitor reads to find what is overdue, whose cost grows with what is open.
 */
describe('kept plans of hot statements', () => {
  const plans = new Map<string, Map<string, Plan>>()
  const read = new Map<string, Record<string, number>>()

  beforeAll(async () => {
    const { query } = fixture
    // Statistics are made where the test says so, and at no other time.
    for (const table of tables) await query(`alter table ${table} set (autovacuum_enabled = false)`)
    await everyHotStatement('first')
    plans.set('never looked at', await keptPlans())
    let size = 0
    for (const more of [0, 1, 4, 15, 30, 50, 200, 700, 4_000]) {
      await fill(`size-${more}`, more, Math.floor(more / 5))
      await query('analyze')
      plans.set(`of ${(size += more)} rows and some that wait`, await keptPlans())
    }
    await query('truncate jobs, requests, answers, expiries, job_lists, ready, attempts, open_attempts')
    await fill('alone', 1, 0)
    await query('analyze')
    plans.set('of one row', await keptPlans())
    // Nothing makes Postgres plan anew: these are the plans of one row, whose statistics know of no job that waits.
    for (let part = 0; part < 40; part += 1) await fill(`large-${part}`, 25_000, 1_250)
    read.set('of one row', await everyHotStatement('second'))
    await query('analyze')
    plans.set('of a million rows', await keptPlans())
    read.set('of a million rows', await everyHotStatement('third'))
  }, 240_000)

  it('find their rows by an index, whatever the size of the tables', () => {
    expect(
      [...plans].map(([size, kept]) => [size, unguided(kept).filter((scan) => !fromTheBeginning.has(scan))]),
    ).toEqual([...plans.keys()].map((size) => [size, []]))
    expect(plans.size).toBe(12)
    for (const kept of plans.values()) expect([...kept.keys()]).toEqual(hotOnes())
  })

  it.each(['of one row', 'of a million rows'])(
    'read what they are asked for among a million rows, with plans %s',
    (when) => {
      const entries = Object.entries(read.get(when) ?? {})
      expect(entries.filter(([, count]) => !(count <= rows * readsPerRow))).toEqual([])
      expect(read.get(when)?.['read_by_keys']).toBeGreaterThanOrEqual(rows)
    },
  )
})
