import type { Billing, EndAction, JobState, Outcome } from '@askonce/core'
import { sql, type RawBuilder } from 'kysely'
import { checked, lockOrder, mayRun, mayRunUnasked } from '../fragments.ts'
import { hot } from '../hot.ts'
import { type ColumnMap, Rows } from '../rows.ts'
import type { Db } from '../tables.ts'
import { settlement } from './settlement.ts'

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
  /** Of an answer whose bytes stand in pieces: which, and its length; then `response` is null. */
  responsePieces: string | null
  responseBytes: number | null
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
  response_pieces: ['uuid', (end) => end.responsePieces],
  response_bytes: ['integer', (end) => end.responseBytes],
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
 * 4. `closed` takes it out of what is open, and `settlement` settles what it had reserved.
 * 5. `changed` applies counts and state. Every column that a CHECK reads comes from `locked`, even where it stays as it is: before
 *    Postgres finds that a row has a newer version, it checks the constraints of what the older one would become, and old columns
 *    beside new counts may break one (reproduced: a claim, a take-over and a deletion that committed during the wait for the lock).
 *    `answered` and `expiring` write what goes with a stored answer.
 *
 * A job may appear only once in a batch. An attempt that the ledger does not know is not in the answer.
 */
export async function endAttempts(
  db: Db,
  ends: readonly AttemptEndRecord[],
  uncertainTtlSeconds: number,
): Promise<EndedAttempt[]> {
  const end = (some: readonly AttemptEndRecord[]): Promise<EndedAttempt[]> =>
    run(db, 'end_attempts', new Rows(some, columns, 'i'), uncertainTtlSeconds)
  const ended = await end(ends)
  if (ended.length === ends.length) return ended
  // Not in the ledger, or a job that was deleted while its lock was awaited: gone for the next snapshot.
  const known = new Set(ended.map(({ jobId }) => jobId))
  return [...ended, ...(await end(ends.filter(({ jobId }) => !known.has(jobId))))]
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
  const source = sql`(
    select distinct on (a.job_id)
      a.job_id, a.attempt, 'unknown' as action, 'lost' as outcome, 'maybe' as billing, false as uncounted, true as only_open, 0 as delay_ms,
      false as backoff, ${error}::text as error, 'worker_lost' as error_code, null::smallint as provider_status,
      null::text as provider_request_id, null::bigint as input_tokens, null::bigint as output_tokens, null::numeric as cost_usd,
      null::bytea as response, null::uuid as response_pieces, null::integer as response_bytes, null::text as content_type,
      null::text as answer_id, null::bytea as error_response, null::text as error_content_type, '' as flags
    from (
      select a.job_id, a.attempt from open_attempts a
      where not exists (select from workers w where w.id = a.worker_id and not w.dead)
      -- Found before they are sorted: the primary key has them in order, but among all that have ended.
      offset 0
    ) a
    order by a.job_id, a.attempt desc
    limit ${limit}
  ) i`
  return run(db, 'reclaim_attempts', source, uncertainTtlSeconds)
}

/** What `changed` takes over from the locked row, there called `was_…`. */
const kept = sql.join(
  [
    'state',
    'attempt',
    'started_at',
    'consented_paid',
    'billed',
    'input_tokens',
    'output_tokens',
    'cost_usd',
    'reruns',
    'run_at',
    'error',
    'error_response',
    'error_content_type',
    'uncertain_since',
    'completed_at',
    'expires_at',
    'response_status',
    'provider_request_id',
    'answer_attempt',
    'flags',
    'on_uncertain',
    'max_attempts',
    'max_paid_attempts',
    'deadline_at',
    'ttl_seconds',
    'generation',
    'paid',
    'tries',
  ].map((name) => sql`j.${sql.ref(name)} as ${sql.ref(`was_${name}`)}`),
)

const answerColumns = sql`
  job_id, tenant_id, attempt, response, response_pieces, response_bytes, response_content_type, answer_id, findable`
const answerOfEnd = sql`job_id, tenant_id, attempt, response, response_pieces, response_bytes, content_type, answer_id, findable`

