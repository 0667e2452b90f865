import type { Billing, EndAction, JobState, Outcome } from '@askonce/core'
import { sql, type RawBuilder } from 'kysely'
import { mayRun, mayRunUnasked, unnest, type ColumnMap } from '../fragments.ts'
import type { Db } from '../tables.ts'

/** How one attempt ended, decided by the worker; what it does to the job is decided by the row. */
export interface AttemptEndRecord {
  jobId: string
  attempt: number
  action: EndAction
  outcome: Outcome
  billing: Billing
  /** Gives the try back. */
  uncounted: boolean
  /** Leaves an attempt alone that has ended meanwhile, even as `maybe`. */
  onlyOpen: boolean
  /** Wait before a rerun, in milliseconds, by the database clock. */
  delayMs: number
  /** Whether that wait counts towards the exponent of the next one. */
  backoff: boolean
  /** JSON text of the job's error; null for an answer. */
  error: string | null
  errorCode: string | null
  providerStatus: number | null
  providerRequestId: string | null
  inputTokens: number | null
  outputTokens: number | null
  costUsd: number | null
  /** The provider's bytes, for an answer. */
  response: Buffer | null
  contentType: string | null
  /** The provider's own id of the answer. */
  answerId: string | null
  /** The provider's own error body and its content type, where it sent one. */
  errorResponse: Buffer | null
  errorContentType: string | null
  flags: readonly string[]
}

export interface EndedAttempt {
  jobId: string
  attempt: number
  tenant: string
  lane: string
  /** Whether this statement changed the ledger; false: the attempt had its final end already. */
  recorded: boolean
  /** State that this end moved the job to; null: only the ledger changed. */
  movedTo: JobState | null
  /** State and answer of the job after this statement; null: the job is gone. */
  state: JobState | null
  answerAttempt: number | null
}

const columns: ColumnMap<AttemptEndRecord> = {
  job_id: ['uuid', (end) => end.jobId],
  attempt: ['integer', (end) => end.attempt],
  action: ['text', (end) => end.action],
  outcome: ['text', (end) => end.outcome],
  billing: ['text', (end) => end.billing],
  uncounted: ['boolean', (end) => end.uncounted],
  only_open: ['boolean', (end) => end.onlyOpen],
  delay_ms: ['bigint', (end) => end.delayMs],
  backoff: ['boolean', (end) => end.backoff],
  error: ['text', (end) => end.error],
  error_code: ['text', (end) => end.errorCode],
  provider_status: ['smallint', (end) => end.providerStatus],
  provider_request_id: ['text', (end) => end.providerRequestId],
  input_tokens: ['bigint', (end) => end.inputTokens],
  output_tokens: ['bigint', (end) => end.outputTokens],
  cost_usd: ['numeric', (end) => end.costUsd],
  response: ['bytea', (end) => end.response],
  content_type: ['text', (end) => end.contentType],
  answer_id: ['text', (end) => end.answerId],
  error_response: ['bytea', (end) => end.errorResponse],
  error_content_type: ['text', (end) => end.errorContentType],
  flags: ['text', (end) => end.flags.join(',')],
}

const deadlineError = sql`jsonb_build_object(
  'code', 'deadline_exceeded', 'retryable', false, 'provider_status', null,
  'message', 'The deadline passed after an attempt that ended with ' || coalesce(i.error_code, i.outcome))`

/**
 * The end of attempts, whoever brings it: a worker, its beat, a spool file or a reclaim. One autocommit statement:
 *
 * 1. `locked` takes the job rows in the one order. FOR UPDATE returns their newest version, so everything below reads columns
 *    that cannot change any more. `attempts` is still read by the older snapshot: only what never changes is taken from it.
 * 2. `decided` is the twin of `decideEnd` in @askonce/core.
 * 3. `recorded` changes the ledger. Postgres evaluates its condition again on the newest version of the row, so an attempt that
 *    somebody ended meanwhile is left alone, and then so is the job.
 * 4. `changed` applies counts and state. Every column that a CHECK reads comes from `locked`, even where it stays as it is: before
 *    Postgres finds that a row has a newer version, it checks the constraints of what the older one would become, and old columns
 *    beside new counts may break one (reproduced: a claim, a take-over and a deletion that committed during the wait for the lock).
 *
 * A job may appear only once in a batch. An attempt that the ledger does not know is not in the answer.
 */
