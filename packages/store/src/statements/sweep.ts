import { sql } from 'kysely'
import type { Db } from '../tables.ts'

/**
 * Deletes expired jobs, at most `limit`, and says how many. Select and delete are one statement, and rows that somebody holds (a
 * take-over, another sweeper) are left for the next time. Only terminal jobs have an `expires_at`.
 */
export async function sweepExpired(db: Db, limit: number): Promise<number> {
  const { rows } = await sql<{ swept: number }>`
    with expired as (
      select id from jobs where expires_at <= now() order by expires_at limit ${limit} for update skip locked
    ),
    gone as (delete from jobs j using expired e where j.id = e.id returning 1)
    select count(*) as swept from gone
  `.execute(db)
  return rows[0]?.swept ?? 0
}

/** Deletes ended attempts older than the ledger's retention, at most `limit`, but never those of a job that still exists. */
export async function sweepAttempts(db: Db, retentionSeconds: number, limit: number): Promise<number> {
  const { rows } = await sql<{ swept: number }>`
    with old as (
      select a.job_id, a.attempt from attempts a
      where a.finished_at < now() - make_interval(secs => ${retentionSeconds}::integer)
        and not exists (select from jobs j where j.id = a.job_id)
      order by a.finished_at limit ${limit}
      for update skip locked
    ),
    gone as (delete from attempts a using old o where a.job_id = o.job_id and a.attempt = o.attempt returning 1)
    select count(*) as swept from gone
  `.execute(db)
  return rows[0]?.swept ?? 0
}

/** Deletes decisions older than the ledger's retention, at most `limit`, but never those about a job that still exists. */
export async function sweepDecisions(db: Db, retentionSeconds: number, limit: number): Promise<number> {
  const { rows } = await sql<{ swept: number }>`
    with old as (
      select d.id from decisions d
      where d.at < now() - make_interval(secs => ${retentionSeconds}::integer)
        and not exists (select from jobs j where j.id = d.job_id)
      order by d.at limit ${limit}
      for update skip locked
    ),
    gone as (delete from decisions d using old o where d.id = o.id returning 1)
    select count(*) as swept from gone
  `.execute(db)
  return rows[0]?.swept ?? 0
}
