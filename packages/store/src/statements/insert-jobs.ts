import type { OnUncertain, Operation } from '@askonce/core'
import { sql, type RawBuilder } from 'kysely'
import { hot } from '../hot.ts'
import { Rows, type ColumnMap } from '../rows.ts'
import type { Db, JobRow } from '../tables.ts'

/** A job as a submission describes it. */
export interface NewJob {
  /** UUIDv7 made by the API: whose id is in the row is the creator, which also settles an unclear COMMIT. */
  id: string
  tenantId: string
  key: string
  fingerprint: Buffer
  /**
   * What the body as it was sent, and all that decides its meaning, hash to, and a byte for what it asks of the answer beside the request. The same
   * body sent again is known by it without being parsed. Null: it is parsed.
   */
  bodyDigest: Buffer | null
  operation: Operation
  model: string
  lane: string
  /** The exact bytes for the provider. */
  request: Buffer
  /** Headers that go to the provider with it: JSON text, or null. */
  requestHeaders: string | null
  /** Whether the request asks for a stream. */
  streamed: boolean
  /** The batch that submits it; null: anybody else. */
  ownerBatch: string | null
  /** JSON text, or null. */
  metadata: string | null
  priority: number
  timeoutMs: number
  ttlSeconds: number
  deadlineSeconds: number
  onUncertain: OnUncertain
  maxAttempts: number
  maxPaidAttempts: number
  /** RFC 3339, or null for now. */
  runAt: string | null
  /** Added to `runAt` by the database clock. */
  delaySeconds: number
  /** The most that one call can cost, US dollars, and use, tokens; null: unknown. */
  reserveUsd: number | null
  reserveTokens: number | null
}

export const newJobColumns: ColumnMap<NewJob> = {
  id: ['uuid', (job) => job.id],
  tenant_id: ['text', (job) => job.tenantId],
  idempotency_key: ['text', (job) => job.key],
  fingerprint: ['bytea', (job) => job.fingerprint],
  body_digest: ['bytea', (job) => job.bodyDigest],
  operation: ['text', (job) => job.operation],
  model: ['text', (job) => job.model],
  lane: ['text', (job) => job.lane],
  request: ['bytea', (job) => job.request],
  request_headers: ['text', (job) => job.requestHeaders],
  streamed: ['boolean', (job) => job.streamed],
  owner_batch: ['uuid', (job) => job.ownerBatch],
  metadata: ['text', (job) => job.metadata],
  priority: ['smallint', (job) => job.priority],
  timeout_ms: ['integer', (job) => job.timeoutMs],
  ttl_seconds: ['integer', (job) => job.ttlSeconds],
  deadline_seconds: ['integer', (job) => job.deadlineSeconds],
  on_uncertain: ['text', (job) => job.onUncertain],
  max_attempts: ['smallint', (job) => job.maxAttempts],
  max_paid_attempts: ['smallint', (job) => job.maxPaidAttempts],
  run_at: ['timestamptz', (job) => job.runAt],
  delay_seconds: ['integer', (job) => job.delaySeconds],
  reserve_usd: ['numeric', (job) => job.reserveUsd],
  reserve_tokens: ['integer', (job) => job.reserveTokens],
}

/**
 * When the new job `n` may run, by the database clock alone. A time that has passed means now: counted from then, the deadline could be
 * over before the job is accepted.
 */
export const newRunAt = sql`greatest(n.run_at, now()) + make_interval(secs => n.delay_seconds)`

/** Stores what the new jobs `n` ask, as far as `made` has their ids. */
export const insertRequests = (made: RawBuilder<unknown>) => sql`
  insert into requests (job_id, request, request_headers)
  select n.id, n.request, n.request_headers::jsonb from n where n.id = any(array(select id from ${made}))`

/**
 * Inserts the jobs whose key has no row; the others are simply not returned. One CTE that also read the winners would not
 * see them: their rows are newer than its snapshot. So the look-up is another statement.
 */
export async function insertJobs(db: Db, jobs: readonly NewJob[]): Promise<JobRow[]> {
  const rows = await hot<DecidedByDatabase>(db, 'insert_jobs')`
    with n as (select * from ${new Rows(jobs, newJobColumns, 'n')}),
    made as (
    insert into jobs as j (
      id, tenant_id, idempotency_key, fingerprint, body_digest, operation, model, lane, streamed, owner_batch, metadata, priority, timeout_ms,
      ttl_seconds, deadline_seconds, on_uncertain, max_attempts, max_paid_attempts, reserve_usd, reserve_tokens, state, run_at, deadline_at
    )
    select
      n.id, n.tenant_id, n.idempotency_key, n.fingerprint, n.body_digest, n.operation, n.model, n.lane, n.streamed, n.owner_batch, n.metadata::jsonb,
      n.priority, n.timeout_ms, n.ttl_seconds, n.deadline_seconds, n.on_uncertain, n.max_attempts, n.max_paid_attempts, n.reserve_usd, n.reserve_tokens,
      'queued', ${newRunAt}, ${newRunAt} + make_interval(secs => n.deadline_seconds)
    from n
    order by n.tenant_id, n.idempotency_key collate "C"
    on conflict (tenant_id, idempotency_key) do nothing
    returning id, run_at, deadline_at, created_at
    ),
    asked as (${insertRequests(sql`made`)})
    select * from made
  `
  const jobOf = new Map(jobs.map((job) => [job.id, job]))
  return rows.map((row) => newRow(jobOf.get(row.id) as NewJob, row))
}

type DecidedByDatabase = Pick<JobRow, 'id' | 'run_at' | 'deadline_at' | 'created_at'>

/** The row of a new job. Most of it is what was sent, and reading that back costs as much as sending it. */
function newRow(job: NewJob, decided: DecidedByDatabase): JobRow {
  return {
    id: decided.id,
    tenant_id: job.tenantId,
    idempotency_key: job.key,
    fingerprint: job.fingerprint,
    operation: job.operation,
    model: job.model,
    lane: job.lane,
    metadata: job.metadata === null ? null : (JSON.parse(job.metadata) as Record<string, string>),
    priority: job.priority,
    state: 'queued',
    generation: 1,
    attempt: 0,
    on_uncertain: job.onUncertain,
    max_attempts: job.maxAttempts,
    max_paid_attempts: job.maxPaidAttempts,
    tries: 0,
    paid: 0,
    billed: 0,
    consented_paid: 0,
    run_at: decided.run_at,
    deadline_at: decided.deadline_at,
    reserve_usd: job.reserveUsd,
    reserve_tokens: job.reserveTokens,
    response: null,
    response_pieces: null,
    response_bytes: null,
    response_status: null,
    response_content_type: null,
    flags: [],
    answer_attempt: null,
    owner_batch: job.ownerBatch,
    streamed: job.streamed,
    answer_id: null,
    error_response: null,
    error_content_type: null,
    provider_request_id: null,
    error: null,
    input_tokens: null,
    output_tokens: null,
    cost_usd: null,
    created_at: decided.created_at,
    started_at: null,
    uncertain_since: null,
    completed_at: null,
    expires_at: null,
  }
}
