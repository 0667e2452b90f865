import { sql, type RawBuilder } from 'kysely'

/**
 * A condition on rows that are found by other means: no index is tried for it, and no join is made by it. Of a partial index over `state =
 * 'queued'` the planner may believe that it is nearly empty, and read all of it. And where it believes that a table has one row, it begins
 * a join with that table and reads all of it.
 *
 * So a hot statement finds rows of a large table in one of two ways, which leave the planner no choice: `j.id = any(array(select …))`, for
 * rows that are locked or changed, with `checked` for what else joins them; or a lateral look-up by key with a limit, for rows that are
 * only read.
 */
export function checked(condition: RawBuilder<unknown>): RawBuilder<boolean> {
  return sql<boolean>`coalesce(${condition}, false)`
}

/**
 * The one order in which statements lock several rows of `jobs j`: by tenant and key. Not as the index on them has it, or a small
 * table would be read whole through that index to save a sort.
 */
export const lockOrder = sql`order by j.tenant_id || '', j.idempotency_key`

/** `expired` is this predicate, by the database clock, never a state. */
export const notExpired = sql<boolean>`(j.expires_at is null or j.expires_at > now())`

/** Twin of `mayRunUnasked` in @askonce/core, over the row `j`. A test compares them over every combination. */
export const mayRunUnasked = sql<boolean>`(j.paid = 0 or (j.on_uncertain = 'rerun' and j.paid < j.max_paid_attempts))`

/** Twin of `mayRun` in @askonce/core, over the row `j`. */
export const mayRun = sql<boolean>`(${mayRunUnasked} or j.paid < j.consented_paid)`

/** Every column of {@link JobRow} that stands in `jobs` itself, but the provider's bytes. */
const narrow = [
  'id',
  'tenant_id',
  'idempotency_key',
  'fingerprint',
  'operation',
  'model',
  'lane',
  'metadata',
  'priority',
  'state',
  'generation',
  'attempt',
  'on_uncertain',
  'max_attempts',
  'max_paid_attempts',
  'tries',
  'paid',
  'billed',
  'consented_paid',
  'run_at',
  'deadline_at',
  'reserve_usd',
  'reserve_tokens',
  'response_status',
  'flags',
  'answer_attempt',
  'owner_batch',
  'streamed',
  'error_content_type',
  'provider_request_id',
  'error',
  'input_tokens',
  'output_tokens',
  'cost_usd',
  'created_at',
  'started_at',
  'uncertain_since',
  'completed_at',
  'expires_at',
]

/** Those that stand in `answers`, but the bytes. */
const ofAnswer = ['response_pieces', 'response_bytes', 'response_content_type', 'answer_id']

/** The answer `w` of the row `j`, or nulls. For rows that are only read; a guard must not ask it. */
export const withAnswer = sql`left join lateral (select * from answers where job_id = j.id limit 1) w on true`

const own = sql.join(narrow.map((name) => sql.ref(`j.${name}`)))
const narrowWithAnswer = sql`${own}, ${sql.join(ofAnswer.map((name) => sql.ref(`w.${name}`)))}`

/** A {@link JobRow} of the row `j`, and its answer `w`, with the provider's bytes. */
export const jobColumns = sql`${narrowWithAnswer}, w.response, j.error_response`

/** Bytes of the provider that a row brings along where many rows are read together. */
const smallAnswerBytes = 64 * 1024

const ifSmall = (bytes: RawBuilder<unknown>, name: string) =>
  // The length stands beside the pointer to a long value: it is not read for this.
  sql`case when octet_length(${bytes}) <= ${sql.lit(smallAnswerBytes)} then ${bytes} end as ${sql.ref(name)}`

/** The same, but of the provider's bytes only those that are few: hundreds of rows in one statement must not bring hundreds of megabytes. */
export const jobColumnsWithSmallAnswer = sql`${narrowWithAnswer}, ${ifSmall(sql`w.response`, 'response')}, ${ifSmall(sql`j.error_response`, 'error_response')}`

/** The same without the provider's bytes: for lists. */
export const jobColumnsWithoutBytes = sql`${narrowWithAnswer}, null::bytea as response, null::bytea as error_response`

/** The same of a row that was just changed and has no answer; one that is being shown has its name all the same. */
export const changedJobColumns = sql`${own}, null::uuid as response_pieces, null::integer as response_bytes,
  null::text as response_content_type, (select answer_id from answers where job_id = j.id limit 1) as answer_id,
  null::bytea as response, null::bytea as error_response`

/** Keys that begin with a text, as one range of an index on keys: they are printable ASCII, and compared byte by byte. */
export function prefixRange(column: RawBuilder<unknown>, prefix: string): RawBuilder<boolean> {
  return sql<boolean>`(${column} >= ${prefix} collate "C" and ${column} < ${`${prefix}\u007F`} collate "C")`
}
