import type { JobState, RequestHeaders } from '@askonce/core'
import { sql, type RawBuilder } from 'kysely'
import {
  checked,
  jobColumns,
  jobColumnsWithoutBytes,
  jobColumnsWithSmallAnswer,
  mayRunUnasked,
  notExpired,
  prefixRange,
  withAnswer,
} from '../fragments.ts'
import { hot } from '../hot.ts'
import { Rows } from '../rows.ts'
import type { Db, JobRow } from '../tables.ts'

export interface KeyRow extends JobRow {
  expired: boolean
  may_run_unasked: boolean
  /** See `NewJob`. */
  body_digest: Buffer | null
}

/**
 * The rows of these keys, expired ones included and marked; pairs go by position. What the provider has said comes along where it is short: see
 * {@link lacksAnswer}.
 */
export async function readByKeys(db: Db, tenantIds: readonly string[], keys: readonly string[]): Promise<KeyRow[]> {
  const rows = await hot<KeyRow>(db, 'read_by_keys')`
    select ${jobColumnsWithSmallAnswer}, not ${notExpired} as expired, ${mayRunUnasked} as may_run_unasked, j.body_digest
    from unnest(${tenantIds}::text[], ${keys}::text[]) as k (tenant_id, idempotency_key)
    cross join lateral (
      select * from jobs where tenant_id = k.tenant_id and idempotency_key = k.idempotency_key limit 1
    ) j
    ${withAnswer}
  `
  return rows
}

/** Whether a row was read without the answer, or the refusal, that its job has in it. */
export function lacksAnswer(row: JobRow): boolean {
  const { state, response, response_pieces: pieces, error_response: refusal, error_content_type: type } = row
  return state === 'succeeded'
    ? response === null && pieces === null
    : state === 'failed' && refusal === null && type !== null
}

/** A job that somebody of this tenant asks for. */
export interface JobRef {
  tenantId: string
  id: string
}

/**
 * The rows of jobs `j` that are their tenants' own, by position. The tenant is a condition of the read itself: the answer of somebody else's job
 * is never touched, so that its id costs what an unknown one costs.
 */
const referred = (refs: readonly JobRef[]) =>
  new Rows<JobRef>(
    // Many ask for the same answer at the same time; it comes once.
    [...new Map(refs.map((ref) => [`${ref.tenantId} ${ref.id}`, ref])).values()],
    { tenant_id: ['text', (ref) => ref.tenantId], id: ['uuid', (ref) => ref.id] },
    'k',
  )

/** Looked at in the row that the id has found: an index on tenants would read all that the tenant has. */
const ownTenant = checked(sql`j.tenant_id = k.tenant_id`)

/** Live jobs of their tenants by id. With the answer's bytes. */
export async function readJobs(db: Db, refs: readonly JobRef[]): Promise<JobRow[]> {
  const rows = await hot<JobRow>(db, 'read_jobs')`
    select ${jobColumns}
    from ${referred(refs)}
    cross join lateral (
      select * from jobs j where j.id = k.id and ${ownTenant} and ${notExpired} limit 1
    ) j
    ${withAnswer}
  `
  return rows
}

/** What the bytes of a stored answer are sent with; without an answer only what says so. */
export type AnswerRow = Pick<
  JobRow,
  | 'id'
  | 'tenant_id'
  | 'state'
  | 'response'
  | 'response_bytes'
  | 'response_pieces'
  | 'response_status'
  | 'response_content_type'
>

/** Of live jobs of their tenants by id the answer alone: most of a job's columns cost more than its bytes. */
export async function readAnswers(db: Db, refs: readonly JobRef[]): Promise<AnswerRow[]> {
  const rows = await hot<AnswerRow>(db, 'read_answers')`
    select
      j.id, j.tenant_id, j.state, w.response, w.response_bytes, w.response_pieces, j.response_status, w.response_content_type
    from ${referred(refs)}
    cross join lateral (
      select * from jobs j where j.id = k.id and ${ownTenant} and ${notExpired} limit 1
    ) j
    ${withAnswer}
  `
  return rows
}

/** Which of these jobs a waiter need not wait for any longer: settled, expired or gone. */
export async function readSettled(db: Db, ids: readonly string[]): Promise<string[]> {
  const rows = await hot<{ id: string }>(db, 'read_settled')`
    select i.id
    from unnest(${ids}::uuid[]) as i (id)
    left join lateral (select id, state from jobs where id = i.id limit 1) j on true
    where j.id is null or j.state not in ('queued', 'running')
  `
  return rows.map(({ id }) => id)
}

/** The stored request of a job: the exact bytes of its `request` member, its operation, and the headers that go with it. */
export async function readRequest(
  db: Db,
  { tenantId, id }: JobRef,
): Promise<{ operation: string; request: Buffer; request_headers: RequestHeaders | null } | null> {
  const row = await db
    .selectFrom('jobs')
    .innerJoin('requests', 'requests.job_id', 'jobs.id')
    .select(['jobs.operation', 'requests.request', 'requests.request_headers'])
    .where('jobs.id', '=', id)
    .where('jobs.tenant_id', '=', tenantId)
    .executeTakeFirst()
  return row ?? null
}

export interface ListFilter {
  tenantId: string
  key?: string | undefined
  state?: JobState | undefined
  /** RFC 3339. */
  createdAfter?: string | undefined
  createdBefore?: string | undefined
  /** JSON object of which the job's metadata must be a superset. */
  metadata?: string | undefined
  /** Then the list is in the order of keys. */
  keyPrefix?: string | undefined
  /** Only jobs that may have been paid for, or that were or may have been paid for twice; what runs now says nothing yet. */
  paid?: 'maybe' | 'twice' | undefined
  limit: number
  /** Position of the last row of the page before: its created_at as text with microseconds, and its id; in the order of keys its key. */
  after?: { createdAt: string; id: string } | { key: string } | undefined
}

