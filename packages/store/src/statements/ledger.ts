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