/** The row that the policy is asked about. */
const after = sql`(select i.was_on_uncertain as on_uncertain, i.was_max_paid_attempts as max_paid_attempts,
    i.was_consented_paid as consented_paid, c.paid) j`
const mayRunAfter = sql`(select ${mayRun} from ${after})`
const mayRunUnaskedAfter = sql`(select ${mayRunUnasked} from ${after})`
const sameJob = checked(sql`j.id = i.job_id`)
const sameAttempt = checked(sql`a.job_id = d.job_id and a.attempt = d.attempt`)
const sameFound = checked(sql`j.id = d.found`)
/** Whether the answer of the row `j` may be asked for by the provider's id. */
export const findable = sql`(j.operation = 'responses' or j.metadata is not null)`
/** Nobody has ended it meanwhile, or only as maybe. */
const endable = checked(sql`(a.billing is null or (a.billing = 'maybe' and d.billing <> 'maybe' and not d.only_open))`)

async function run(
  db: Db,
  name: string,
  source: Rows<AttemptEndRecord> | RawBuilder<unknown>,
  uncertainTtlSeconds: number,
): Promise<EndedAttempt[]> {
  const rows = await hot<EndedAttempt>(db, name)`
    with input as materialized (select * from ${source}),
    locked as materialized (
      select i.*, j.id as found, ${kept}
      from input i join jobs j on j.id = any(array(select job_id from input)) and ${sameJob}
      ${lockOrder} for update of j
    ),
    gone as (
      select i.*, j.id as found, ${kept}
      from input i left join lateral (select * from jobs where id = i.job_id limit 1) j on true
      where j.id is null
    ),
    decided as materialized (
      select
        i.*, a.tenant_id, a.lane, a.worker_id, a.claim, c.paid, c.tries,
        case
          when i.found is null then null
          when i.action = 'answer' then
            case when i.was_state not in ('succeeded', 'cancelled') and (i.was_expires_at is null or i.was_expires_at > now()) then 'succeeded' end
          when not (i.was_state = 'running' and i.was_attempt = i.attempt) then
            case
              when i.was_state = 'uncertain' and i.billing = 'none' and i.was_deadline_at > now() and c.tries < i.was_max_attempts
                and ${mayRunUnaskedAfter}
              then 'queued'
            end
          when i.action = 'unstorable' then 'uncertain'
          when i.action = 'stop' then 'failed'
          when i.action = 'rerun' then
            case
              when i.was_deadline_at <= now() or c.tries >= i.was_max_attempts then 'failed'
              when ${mayRunAfter} then 'queued'
              else 'uncertain'
            end
          when i.was_on_uncertain = 'fail' then 'failed'
          when i.was_on_uncertain = 'rerun' and i.was_deadline_at > now() and c.tries < i.was_max_attempts
            and ${mayRunAfter}
          then 'queued'
          else 'uncertain'
        end as next,
        i.was_state = 'running' and i.was_attempt = i.attempt as owned,
        case when i.action = 'rerun' and i.was_deadline_at <= now() then ${deadlineError} else i.error::jsonb end as job_error
      from (select * from locked union all select * from gone) i
      cross join lateral (
        select tenant_id, lane, generation, worker_id, claim from attempts where job_id = i.job_id and attempt = i.attempt limit 1
      ) a
      cross join lateral (
        select
          i.was_paid - (i.billing = 'none')::int as paid,
          i.was_tries - (i.uncounted and a.generation = i.was_generation)::int as tries
      ) c
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
        a.job_id = any(array(select job_id from decided)) and ${sameAttempt}
        and ${endable}
      returning d.*, a.started_at, a.reserved_usd, a.reserved_tokens
    ),
    changed as (
      update jobs j set
        attempt = d.was_attempt, started_at = d.was_started_at, consented_paid = d.was_consented_paid,
        paid = d.paid, tries = d.tries, billed = d.was_billed + (d.billing = 'billed')::int,
        input_tokens = case when d.input_tokens is null then d.was_input_tokens else coalesce(d.was_input_tokens, 0) + d.input_tokens end,
        output_tokens = case when d.output_tokens is null then d.was_output_tokens else coalesce(d.was_output_tokens, 0) + d.output_tokens end,
        cost_usd = case when d.cost_usd is null then d.was_cost_usd else coalesce(d.was_cost_usd, 0) + d.cost_usd end,
        state = coalesce(d.next, d.was_state),
        reruns = case when d.owned and d.next = 'queued' then d.was_reruns + d.backoff::int else d.was_reruns end,
        run_at = case when d.next = 'queued' then now() + d.delay_ms * interval '1 millisecond' else d.was_run_at end,
        error = case when d.next = 'succeeded' then null when d.owned then d.job_error else d.was_error end,
        error_response = case when d.next = 'succeeded' then null when d.owned then d.error_response else d.was_error_response end,
        error_content_type = case
          when d.next = 'succeeded' then null when d.owned then d.error_content_type else d.was_error_content_type
        end,
        uncertain_since = case
          when d.next is null then d.was_uncertain_since when d.next = 'uncertain' then now()
        end,
        completed_at = case when d.next is null then d.was_completed_at when d.next in ('succeeded', 'failed') then now() end,
        expires_at = case
          when d.next is null then d.was_expires_at
          when d.next = 'succeeded' then now() + make_interval(secs => d.was_ttl_seconds)
          when d.next = 'failed' then
            now() + make_interval(secs => greatest(d.was_ttl_seconds, case when d.paid > 0 then ${uncertainTtlSeconds}::integer else 0 end))
        end,
        response_status = case when d.next = 'succeeded' then d.provider_status else d.was_response_status end,
        provider_request_id = case when d.next = 'succeeded' or d.owned then d.provider_request_id else d.was_provider_request_id end,
        answer_attempt = case when d.next = 'succeeded' then d.attempt else d.was_answer_attempt end,
        flags = case when d.next = 'succeeded' then coalesce(string_to_array(nullif(d.flags, ''), ','), '{}') else d.was_flags end
      from recorded d
      where j.id = any(array(select found from recorded)) and ${sameFound}
      returning d.*, j.state, j.answer_attempt, j.expires_at, j.streamed, ${findable} as findable
    ),
    answered as (
      insert into answers (${answerColumns})
      select ${answerOfEnd} from changed where next = 'succeeded' and not streamed
    ),
    -- It may have been named while it was shown.
    shown as (
      insert into answers (${answerColumns})
      select ${answerOfEnd} from changed where next = 'succeeded' and streamed
      on conflict (job_id) do update set
        attempt = excluded.attempt, response = excluded.response, response_pieces = excluded.response_pieces, response_bytes = excluded.response_bytes,
        response_content_type = excluded.response_content_type, answer_id = excluded.answer_id
    ),
    expiring as (
      insert into expiries (expires_at, job_ids)
      select expires_at, array_agg(job_id) from changed where next = 'succeeded' group by expires_at
    ),
    closed as (
      delete from open_attempts where ctid = any(array(
        select o.ctid from recorded d
        cross join lateral (
          select ctid from open_attempts
          where worker_id = d.worker_id and claim = d.claim and job_id = d.job_id and attempt = d.attempt limit 1
        ) o
      ))
    ),
    ${settlement}
    select
      job_id as "jobId", attempt, tenant_id as tenant, lane, false as recorded, null as "movedTo",
      was_state as state, was_answer_attempt as "answerAttempt"
    from decided
    union all
    select job_id, attempt, tenant_id, lane, true, null, null, null from recorded where found is null
    union all
    select job_id, attempt, tenant_id, lane, true, next, state, answer_attempt from changed
  `
  // Joined here and not there: a join of CTEs, whose size the planner does not know, compares each row with each.
  const byJob = new Map<string, EndedAttempt>()
  for (const row of rows) if (row.recorded || !byJob.has(row.jobId)) byJob.set(row.jobId, row)
  return [...byJob.values()]
}
