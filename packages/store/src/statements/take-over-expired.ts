import { simulatedLane } from '@askonce/core'
import { sql } from 'kysely'
import { changedJobColumns, checked, lockOrder } from '../fragments.ts'
import { hot } from '../hot.ts'
import { Rows } from '../rows.ts'
import type { Db, JobRow } from '../tables.ts'
import { insertRequests, newJobColumns, newRunAt, type NewJob } from './insert-jobs.ts'

/**
 * Whether the answer to the row `j` is, or will be, a made-up one, although the same request `n` now goes to a real provider: the
 * variables of that provider were not set, or the configuration file gave the model to another lane. Asked of few rows, so the new
 * jobs are looked through and not joined.
 */
const madeUp = sql`(j.lane = ${sql.lit(simulatedLane)} and exists (
  select from n
  where n.tenant_id = j.tenant_id and n.idempotency_key = j.idempotency_key and n.fingerprint = j.fingerprint
    and n.lane <> ${sql.lit(simulatedLane)}
))`

/** Twin of {@link madeUp}, for deciding whether the statement is worth its while. */
export function isMadeUp(
  row: Pick<JobRow, 'lane' | 'fingerprint'>,
  item: Pick<NewJob, 'lane' | 'fingerprint'>,
): boolean {
  return row.lane === simulatedLane && item.lane !== simulatedLane && row.fingerprint.equals(item.fingerprint)
}

/**
 * Gives the rows of expired keys to new jobs, each with its new id: the old id is `not_found` from this commit on. So are rows of the
 * simulated provider whose request now goes to a real one, in whatever state: nothing was paid for them, and what is made up is never
 * replayed as an answer. A key whose row is neither any more, or gone, is not returned.
 */
export async function takeOverExpired(db: Db, jobs: readonly NewJob[]): Promise<JobRow[]> {
  const rows = await hot<JobRow>(db, 'take_over_expired')`
    with n as (select * from ${new Rows(jobs, newJobColumns, 'n')}),
    known as (
      select j.id from n
      cross join lateral (
        select id from jobs where tenant_id = n.tenant_id and idempotency_key = n.idempotency_key limit 1
      ) j
    ),
    expired as (
      select j.id as old_id, j.tenant_id, j.idempotency_key
      from jobs j
      where j.id = any(array(select id from known)) and ${checked(sql`(j.expires_at <= now() or ${madeUp})`)}
      ${lockOrder}
      for update
    ),
    made as (
    update jobs j set
      id = n.id, fingerprint = n.fingerprint, body_digest = n.body_digest, operation = n.operation, model = n.model, lane = n.lane,
      streamed = n.streamed, owner_batch = n.owner_batch, metadata = n.metadata::jsonb, priority = n.priority, timeout_ms = n.timeout_ms, ttl_seconds = n.ttl_seconds,
      deadline_seconds = n.deadline_seconds, on_uncertain = n.on_uncertain, max_attempts = n.max_attempts,
      max_paid_attempts = n.max_paid_attempts, reserve_usd = n.reserve_usd, reserve_tokens = n.reserve_tokens, state = 'queued', generation = 1, attempt = 0, tries = 0, paid = 0, billed = 0,
      consented_paid = 0, reruns = 0, run_at = ${newRunAt},
      deadline_at = ${newRunAt} + make_interval(secs => n.deadline_seconds),
      response_status = null, flags = '{}', answer_attempt = null,
      provider_request_id = null, error = null, error_response = null, error_content_type = null, input_tokens = null, output_tokens = null, cost_usd = null, created_at = now(),
      started_at = null, uncertain_since = null, completed_at = null, expires_at = null
    from expired e
    join n on n.tenant_id = e.tenant_id and n.idempotency_key = e.idempotency_key
    where j.id = any(array(select old_id from expired)) and ${checked(sql`j.id = e.old_id`)}
    returning ${changedJobColumns}
    ),
    asked as (${insertRequests(sql`made`)})
    select * from made
  `
  return rows
}
