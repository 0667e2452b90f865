import { sql } from 'kysely'
import { prefixRange } from '../fragments.ts'
import type { Db } from '../tables.ts'

/** Whose rows of the ledger are meant. */
export interface EraseFilter {
  tenantId: string
  /** By the ids of jobs; null: by the other members. */
  jobIds: readonly string[] | null
  key?: string | undefined
  keyPrefix?: string | undefined
  /** JSON object of which the metadata must be a superset. */
  metadata?: string | undefined
  /** RFC 3339: attempts that started, and decisions that were made, before it. */
  before?: string | undefined
  limit: number
}

/** What stands in place of a key: it still tells jobs apart, and says nothing else. */
const erasedKey = sql`'erased/' || t.job_id`

/**
 * Erases what names somebody from ended attempts whose job is gone, at most `limit` rows, and says how many: key, metadata, fingerprint and
 * the provider's id of the request; and in the same commit from the decisions about these jobs, which afterwards nobody could find by the
 * metadata. Who was called when, what it used and what it cost stays, so sums are what they were.
 */
export async function eraseAttempts(db: Db, filter: EraseFilter): Promise<number> {
  const { tenantId, jobIds, key, keyPrefix, metadata, before, limit } = filter
  const conditions = [
    sql`a.tenant_id = ${tenantId} and a.finished_at is not null and a.idempotency_key <> 'erased/' || a.job_id`,
    sql`not exists (select from jobs j where j.id = a.job_id)`,
    ...(jobIds === null ? [] : [sql`a.job_id = any(${jobIds}::uuid[])`]),
    ...(key === undefined ? [] : [sql`a.idempotency_key = ${key}`]),
    ...(keyPrefix === undefined ? [] : [prefixRange(sql`a.idempotency_key`, keyPrefix)]),
    ...(metadata === undefined ? [] : [sql`a.metadata @> ${metadata}::jsonb`]),
    ...(before === undefined ? [] : [sql`a.started_at < ${before}::timestamptz`]),
  ]
  const { rows } = await sql<{ erased: number }>`
    with t as (
      select a.job_id, a.attempt from attempts a where ${sql.join(conditions, sql` and `)} limit ${limit} for update skip locked
    ),
    erased as (
      update attempts a set
        idempotency_key = ${erasedKey}, metadata = null, fingerprint = decode(repeat('00', 32), 'hex'), provider_request_id = null
      from t where a.job_id = t.job_id and a.attempt = t.attempt
      returning 1
    ),
    decided as (
      update decisions d set idempotency_key = 'erased/' || d.job_id, reason = null
      where d.job_id = any(array(select job_id from t)) and d.tenant_id = ${tenantId}
    )
    select count(*) as erased from erased
  `.execute(db)
  return rows[0]?.erased ?? 0
}

/** The same of decisions about jobs that are gone: key and reason. Decisions have no metadata: without ids, a key or a prefix none is meant, and those about the jobs of erased attempts are erased with them. */
export async function eraseDecisions(db: Db, filter: EraseFilter): Promise<number> {
  const { tenantId, jobIds, key, keyPrefix, before, limit } = filter
  if (jobIds === null && key === undefined && keyPrefix === undefined) return 0
  const conditions = [
    sql`d.tenant_id = ${tenantId} and d.idempotency_key <> 'erased/' || d.job_id`,
    sql`not exists (select from jobs j where j.id = d.job_id)`,
    ...(jobIds === null ? [] : [sql`d.job_id = any(${jobIds}::uuid[])`]),
    ...(key === undefined ? [] : [sql`d.idempotency_key = ${key}`]),
    ...(keyPrefix === undefined ? [] : [prefixRange(sql`d.idempotency_key`, keyPrefix)]),
    ...(before === undefined ? [] : [sql`d.at < ${before}::timestamptz`]),
  ]
  const { rows } = await sql<{ erased: number }>`
    with t as (
      select d.id, d.job_id from decisions d where ${sql.join(conditions, sql` and `)} limit ${limit} for update skip locked
    ),
    erased as (
      update decisions d set idempotency_key = ${erasedKey}, reason = null from t where d.id = t.id
      returning 1
    )
    select count(*) as erased from erased
  `.execute(db)
  return rows[0]?.erased ?? 0
}
