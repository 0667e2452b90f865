import { createHash, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { jobError, type Billing, type EndAction, type JobState, type Outcome } from '@askonce/core'
import {
  openDatabase,
  registerWorker,
  type AttemptEndRecord,
  type Database,
  type DecisionRequest,
  type NewJob,
} from '@askonce/store'
import { leakCheck, startTestPostgres, type TestPostgres } from '@askonce/testkit'
import { sql, type RawBuilder } from 'kysely'
import pg from 'pg'
import { afterAll, beforeAll } from 'vitest'
import { migratedDatabase, type MigratedDatabase } from '../../migrated-database.ts'

type Row = Record<string, unknown>

/** A migrated database on a server of this test file's own. */
export interface Fixture {
  server: TestPostgres
  database: MigratedDatabase
  url: string
  db: Database['db']
  /** For what a test does behind the back of the statements. */
  adminDb: Database['db']
  query<Result = Row>(text: string, values?: readonly unknown[]): Promise<Result[]>
  /** The same on the connections of `db`. */
  ownQuery<Result = Row>(text: string, values?: readonly unknown[]): Promise<Result[]>
}

/** A statement; rejects when Postgres does not answer. */
export async function ping(db: Database['db']): Promise<void> {
  await sql`select 1`.execute(db)
}

/** Starts the server before the tests of the file and stops it after them. The members are there from then on. */
export function useStore(options: { poolSize?: number } = {}): Fixture {
  const fixture = {} as Fixture
  let opened: Database[] = []
  beforeAll(async () => {
    const server = await startTestPostgres()
    const database = await migratedDatabase(server)
    const { url, adminUrl } = database
    opened = [url, adminUrl].map((one) => openDatabase({ url: one, name: 'test', poolSize: options.poolSize ?? 8 }))
    const [db, adminDb] = opened.map((one) => one.db) as [Database['db'], Database['db']]
    const queryOn =
      (on: Database['db']) =>
      async <Result>(text: string, values: readonly unknown[] = []): Promise<Result[]> => {
        const parameters = [...text.matchAll(/\$(\d+)/g)].map(([, number]) => values[Number(number) - 1])
        const statement = sql<Result>(text.split(/\$\d+/) as unknown as TemplateStringsArray, ...parameters)
        return (await statement.execute(on)).rows
      }
    Object.assign(fixture, { server, database, url, db, adminDb, query: queryOn(adminDb), ownQuery: queryOn(db) })
  })
  afterAll(async () => {
    for (const one of opened) await one.close()
    await fixture.server?.stop()
    await leakCheck()
  })
  return fixture
}

/** A time by the database clock, so many seconds from now (negative: ago). */
export function inSeconds(seconds: number): RawBuilder<Date> {
  return sql<Date>`now() + ${seconds} * interval '1 second'`
}

export const sha = (text: string): Buffer => createHash('sha256').update(text).digest()

/** An uncertain_ttl for these tests, longer than any ttl in them. */
export const uncertainTtlSeconds = 2_592_000

/** A submission; its fingerprint is made of `body`. */
export function newJob(key: string, given: Partial<NewJob> & { body?: string } = {}): NewJob {
  const { body = 'one', ...rest } = given
  return {
    id: randomUUID(),
    tenantId: 'default',
    key,
    fingerprint: sha(body),
    bodyDigest: null,
    operation: 'chat.completions',
    model: 'simulated/one',
    lane: 'simulated',
    request: Buffer.from(`{"body":"${body}"}`),
    requestHeaders: null,
    streamed: false,
    ownerBatch: null,
    metadata: null,
    priority: 5,
    timeoutMs: 60_000,
    ttlSeconds: 3_600,
    deadlineSeconds: 86_400,
    onUncertain: 'rerun',
    maxAttempts: 5,
    maxPaidAttempts: 2,
    runAt: null,
    delaySeconds: 0,
    reserveUsd: null,
    reserveTokens: null,
    ...rest,
  }
}

/** What the CHECK constraints ask of a row in each state. */
function columnsOf(state: JobState): Row {
  const claimed = { attempt: 1, tries: 1, paid: 1, started_at: inSeconds(-10) }
  const ended = { completed_at: inSeconds(-5), expires_at: inSeconds(3_600) }
  switch (state) {
    case 'queued':
      return {}
    case 'running':
      return claimed
    case 'uncertain':
      return { ...claimed, uncertain_since: inSeconds(-5) }
    case 'succeeded': {
      return { ...claimed, billed: 1, ...ended, response_status: 200, answer_attempt: 1 }
    }
    case 'failed':
      return { ...ended, error: JSON.stringify(jobError('provider_rejected')) }
    case 'cancelled':
      return ended
  }
}

const ofRequest = ['request', 'request_headers']
const ofAnswer = ['response', 'response_pieces', 'response_bytes', 'response_content_type', 'answer_id']
const storedAnswer = { attempt: 1, response: Buffer.from('{"answer":1}'), response_content_type: 'application/json' }

/** Writes a job directly, with its request and answer; `given` overrides any column. Returns its id. */
export async function insertJob(fixture: Fixture, given: Row & { state?: JobState } = {}): Promise<string> {
  const { state = 'queued' } = given
  const key = (given['idempotency_key'] as string | undefined) ?? randomUUID()
  const row: Row = {
    id: randomUUID(),
    tenant_id: 'default',
    idempotency_key: key,
    fingerprint: sha('one'),
    operation: 'chat.completions',
    model: 'simulated/one',
    lane: 'simulated',
    priority: 5,
    timeout_ms: 60_000,
    ttl_seconds: 3_600,
    deadline_seconds: 86_400,
    state,
    on_uncertain: 'rerun',
    max_attempts: 5,
    max_paid_attempts: 2,
    run_at: inSeconds(-1),
    deadline_at: inSeconds(86_400),
    ...columnsOf(state),
    ...without(given, [...ofRequest, ...ofAnswer]),
  }
  await insertRow(fixture, 'jobs', row)
  const id = row['id'] as string
  await insertRow(fixture, 'requests', {
    job_id: id,
    request: Buffer.from('{"body":"one"}'),
    ...only(given, ofRequest),
  })
  const answered = { ...(state === 'succeeded' ? storedAnswer : {}), ...only(given, ofAnswer) }
  if (Object.values(answered).some((value) => value !== null)) {
    const findable = row['operation'] === 'responses' || (row['metadata'] ?? null) !== null
    await insertRow(fixture, 'answers', { job_id: id, tenant_id: row['tenant_id'], findable, ...answered })
  }
  return id
}

function only(row: Row, names: readonly string[]): Row {
  return Object.fromEntries(Object.entries(row).filter(([name]) => names.includes(name)))
}

function without(row: Row, names: readonly string[]): Row {
  return Object.fromEntries(Object.entries(row).filter(([name]) => !names.includes(name)))
}

/** Writes a ledger row; open unless `given` ends it. */
export async function insertAttempt(fixture: Fixture, jobId: string, given: Row = {}): Promise<void> {
  const ended = given['billing'] === undefined ? {} : { finished_at: inSeconds(-1), outcome: 'unknown' }
  const row: Row = {
    job_id: jobId,
    attempt: 1,
    generation: 1,
    tenant_id: 'default',
    idempotency_key: 'key',
    fingerprint: sha('one'),
    operation: 'chat.completions',
    lane: 'simulated',
    model: 'simulated/one',
    worker_id: randomUUID(),
    ...ended,
    ...given,
  }
  await insertRow(fixture, 'attempts', row)
  if (row['finished_at'] !== undefined) return
  const names = ['worker_id', 'job_id', 'attempt', 'tenant_id', 'lane']
  await insertRow(fixture, 'open_attempts', { claim: row['claim'] ?? 0, ...only(row, names) })
}

async function insertRow({ adminDb }: Fixture, table: string, row: Row): Promise<void> {
  const names = sql.join(Object.keys(row).map((name) => sql.ref(name)))
  await sql`insert into ${sql.table(table)} (${names}) values (${sql.join(Object.values(row))})`.execute(adminDb)
}

/** A running job with its open attempt, as a claim leaves it. */
export async function insertRunning(fixture: Fixture, job: Row = {}, attempt: Row = {}): Promise<string> {
  const id = await insertJob(fixture, { state: 'running', ...job })
  await insertAttempt(fixture, id, { attempt: job['attempt'] ?? 1, ...attempt })
  return id
}

/** A request about these jobs of the tenant `default`. */
export function decisionRequest(ids: readonly string[], given: Partial<DecisionRequest> = {}): DecisionRequest {
  const by = { id: '00000000-0000-4000-8000-000000000001', name: 'somebody' }
  return { tenantId: 'default', ids, by, reason: null, generation: null, ...given }
}

export async function addWorker({ db }: Fixture): Promise<string> {
  const id = randomUUID()
  await registerWorker(db, { id, host: 'test', pid: 1, version: '0' })
  return id
}

/** The one job with this id, every column of its row, its request and its answer. */
export async function jobRow({ query }: Fixture, id: string): Promise<Row> {
  const [row] = await query(
    `select r.*, w.*, j.* from jobs j left join requests r on r.job_id = j.id left join answers w on w.job_id = j.id where j.id = $1`,
    [id],
  )
  if (row === undefined) throw new Error(`no job ${id}`)
  return row
}

export async function attemptRow({ query }: Fixture, jobId: string, attempt = 1): Promise<Row> {
  const [row] = await query('select * from attempts where job_id = $1 and attempt = $2', [jobId, attempt])
  if (row === undefined) throw new Error(`no attempt ${jobId}.${attempt}`)
  return row
}

/** Seconds to a timestamp column of a job, from now by the database clock or from another column. */
export async function secondsTo({ query }: Fixture, column: string, id: string, from = 'now()'): Promise<number> {
  const rows = await query<{ seconds: number }>(
    `select extract(epoch from ${column} - ${from})::float8 as seconds from jobs where id = $1`,
    [id],
  )
  return rows[0]?.seconds ?? Number.NaN
}

export interface OpenTransaction {
  query(text: string, values?: readonly unknown[]): Promise<Row[]>
  finish(how: 'commit' | 'rollback'): Promise<void>
}

/** A transaction on a connection of its own, with its first statement done: what it locks stays locked until `finish`. */
export async function openTransaction(
  { database }: Fixture,
  text: string,
  values: readonly unknown[] = [],
): Promise<OpenTransaction> {
  const client = new pg.Client({ connectionString: database.adminUrl })
  client.on('error', () => undefined)
  await client.connect()
  const query = async (statement: string, parameters: readonly unknown[] = []): Promise<Row[]> =>
    (await client.query<Row>(statement, [...parameters])).rows
  await query('begin')
  await query(text, values)
  return {
    query,
    async finish(how) {
      await query(how)
      await client.end()
    },
  }
}

/** Resolves when so many sessions of this database wait for a lock. */
export async function untilBlocked({ query }: Fixture, count = 1): Promise<void> {
  const waiting = `select count(*) as n from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
  for (;;) {
    const rows = await query<{ n: number }>(waiting)
    if ((rows[0]?.n ?? 0) >= count) return
    await sleep(5)
  }
}

/** What goes with each action, unless a test says otherwise. */
const usual: Record<EndAction, { outcome: Outcome; billing: Billing }> = {
  answer: { outcome: 'answered', billing: 'billed' },
  unstorable: { outcome: 'unstorable', billing: 'billed' },
  stop: { outcome: 'rejected', billing: 'none' },
  rerun: { outcome: 'failed', billing: 'none' },
  unknown: { outcome: 'unknown', billing: 'maybe' },
}

/** The end of an attempt as a worker reports it. */
export function ending(jobId: string, action: EndAction, given: Partial<AttemptEndRecord> = {}): AttemptEndRecord {
  const isAnswer = action === 'answer'
  return {
    jobId,
    attempt: 1,
    action,
    ...usual[action],
    uncounted: false,
    onlyOpen: false,
    delayMs: 0,
    backoff: false,
    error: isAnswer ? null : JSON.stringify(jobError('provider_error')),
    errorCode: isAnswer ? null : 'provider_error',
    providerStatus: isAnswer ? 200 : 500,
    providerRequestId: 'req_1',
    inputTokens: isAnswer ? 11 : null,
    outputTokens: isAnswer ? 22 : null,
    costUsd: isAnswer ? 0.000_033 : null,
    response: isAnswer ? Buffer.from('{"answer":"late"}') : null,
    responsePieces: null,
    responseBytes: null,
    contentType: isAnswer ? 'application/json' : null,
    answerId: isAnswer ? 'chatcmpl-1' : null,
    errorResponse: null,
    errorContentType: null,
    flags: [],
    ...given,
  }
}
