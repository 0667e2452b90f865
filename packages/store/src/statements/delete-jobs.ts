import { sql } from 'kysely'
import { lockOrder, notExpired } from '../fragments.ts'
import type { Db, JobRow } from '../tables.ts'
import type { DecisionRequest } from './run-again.ts'

/** What became of one id. Ids that are unknown, expired or another tenant's are not in the answer. */
export interface DeleteOutcome {
  id: string
  was: JobRow['state']
  generation: number
  /** Whether it is gone; of a rehearsal: whether it would be. */
  allowed: boolean
  /** It was or may have been paid, and has no answer: its key would be paid for once more without anybody having chosen it. */
  consentRequired: boolean
}

/**
 * Forgets terminal jobs: request, answer and shown pieces of a stream gone, key free; the ledger stays. A deletion that needed consent
 * is kept as a decision by the same statement. So is a note of every deleted id, by which copies in the results of batches are removed
 * (see forget-copies.ts): it cannot be lost between the deletion and that.
 *
 * `rehearsal` changes nothing and says what would happen.
 */
export async function deleteJobs(
  db: Db,
  { tenantId, ids, by, reason, generation }: DecisionRequest,
  consent: boolean,
  rehearsal = false,
): Promise<DeleteOutcome[]> {
  const { rows } = await sql<DeleteOutcome>`
    with locked as (
      select
        j.id, j.idempotency_key, j.state as was, j.attempt, j.generation, j.paid,
        j.state in ('failed', 'cancelled') and j.paid > 0 as consent_required
      from jobs j
      where j.tenant_id = ${tenantId} and j.id = any(${ids}::uuid[]) and ${notExpired}
      ${lockOrder}
      for update
    ),
    -- By what was read under the lock: the version of this statement's snapshot may be older.
    picked as (
      select
        l.*,
        l.was in ('succeeded', 'failed', 'cancelled') and l.generation = coalesce(${generation}::integer, l.generation)
          and (${consent}::boolean or not l.consent_required) as allowed
      from locked l
    ),
    gone as (
      delete from jobs j using picked p
      where j.id = p.id and p.allowed and not ${rehearsal}::boolean
      returning j.id
    ),
    -- Its pieces, if its answer has any, are swept next.
    due as (update large_answers l set check_at = now() where l.job_id = any(array(select id from gone))),
    shown as (delete from stream_chunks c where c.job_id = any(array(select id from gone))),
    forgotten as (insert into forgotten_jobs (job_id) select id from gone on conflict do nothing),
    noted as (
      insert into decisions (
        tenant_id, job_id, idempotency_key, action, accept_duplicate_charge, from_state, to_state, attempt, generation, paid,
        api_key_id, api_key_name, reason
      )
      select
        ${tenantId}, p.id, p.idempotency_key, 'delete', true, p.was, 'deleted', p.attempt, p.generation, p.paid,
        ${by.id}::uuid, ${by.name}, ${reason}::text
      from picked p join gone g on g.id = p.id
      where p.consent_required
    )
    select id, was, generation, allowed, consent_required as "consentRequired" from picked
  `.execute(db)
  return rows
}
