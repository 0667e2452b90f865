import type { JobState } from '@askonce/core'
import { sql } from 'kysely'
import { jobColumns, jobColumnsWithoutResponse, mayRunUnasked, notExpired } from '../fragments.ts'
import { hot } from '../hot.ts'
import type { Db, JobRow } from '../tables.ts'

export interface KeyRow extends JobRow {
  expired: boolean
  may_run_unasked: boolean
}

/** The rows of these keys, expired ones included and marked; pairs go by position. */
export async function readByKeys(db: Db, tenantIds: readonly string[], keys: readonly string[]): Promise<KeyRow[]> {
  const rows = await hot<KeyRow>(db, 'read_by_keys')`
    select ${jobColumns}, not ${notExpired} as expired, ${mayRunUnasked} as may_run_unasked
    from unnest(${tenantIds}::text[], ${keys}::text[]) as k (tenant_id, idempotency_key)
    cross join lateral (
      select * from jobs where tenant_id = k.tenant_id and idempotency_key = k.idempotency_key limit 1
    ) j
  `
  return rows
}

/** Live jobs by id, whatever the tenant; the caller compares it. With the answer's bytes. */
export async function readJobs(db: Db, ids: readonly string[]): Promise<JobRow[]> {
  const rows = await hot<JobRow>(db, 'read_jobs')`
    select ${jobColumns} from jobs j where j.id = any(${ids}::uuid[]) and ${notExpired}
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
  | 'answer_attempt'
  | 'response_status'
  | 'response_content_type'
>

/** Of live jobs by id, whatever the tenant, the answer alone: most of a job's columns cost more than its bytes. */
export async function readAnswers(db: Db, ids: readonly string[]): Promise<AnswerRow[]> {
  const rows = await hot<AnswerRow>(db, 'read_answers')`
    select j.id, j.tenant_id, j.state, j.response, j.response_bytes, j.answer_attempt, j.response_status,
      j.response_content_type
    from jobs j where j.id = any(${ids}::uuid[]) and ${notExpired}
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

/** The stored request of a job: the exact bytes of its `request` member, and its operation. */
export async function readRequest(db: Db, id: string): Promise<{ operation: string; request: Buffer } | null> {
  const row = await db.selectFrom('jobs').select(['operation', 'request']).where('id', '=', id).executeTakeFirst()
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
  limit: number
  /** Position of the last row of the page before: its created_at as text with microseconds, and its id. */
  after?: { createdAt: string; id: string } | undefined
}

export interface ListedJob extends JobRow {
  /** created_at with microseconds: what a cursor needs and a JavaScript Date loses. */
  cursor_at: string
}

/** Live jobs of a tenant, newest first. With the answers' bytes only when asked for one key. */
export async function listJobs(db: Db, filter: ListFilter): Promise<ListedJob[]> {
  const { tenantId, key, state, createdAfter, createdBefore, metadata, limit, after } = filter
  const conditions = [
    sql`j.tenant_id = ${tenantId}`,
    notExpired,
    ...(key === undefined ? [] : [sql`j.idempotency_key = ${key}`]),
    ...(state === undefined
      ? []
      : [state === 'succeeded' ? sql`j.state = 'succeeded'` : sql`nullif(j.state, 'succeeded') = ${state}`]),
    ...(createdAfter === undefined ? [] : [sql`j.created_at > ${createdAfter}::timestamptz`]),
    ...(createdBefore === undefined ? [] : [sql`j.created_at < ${createdBefore}::timestamptz`]),
    ...(metadata === undefined ? [] : [sql`j.metadata @> ${metadata}::jsonb`]),
    ...(after === undefined ? [] : [sql`(j.created_at, j.id) < (${after.createdAt}::timestamptz, ${after.id}::uuid)`]),
  ]
  const { rows } = await sql<ListedJob>`
    select ${key === undefined ? jobColumnsWithoutResponse : jobColumns}, j.created_at::text as cursor_at
    from jobs j
    where ${sql.join(conditions, sql` and `)}
    order by j.created_at desc, j.id desc
    limit ${limit}
  `.execute(db)
  return rows
}
