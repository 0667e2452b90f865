import type { DecisionAction } from '@askonce/core'
import { sql, type RawBuilder } from 'kysely'
import { checked, changedJobColumns, lockOrder, mayRunUnasked, notExpired } from '../fragments.ts'
import { hot } from '../hot.ts'
import { Rows } from '../rows.ts'
import type { Db, JobRow } from '../tables.ts'

/** What every request to run resets: a new generation with its own tries, due time and deadline. */
const runOnRequest = sql`
  state = 'queued', generation = j.generation + 1, tries = 0, reruns = 0, run_at = now(),
  deadline_at = now() + make_interval(secs => j.deadline_seconds), uncertain_since = null, completed_at = null, expires_at = null`

export interface Resubmission {
  /** Id of the failed job. */
  id: string
  fingerprint: Buffer
  ownerBatch: string | null
}

/** A job that was cancelled because the one batch that wanted it ended; a person's cancel clears the owner. */
const cancelledWithBatch = sql<boolean>`(j.state = 'cancelled' and j.owner_batch is not null)`

/**
 * A failed key that is submitted again runs again, if that can be done without an unasked second payment; so does one that was
 * cancelled with its batch. Of the latter the new asker is the only one. A failed one may still be awaited by an earlier batch,
 * so it stays with its owner only if that is who asks.
 */
export async function rerunFailed(db: Db, items: readonly Resubmission[]): Promise<JobRow[]> {
  const rows = await hot<JobRow>(db, 'rerun_failed')`
    with input as (
      select * from ${new Rows<Resubmission>(
        items,
        {
          id: ['uuid', (item) => item.id],
          fingerprint: ['bytea', (item) => item.fingerprint],
          owner_batch: ['uuid', (item) => item.ownerBatch],
        },
        'i',
      )}
    ),
    t as (
      select
        j.id,
        case when j.state = 'cancelled' or j.owner_batch = i.owner_batch then i.owner_batch end as owner_batch
      from jobs j, input i
      where j.id = any(array(select id from input)) and ${checked(sql`j.id = i.id`)} and ${checked(sql`(j.state = 'failed' or ${cancelledWithBatch}) and j.fingerprint = i.fingerprint`)} and ${mayRunUnasked} and ${notExpired}
      ${lockOrder}
      for update of j
    )
    update jobs j set ${runOnRequest}, owner_batch = t.owner_batch from t
    where j.id = any(array(select id from t)) and ${checked(sql`j.id = t.id`)}
    returning ${changedJobColumns}
  `
  return rows
}

/** Somebody's request about jobs that exist. */
export interface DecisionRequest {
  tenantId: string
  ids: readonly string[]
  /** The API key that asks. */
  by: { id: string; name: string }
  /** Why, in the words of whoever asks: 1 to 500 characters; null: not said. */
  reason: string | null
  /** Only jobs that are still in this generation; null: whichever they are in. */
  generation: number | null
}

/** What became of one id in a request about several. `generation` is the one that the request found. */
export interface ChangeOutcome {
  id: string
  was: JobRow['state']
  generation: number
  changed: JobRow | null
  consentRequired: boolean
}

interface ChangeRecord extends JobRow {
  picked_id: string
  was: JobRow['state']
  found_generation: number
  may_run_unasked: boolean
}

function toOutcome(record: ChangeRecord): ChangeOutcome {
  const { picked_id, was, found_generation, may_run_unasked, ...row } = record
  return {
    id: picked_id,
    was,
    generation: found_generation,
    changed: row.id === null ? null : row,
    consentRequired: !may_run_unasked,
  }
}

/** What is peculiar to one kind of request: where it is allowed, and what it sets. */
interface Change {
  action: DecisionAction
  consent: boolean
  allowed: RawBuilder<unknown>
  set: RawBuilder<unknown>
}

/**
 * Ids that are unknown, expired or another tenant's are not in the answer. `allowed` is asked where the row is locked: the UPDATE
 * would first ask the version of its snapshot, and pass by a job that has come into the right state during the wait for the lock.
 *
 * The decision is written by the same statement, of what it changed and of nothing else: no crash comes in between.
 */
