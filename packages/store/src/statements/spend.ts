import { sql } from 'kysely'
import { prefixRange } from '../fragments.ts'
import { judgement, ledgerTotals, simulatedLane, type LedgerTotals } from '../ledger-totals.ts'
import type { Db } from '../tables.ts'

/** A moment: with an offset, or as the clocks of the time zone show it. */
export interface Moment {
  text: string
  isLocal: boolean
}

/** Which attempts of a tenant are meant. */
export interface SpendScope {
  tenantId: string
  /** Included. */
  since: Moment
  /** Left out. */
  until: Moment
  /** IANA name: whose days, and whose clocks. */
  timeZone: string
  keyPrefix?: string | undefined
  /** JSON object of which the metadata of the job must have been a superset. */
  metadata?: string | undefined
  /** The simulator's attempts instead of all others. */
  simulated: boolean
}

export interface SpendQuery extends SpendScope {
  /** Whether each day is divided by lane and model. */
  byModel: boolean
  /** Most rows. */
  limit: number
}

export interface SpendRow extends LedgerTotals {
  date: string
  /** Lane and model; null unless the days are divided. */
  lane: string | null
  model: string | null
}

/** What was paid for twice, or may have been, of one job. */
export interface SpentTwice extends Pick<
  LedgerTotals,
  'duplicates' | 'duplicate_cost_usd' | 'possible_duplicates' | 'possible_duplicate_cost_usd'
> {
  key: string
  job_id: string
}

const instant = ({ text, isLocal }: Moment, timeZone: string) =>
  isLocal ? sql`(${text}::timestamp at time zone ${timeZone}::text)` : sql`${text}::timestamptz`

/**
 * The attempts of a scope, `mine`, and of those that belong to a job with several the judgement, `judged`.
 *
 * The span is one range of the index on tenant and time, a prefix one of that on tenant and key. Whether an attempt is a duplicate depends on others
 * of its job, which may lie outside; they are looked up by the primary key, for jobs with more than one attempt only.
 */
function attemptsOf({ tenantId, since, until, timeZone, keyPrefix, metadata, simulated }: SpendScope) {
  const conditions = [
    sql`a.tenant_id = ${tenantId}`,
    sql`a.started_at >= ${instant(since, timeZone)} and a.started_at < ${instant(until, timeZone)}`,
    simulated ? sql`a.lane = ${simulatedLane}` : sql`a.lane <> ${simulatedLane}`,
    ...(keyPrefix === undefined ? [] : [prefixRange(sql`a.idempotency_key`, keyPrefix)]),
    ...(metadata === undefined ? [] : [sql`a.metadata @> ${metadata}::jsonb`]),
  ]
  return sql`
    mine as not materialized (
      select a.*, (a.started_at at time zone ${timeZone}::text)::date as day from attempts a
      where ${sql.join(conditions, sql` and `)}
    ),
    repeated as (
      select distinct m.job_id from mine m
      where m.billing is distinct from 'none'
        and (m.attempt > 1 or exists (select from attempts other where other.job_id = m.job_id and other.attempt > 1))
    ),
    judged as (
      select a.job_id, a.attempt, ${judgement} from attempts a join repeated r on r.job_id = a.job_id
    )`
}

/**
 * What a tenant's attempts of a span have cost, by the day on which they started: days without any are left out. Null when there
 * are more rows than `limit`.
 */
export async function readSpend(
  db: Db,
  { byModel, limit, ...scope }: SpendQuery,
): Promise<{ rows: SpendRow[]; totals: LedgerTotals } | null> {
  const group = byModel ? sql`day, lane, model` : sql`day`
  const { rows } = await sql<SpendRow & { date: string | null }>`
    with ${attemptsOf(scope)}
    select day::text as date, ${byModel ? sql`lane, model` : sql`null as lane, null as model`}, ${ledgerTotals}
    from (
      select m.*, d.duplicate, d.kept_cost_usd
      from mine m left join judged d on d.job_id = m.job_id and d.attempt = m.attempt
    ) a
    group by grouping sets ((${group}), ())
    order by grouping(day) desc, ${group}
    limit ${limit + 2}
  `.execute(db)
  // The first row is that of the empty grouping set: it is there even when nothing was spent.
  const [totals, ...days] = rows
  if (totals === undefined || days.length > limit) return null
  return { rows: days, totals }
}

/** The jobs of a scope that something was paid for twice, or may have been, the latest first; at most `limit`. */
export async function readSpentTwice(
  db: Db,
  { limit, ...scope }: SpendScope & { limit: number },
): Promise<SpentTwice[]> {
  const { rows } = await sql<SpentTwice>`
    with ${attemptsOf(scope)}
    select a.idempotency_key as key, a.job_id, ${ledgerTotals}
    from (
      select m.*, d.duplicate, d.kept_cost_usd
      from mine m join judged d on d.job_id = m.job_id and d.attempt = m.attempt
      where d.duplicate is not null
    ) a
    group by a.idempotency_key, a.job_id
    order by max(a.started_at) desc, a.job_id
    limit ${limit}
  `.execute(db)
  return rows
}

/** The first and the last day, and the moments, that a scope means. Rejects with a data error for a time zone that the database does not know. */
export async function readSpan(
  db: Db,
  { since, until, timeZone }: Pick<SpendScope, 'since' | 'until' | 'timeZone'>,
): Promise<{ from: string; to: string; since: Date; until: Date; days: number }> {
  const { rows } = await sql<{ from: string; to: string; since: Date; until: Date; days: number }>`
    select
      (s at time zone ${timeZone}::text)::date::text as from, ((u - interval '1 microsecond') at time zone ${timeZone}::text)::date::text as to,
      s as since, u as until, extract(epoch from u - s)::float8 / 86400 as days
    from (select ${instant(since, timeZone)} as s, ${instant(until, timeZone)} as u) span
  `.execute(db)
  return rows[0] as { from: string; to: string; since: Date; until: Date; days: number }
}