export interface ListedJob extends JobRow {
  /** created_at with microseconds: what a cursor needs and a JavaScript Date loses. */
  cursor_at: string
}

/** As the index jobs_metadata has it. */
const ownMetadata = (tenant: RawBuilder<unknown>, metadata: RawBuilder<unknown>) =>
  sql`jsonb_set('{}', array[${tenant}], ${metadata})`

/** Twin of `lists_of` in migrations/0001_init.sql, where the list is not what is gone through. */
const paidHow = {
  maybe: sql`j.paid - j.billed > (case when j.state = 'running' then 1 else 0 end)`,
  twice: sql`j.paid > (case when j.state = 'running' then 2 else 1 end)`,
}
const lists = { maybe: 'maybe_paid', twice: 'paid_twice' } as const

/**
 * Where a list that is asked for by state or by money begins: with the entries of its jobs, in their order, so that it reads what it finds and
 * not all that the tenant has. Null: in the jobs themselves, most of which have succeeded.
 */
function entriesOf({ tenantId, key, state, metadata, keyPrefix, paid }: ListFilter): RawBuilder<unknown> | null {
  // Found by indexes of their own.
  if (key !== undefined || metadata !== undefined || keyPrefix !== undefined) return null
  if (paid !== undefined) {
    return sql`(select created_at, job_id from job_lists where list = ${lists[paid]} and tenant_id = ${tenantId})`
  }
  if (state === 'queued') return sql`(select created_at, job_id from ready where tenant_id = ${tenantId})`
  if (state === 'running') {
    return sql`(
      select j.created_at, j.id as job_id from (select distinct job_id from open_attempts where tenant_id = ${tenantId}) o
      cross join lateral (select id, created_at from jobs where id = o.job_id limit 1) j
    )`
  }
  if (state === undefined || state === 'succeeded') return null
  return sql`(select created_at, job_id from job_lists where list = ${state} and tenant_id = ${tenantId})`
}

/**
 * Live jobs of a tenant, newest first, or by key where a prefix is given: then they are one range of the unique index. With the answers'
 * bytes only when asked for one key.
 */
export async function listJobs(db: Db, filter: ListFilter): Promise<ListedJob[]> {
  const { tenantId, key, state, createdAfter, createdBefore, metadata, keyPrefix, paid, after } = filter
  const conditions = [
    sql`j.tenant_id = ${tenantId}`,
    notExpired,
    ...(key === undefined ? [] : [sql`j.idempotency_key = ${key}`]),
    ...(state === undefined ? [] : [sql`j.state = ${state}`]),
    ...(createdAfter === undefined ? [] : [sql`j.created_at > ${createdAfter}::timestamptz`]),
    ...(createdBefore === undefined ? [] : [sql`j.created_at < ${createdBefore}::timestamptz`]),
    ...(metadata === undefined
      ? []
      : [
          sql`j.metadata is not null and ${ownMetadata(sql`j.tenant_id`, sql`j.metadata`)}
            @> ${ownMetadata(sql`${tenantId}::text`, sql`${metadata}::jsonb`)}`,
        ]),
    ...(keyPrefix === undefined ? [] : [prefixRange(sql`j.idempotency_key`, keyPrefix)]),
    ...(paid === undefined ? [] : [paidHow[paid]]),
    ...(after === undefined
      ? []
      : 'key' in after
        ? [sql`j.idempotency_key > ${after.key} collate "C"`]
        : [sql`(j.created_at, j.id) < (${after.createdAt}::timestamptz, ${after.id}::uuid)`]),
  ]
  // How rare metadata is the planner does not know, and rather than gather what the index finds it would go through the list of a tenant to its
  // end. An expression in the order leaves it no such choice.
  const newestFirst =
    metadata === undefined ? sql`j.created_at desc, j.id desc` : sql`j.created_at + interval '0' desc, j.id desc`
  const order = keyPrefix === undefined ? newestFirst : sql`j.idempotency_key`
  const { rows } = await sql<ListedJob>`
    select ${key === undefined ? jobColumnsWithoutBytes : jobColumns}, j.created_at::text as cursor_at
    from (${foundBy(filter, sql`where ${sql.join(conditions, sql` and `)}`, order)}) j
    ${withAnswer}
    order by ${order}
  `.execute(db)
  return rows
}

function foundBy(filter: ListFilter, where: RawBuilder<unknown>, order: RawBuilder<unknown>): RawBuilder<unknown> {
  const { createdAfter, createdBefore, after, limit } = filter
  const entries = entriesOf(filter)
  if (entries === null) return sql`select j.* from jobs j ${where} order by ${order} limit ${limit}`
  const span = [
    ...(createdAfter === undefined ? [] : [sql`e.created_at > ${createdAfter}::timestamptz`]),
    ...(createdBefore === undefined ? [] : [sql`e.created_at < ${createdBefore}::timestamptz`]),
    ...(after === undefined || 'key' in after
      ? []
      : [sql`(e.created_at, e.job_id) < (${after.createdAt}::timestamptz, ${after.id}::uuid)`]),
  ]
  return sql`
    select j.* from ${entries} e
    cross join lateral (select * from jobs where id = e.job_id limit 1) j
    ${where} ${span.length === 0 ? sql`` : sql`and ${sql.join(span, sql` and `)}`}
    order by e.created_at desc, e.job_id desc limit ${limit}`
}