export async function endAttempts(
  db: Db,
  ends: readonly AttemptEndRecord[],
  uncertainTtlSeconds: number,
): Promise<EndedAttempt[]> {
  return run(db, sql`select * from ${unnest(ends, columns, 'i')}`, uncertainTtlSeconds)
}

/**
 * Ends open attempts that have no live worker as `maybe`, at most `limit`. Dead workers are never revived, so the look-up may be
 * stale in one direction only; the job moves only where the fence holds. One attempt of a job at a time, the newest first: two
 * in one statement would meet in one row update, and which of them wins is undefined.
 */
export async function reclaimAttempts(
  db: Db,
  error: string,
  limit: number,
  uncertainTtlSeconds: number,
): Promise<EndedAttempt[]> {
  const source = sql`
    select distinct on (a.job_id)
      a.job_id, a.attempt, 'unknown' as action, 'lost' as outcome, 'maybe' as billing, false as uncounted, true as only_open, 0 as delay_ms,
      false as backoff, ${error}::text as error, 'worker_lost' as error_code, null::smallint as provider_status,
      null::text as provider_request_id, null::bigint as input_tokens, null::bigint as output_tokens, null::numeric as cost_usd,
      null::bytea as response, null::text as content_type,
      null::text as answer_id, null::bytea as error_response, null::text as error_content_type, '' as flags
    from attempts a
    where a.finished_at is null and not exists (select from workers w where w.id = a.worker_id and not w.dead)
    order by a.job_id, a.attempt desc
    limit ${limit}`
  return run(db, source, uncertainTtlSeconds)
}

