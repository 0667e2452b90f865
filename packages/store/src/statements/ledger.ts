import { sql } from 'kysely'
import { judgement, ledgerTotals, type LedgerTotals } from '../ledger-totals.ts'
import type { AttemptRow, Db } from '../tables.ts'

export type { LedgerTotals } from '../ledger-totals.ts'

/**
 * The ledger of a job, oldest attempt first, and what it comes to. It outlives the job, so the tenant is checked here. One statement,
 * so that the totals are those of the rows.
 */
export async function readLedger(
  db: Db,
  tenantId: string,
  jobId: string,
): Promise<{ attempts: AttemptRow[]; totals: LedgerTotals }> {
  const { rows } = await sql<AttemptRow & { totals: LedgerTotals }>`
    with mine as (
      select a.*, ${judgement} from attempts a where a.job_id = ${jobId}::uuid and a.tenant_id = ${tenantId}
    )
    select a.*, to_json(t) as totals
    from (select ${ledgerTotals} from mine a) t
    left join mine a on true
    order by a.attempt
  `.execute(db)
  const totals = rows[0]?.totals as LedgerTotals
  // Without attempts the totals stand beside an empty row.
  return { attempts: rows.filter(({ attempt }) => attempt !== null), totals }
}

export interface KeyLedgerQuery {
  tenantId: string
  key: string
  limit: number
  /** Position of the last row of the page before: its time as text with microseconds, its job and its number; null: from the beginning. */
  after: { startedAt: string; jobId: string; attempt: number } | null
}

export interface KeyAttemptRow extends AttemptRow {
  /** started_at with microseconds: what a cursor needs and a JavaScript Date loses. */
  cursor_at: string
}

/**
 * One page of the ledger of a key, oldest attempt first, and what all of it comes to. A key names one job after the other when it expires,
 * or its job is deleted: this has the attempts of all of them.
 */
export async function readKeyLedger(
  db: Db,
  { tenantId, key, limit, after }: KeyLedgerQuery,
): Promise<{ attempts: KeyAttemptRow[]; totals: LedgerTotals }> {
  const rest =
    after === null
      ? sql``
      : sql`where (m.started_at, m.job_id, m.attempt)
          > (${after.startedAt}::timestamptz, ${after.jobId}::uuid, ${after.attempt}::integer)`
  const { rows } = await sql<KeyAttemptRow & { totals: LedgerTotals }>`
    with mine as (
      select a.*, ${judgement} from attempts a where a.tenant_id = ${tenantId} and a.idempotency_key = ${key}
    )
    select a.*, a.started_at::text as cursor_at, to_json(t) as totals
    from (select ${ledgerTotals} from mine a) t
    left join (
      select m.* from mine m ${rest} order by m.started_at, m.job_id, m.attempt limit ${limit}
    ) a on true
    order by a.started_at, a.job_id, a.attempt
  `.execute(db)
  const totals = rows[0]?.totals as LedgerTotals
  // Without attempts the totals stand beside an empty row.
  return { attempts: rows.filter(({ attempt }) => attempt !== null), totals }
}

export interface SpendQuery {
  tenantId: string
  /** First and last day, UTC, as `YYYY-MM-DD`. */
  from: string
  to: string
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

/**
 * What a tenant's attempts of these days have cost, by the day on which they started: days without any are left out. Null when there
 * are more rows than `limit`.
 *
 * The range is one range of the index on tenant and time. Whether an attempt is a duplicate depends on others of its job, which may
 * lie outside; they are looked up by the primary key, for jobs with more than one attempt only.
 */
export async function readSpend(
  db: Db,
  { tenantId, from, to, byModel, limit }: SpendQuery,
): Promise<{ rows: SpendRow[]; totals: LedgerTotals } | null> {
  const group = byModel ? sql`day, lane, model` : sql`day`
  const { rows } = await sql<SpendRow & { date: string | null }>`
    with mine as not materialized (
      select a.*, (a.started_at at time zone 'UTC')::date as day
      from attempts a
      where a.tenant_id = ${tenantId}
        and a.started_at >= ${from}::date::timestamp at time zone 'UTC'
        and a.started_at < (${to}::date + 1)::timestamp at time zone 'UTC'
    ),
    repeated as (
      select distinct m.job_id from mine m
      where m.billing is distinct from 'none'
        and (m.attempt > 1 or exists (select from attempts other where other.job_id = m.job_id and other.attempt > 1))
    ),
    judged as (
      select a.job_id, a.attempt, ${judgement} from attempts a join repeated r on r.job_id = a.job_id
    )
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
