import { noLimits, type SubmissionLimits } from '@askonce/core'
import { sql } from 'kysely'
import type { Db } from '../tables.ts'

/** Names our advisory locks for submissions, beside those of others in the same database. */
const lockClass = 1_634_431_603

/** What the submissions of a tenant find who holds the lock. */
export interface Entry {
  limits: SubmissionLimits
  /** Its queued jobs, counted no further than one beyond the limit; 0 where there is none. */
  queued: number
  /** The second of the Unix epoch that counts, by the database clock. */
  second: number
  /** Submissions that have made a job run in it. */
  submissions: number
}

/**
 * Locks the submissions of a tenant until the end of the transaction, and reads its limits and their use. An advisory lock and not the row of
 * the tenant: that row is what a claim locks, and passes by while somebody else has it. Two tenants whose names have one hash share a lock.
 */
export async function enterSubmissions(transaction: Db, tenantId: string): Promise<Entry> {
  await sql`select pg_advisory_xact_lock(${sql.lit(lockClass)}, hashtext(${tenantId}))`.execute(transaction)
  // Another statement: its snapshot is newer than the wait for the lock.
  const { rows } = await sql<SubmissionLimits & Omit<Entry, 'limits'>>`
    with moment as materialized (select floor(extract(epoch from clock_timestamp()))::bigint as second)
    select
      t.max_queued as "maxQueued", t.submissions_per_second as "submissionsPerSecond",
      t.budget_day_usd as "budgetDayUsd", t.budget_month_usd as "budgetMonthUsd", m.second,
      case when t.max_queued is null then 0
        else (select count(*) from (select from ready r where r.tenant_id = t.id limit t.max_queued + 1) waiting)
      end::integer as queued,
      coalesce(
        (select s.submissions from tenant_submissions s where s.tenant_id = t.id and s.second = m.second), 0
      ) as submissions
    from tenants t, moment m
    where t.id = ${tenantId}
  `.execute(transaction)
  const [row] = rows
  if (row === undefined) return { limits: noLimits, queued: 0, second: 0, submissions: 0 }
  const { queued, second, submissions, ...limits } = row
  return { limits, queued, second, submissions }
}

/** Writes how many submissions of the tenant have made a job run in this second. Under the lock of {@link enterSubmissions}. */
export async function countSubmissions(
  transaction: Db,
  tenantId: string,
  second: number,
  submissions: number,
): Promise<void> {
  await sql`
    insert into tenant_submissions (tenant_id, second, submissions) values (${tenantId}, ${second}, ${submissions})
    on conflict (tenant_id) do update set second = excluded.second, submissions = excluded.submissions
  `.execute(transaction)
}