async function change(
  db: Db,
  { tenantId, ids, by, reason, generation }: DecisionRequest,
  { action, consent, allowed, set }: Change,
): Promise<ChangeOutcome[]> {
  const { rows } = await sql<ChangeRecord>`
    with picked as (
      select
        j.id, j.idempotency_key, j.state as was, j.attempt, j.generation, ${mayRunUnasked} as may_run_unasked,
        ${allowed} and j.generation = coalesce(${generation}::integer, j.generation) as allowed, j.paid, j.consented_paid
      from jobs j
      where j.tenant_id = ${tenantId} and j.id = any(${ids}::uuid[]) and ${notExpired}
      ${lockOrder}
      for update
    ),
    changed as (
      update jobs j set ${set}, owner_batch = null -- a person's decision
      from picked t
      where j.id = t.id and t.allowed
      returning ${changedJobColumns}
    ),
    noted as (
      insert into decisions (
        tenant_id, job_id, idempotency_key, action, accept_duplicate_charge, from_state, to_state, attempt, generation, paid,
        api_key_id, api_key_name, reason
      )
      select
        c.tenant_id, p.id, p.idempotency_key, ${action}, ${consent}::boolean, p.was, c.state, p.attempt, p.generation, p.paid,
        ${by.id}::uuid, ${by.name}, ${reason}::text
      from picked p join changed c on c.id = p.id
    )
    select p.id as picked_id, p.was, p.generation as found_generation, p.may_run_unasked, c.*
    from picked p left join changed c on c.id = p.id
  `.execute(db)
  return rows.map(toOutcome)
}

/**
 * Runs failed, cancelled or uncertain jobs again because somebody asked. Without consent only those that may run unasked
 * change; with it, one more payment than are open, maybe or billed now is accepted.
 */
export function retryJobs(db: Db, request: DecisionRequest, consent: boolean): Promise<ChangeOutcome[]> {
  return change(db, request, {
    action: 'retry',
    consent,
    allowed: sql`(j.state in ('failed', 'cancelled', 'uncertain') and (${consent}::boolean or ${mayRunUnasked}))`,
    // paid stays as it is. It is named because the CHECK is first asked about the older version of the row.
    set: sql`${runOnRequest}, paid = t.paid,
      consented_paid = case when ${consent}::boolean then t.paid + 1 else t.consented_paid end`,
  })
}

/** Cancels queued, running and uncertain jobs. A running attempt stays open until its worker, which is told, ends it. */
export function cancelJobs(db: Db, request: DecisionRequest, uncertainTtlSeconds: number): Promise<ChangeOutcome[]> {
  return change(db, request, {
    action: 'cancel',
    consent: false,
    allowed: sql`(j.state in ('queued', 'running', 'uncertain'))`,
    set: sql`state = 'cancelled', uncertain_since = null, completed_at = now(),
      expires_at = ${expiryAfter(uncertainTtlSeconds)}`,
  })
}

/** Ends uncertain jobs as failed because somebody decided so. `error` is the JSON text of the job's error. */
export function failJobs(
  db: Db,
  request: DecisionRequest,
  error: string,
  uncertainTtlSeconds: number,
): Promise<ChangeOutcome[]> {
  return change(db, request, {
    action: 'fail',
    consent: false,
    allowed: sql`(j.state = 'uncertain')`,
    set: sql`state = 'failed', error = ${error}::jsonb, uncertain_since = null, completed_at = now(),
      expires_at = ${expiryAfter(uncertainTtlSeconds)}`,
  })
}

/** A job with paid attempts is kept for uncertain_ttl at least: a short ttl would reset its budget. */
export function expiryAfter(uncertainTtlSeconds: number): RawBuilder<unknown> {
  return sql`now() + make_interval(secs => greatest(j.ttl_seconds, case when j.paid > 0 then ${uncertainTtlSeconds}::integer else 0 end))`
}
