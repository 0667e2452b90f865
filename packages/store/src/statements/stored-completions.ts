import { sql } from 'kysely'
import { jobColumns, notExpired, withAnswer } from '../fragments.ts'
import type { Db, JobRow } from '../tables.ts'

/** The operations whose answers are found again by the provider's id. */
export type NamedOperation = 'responses' | 'chat.completions'

/**
 * Whether the request `r` can have the member `"store"`; whether it does, and what it says, is asked of a parser. Metadata alone does not
 * say it: any job may have some. An escaped name is as good as a plain one. Not by a cast to jsonb: one request that it refuses would fail
 * every list.
 */
const mayBeStored = sql<boolean>`
  (position(${Buffer.from('"store"')}::bytea in r.request) > 0 or position(${Buffer.from(String.raw`\u00`)}::bytea in r.request) > 0)`

/** The newest live job of a tenant whose answer has this id at the provider; chat completions only where they may be stored ones. */
export async function findByAnswerId(
  db: Db,
  tenantId: string,
  operation: NamedOperation,
  answerId: string,
): Promise<string | null> {
  const { rows } = await sql<{ id: string }>`
    select j.id
    from answers w
    join jobs j on j.id = w.job_id
    join requests r on r.job_id = w.job_id
    where
      w.tenant_id = ${tenantId} and w.answer_id = ${answerId} and w.findable and j.operation = ${operation}
      and (j.operation = 'responses' or j.metadata is not null and ${mayBeStored}) and ${notExpired}
    order by j.created_at desc limit 1
  `.execute(db)
  return rows[0]?.id ?? null
}

export interface StoredCompletionsFilter {
  tenantId: string
  model?: string | undefined
  /** JSON object of which the job's metadata must be a superset. */
  metadata: string
  order: 'asc' | 'desc'
  limit: number
  /** Requests and answers together; one row comes in any case. */
  maxBytes: number
  /** Job id of the last one of the page before. */
  after?: string | undefined
}

export interface StoredCandidate extends JobRow {
  request: Buffer
}

/** Whole chat completions whose request may say `"store": true`, in the order of their jobs; with their bytes. */
export async function listStoredCompletions(
  db: Db,
  { tenantId, model, metadata, order, limit, maxBytes, after }: StoredCompletionsFilter,
): Promise<StoredCandidate[]> {
  const direction = sql.raw(order)
  const behind = sql.raw(order === 'asc' ? '>' : '<')
  const { rows } = await sql<StoredCandidate>`
    with found as (
      select l.job_id as id, octet_length(r.request) + coalesce(octet_length(w.response), 0) as bytes
      from job_lists l
      cross join lateral (select * from jobs where id = l.job_id limit 1) j
      cross join lateral (select * from requests where job_id = l.job_id limit 1) r
      ${withAnswer}
      where
        l.list = 'stored' and l.tenant_id = ${tenantId} and j.metadata @> ${metadata}::jsonb and ${mayBeStored} and ${notExpired}
        ${model === undefined ? sql`` : sql`and j.model = ${model}`}
        ${after === undefined ? sql`` : sql`and l.job_id ${behind} ${after}::uuid`}
      order by l.job_id ${direction}
      limit ${limit}
    ),
    page as (select id, sum(bytes) over (order by id ${direction}) - bytes as before from found)
    select ${jobColumns}, r.request
    from page p
    join jobs j on j.id = p.id
    join requests r on r.job_id = p.id
    ${withAnswer}
    where p.before < ${maxBytes}
    order by j.id ${direction}
  `.execute(db)
  return rows
}