async function run(db: Db, source: RawBuilder<unknown>, uncertainTtlSeconds: number): Promise<EndedAttempt[]> {
  const after = sql`(select l.on_uncertain, l.max_paid_attempts, l.consented_paid, d.paid) j`
  const { rows } = await sql<EndedAttempt>`
    with input as materialized (${source}),
    locked as materialized (
      select j.* from jobs j where j.id in (select job_id from input)
      order by j.tenant_id, j.idempotency_key
      for update
    ),
    decided as materialized (
      select
        i.*, a.tenant_id, a.lane, l.state as was, l.answer_attempt, d.paid, d.tries,
        case
          when l.id is null then null
          when i.action = 'answer' then
            case when l.state not in ('succeeded', 'cancelled') and (l.expires_at is null or l.expires_at > now()) then 'succeeded' end
          when not (l.state = 'running' and l.attempt = i.attempt) then
            case
              when l.state = 'uncertain' and i.billing = 'none' and l.deadline_at > now() and d.tries < l.max_attempts
                and (select ${mayRunUnasked} from ${after})
              then 'queued'
            end
          when i.action = 'unstorable' then 'uncertain'
          when i.action = 'stop' then 'failed'
          when i.action = 'rerun' then
            case
              when l.deadline_at <= now() or d.tries >= l.max_attempts then 'failed'
              when (select ${mayRun} from ${after}) then 'queued'
              else 'uncertain'
            end
          when l.on_uncertain = 'fail' then 'failed'
          when l.on_uncertain = 'rerun' and l.deadline_at > now() and d.tries < l.max_attempts
            and (select ${mayRun} from ${after})
          then 'queued'
          else 'uncertain'
        end as next,
        l.state = 'running' and l.attempt = i.attempt as owned,
        case when i.action = 'rerun' and l.deadline_at <= now() then ${deadlineError} else i.error::jsonb end as job_error
      from input i
      join attempts a on a.job_id = i.job_id and a.attempt = i.attempt
      left join locked l on l.id = i.job_id
      cross join lateral (
        select
          l.paid - (i.billing = 'none')::int as paid,
          l.tries - (i.uncounted and a.generation = l.generation)::int as tries
      ) d
    ),
    recorded as (
      update attempts a set
        finished_at = coalesce(a.finished_at, now()),
        outcome = case when d.action = 'answer' and d.next is null then 'surplus' else d.outcome end,
        billing = d.billing, provider_status = d.provider_status, error_code = d.error_code,
        provider_request_id = d.provider_request_id, input_tokens = d.input_tokens, output_tokens = d.output_tokens,
        cost_usd = d.cost_usd
      from decided d
      where
        a.job_id = d.job_id and a.attempt = d.attempt
        and (a.billing is null or (a.billing = 'maybe' and d.billing <> 'maybe' and not d.only_open))
      returning a.job_id, a.attempt
    ),
    changed as (
      update jobs j set
        attempt = l.attempt, started_at = l.started_at, consented_paid = l.consented_paid,
        paid = d.paid, tries = d.tries, billed = l.billed + (d.billing = 'billed')::int,
        input_tokens = case when d.input_tokens is null then l.input_tokens else coalesce(l.input_tokens, 0) + d.input_tokens end,
        output_tokens = case when d.output_tokens is null then l.output_tokens else coalesce(l.output_tokens, 0) + d.output_tokens end,
        cost_usd = case when d.cost_usd is null then l.cost_usd else coalesce(l.cost_usd, 0) + d.cost_usd end,
        state = coalesce(d.next, l.state),
        reruns = case when d.owned and d.next = 'queued' then l.reruns + d.backoff::int else l.reruns end,
        run_at = case when d.next = 'queued' then now() + d.delay_ms * interval '1 millisecond' else l.run_at end,
        dispatched_at = case when d.next = 'queued' then null else l.dispatched_at end,
        error = case when d.next = 'succeeded' then null when d.owned then d.job_error else l.error end,
        error_response = case when d.next = 'succeeded' then null when d.owned then d.error_response else l.error_response end,
        error_content_type = case
          when d.next = 'succeeded' then null when d.owned then d.error_content_type else l.error_content_type
        end,
        uncertain_since = case
          when d.next is null then l.uncertain_since when d.next = 'uncertain' then now()
        end,
        completed_at = case when d.next is null then l.completed_at when d.next in ('succeeded', 'failed') then now() end,
        expires_at = case
          when d.next is null then l.expires_at
          when d.next = 'succeeded' then now() + make_interval(secs => l.ttl_seconds)
          when d.next = 'failed' then
            now() + make_interval(secs => greatest(l.ttl_seconds, case when d.paid > 0 then ${uncertainTtlSeconds}::integer else 0 end))
        end,
        response = case when d.next = 'succeeded' then d.response else l.response end,
        response_status = case when d.next = 'succeeded' then d.provider_status else l.response_status end,
        response_content_type = case when d.next = 'succeeded' then d.content_type else l.response_content_type end,
        provider_request_id = case when d.next = 'succeeded' or d.owned then d.provider_request_id else l.provider_request_id end,
        answer_id = case when d.next = 'succeeded' then d.answer_id else l.answer_id end,
        answer_attempt = case when d.next = 'succeeded' then d.attempt else l.answer_attempt end,
        flags = case when d.next = 'succeeded' then coalesce(string_to_array(nullif(d.flags, ''), ','), '{}') else l.flags end
      from decided d
      join recorded r on r.job_id = d.job_id and r.attempt = d.attempt
      join locked l on l.id = d.job_id
      where j.id = l.id
      returning j.id, j.state, j.answer_attempt
    )
    select
      d.job_id as "jobId", d.attempt, d.tenant_id as tenant, d.lane, r.job_id is not null as recorded,
      case when r.job_id is not null then d.next end as "movedTo",
      coalesce(c.state, d.was) as state, coalesce(c.answer_attempt, d.answer_attempt) as "answerAttempt"
    from decided d
    left join recorded r on r.job_id = d.job_id and r.attempt = d.attempt
    left join changed c on c.id = d.job_id
  `.execute(db)
  return rows
}
