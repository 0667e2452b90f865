import { sql } from 'kysely'
import type { Db } from '../tables.ts'

/** How much one statement of a sweep may take. One thing goes in any case. */
export interface SweepBounds {
  rows: number
  /** As they are stored: what is compressed counts as what it takes on disk, for that is what its deletion has to write. */
  bytes: number
  /** Ids that could not be deleted: those behind them must not wait for them. */
  skip: readonly string[]
}

export interface SweptRows {
  count: number
  /** There is more that is old enough. */
  more: boolean
}

export const sweepBytes = 64 * 1024 * 1024

/**
 * Deletes expired jobs within bounds. Select and delete are one statement, and rows that somebody holds (a take-over, another sweeper) are left
 * for the next time. Only terminal jobs have an `expires_at`. Sizes are those of the pointers' targets, so no answer is read for them.
 */
export async function sweepExpired(
  db: Db,
  limit: number,
  { bytes = sweepBytes, skip = [] }: Partial<SweepBounds> = {},
): Promise<SweptRows> {
  const { rows } = await sql<{ picked: number; swept: number }>`
    with expired as (
      select
        id, expires_at,
        pg_column_size(request)::bigint + coalesce(pg_column_size(response), 0) + coalesce(pg_column_size(error_response), 0) as bytes
      from jobs where expires_at <= now() and id <> all(${skip}::uuid[])
      order by expires_at limit ${limit} for update skip locked
    ),
    sized as (select id, sum(bytes) over (order by expires_at, id) - bytes as before from expired),
    gone as (delete from jobs j using sized s where j.id = s.id and s.before < ${bytes} returning 1)
    select (select count(*) from expired) as picked, (select count(*) from gone) as swept
  `.execute(db)
  return swept(rows[0], limit)
}

/** The expired job that {@link sweepExpired} would take first. */
export async function nextExpired(db: Db, skip: readonly string[]): Promise<string | null> {
  const { rows } = await sql<{ id: string }>`
    select id from jobs where expires_at <= now() and id <> all(${skip}::uuid[]) order by expires_at limit 1
  `.execute(db)
  return rows[0]?.id ?? null
}

/** What a statement says that counts what it picked, up to `limit`, and what of that it deleted. */
export function swept(row: { picked: number; swept: number } | undefined, limit: number): SweptRows {
  const { picked = 0, swept: count = 0 } = row ?? {}
  return { count, more: picked >= limit || picked > count }
}

/** Deletes ended attempts older than the ledger's retention, at most `limit`, but never those of a job that still exists. */
export async function sweepAttempts(db: Db, retentionSeconds: number, limit: number): Promise<SweptRows> {
  const { rows } = await sql<{ picked: number; swept: number }>`
    with old as (
      select a.job_id, a.attempt from attempts a
      where a.finished_at < now() - make_interval(secs => ${retentionSeconds}::integer)
        and not exists (select from jobs j where j.id = a.job_id)
      order by a.finished_at limit ${limit}
      for update skip locked
    ),
    gone as (delete from attempts a using old o where a.job_id = o.job_id and a.attempt = o.attempt returning 1)
    select (select count(*) from old) as picked, (select count(*) from gone) as swept
  `.execute(db)
  return swept(rows[0], limit)
}

/** Deletes decisions older than the ledger's retention, at most `limit`, but never those about a job that still exists. */
export async function sweepDecisions(db: Db, retentionSeconds: number, limit: number): Promise<SweptRows> {
  const { rows } = await sql<{ picked: number; swept: number }>`
    with old as (
      select d.id from decisions d
      where d.at < now() - make_interval(secs => ${retentionSeconds}::integer)
        and not exists (select from jobs j where j.id = d.job_id)
      order by d.at limit ${limit}
      for update skip locked
    ),
    gone as (delete from decisions d using old o where d.id = o.id returning 1)
    select (select count(*) from old) as picked, (select count(*) from gone) as swept
  `.execute(db)
  return swept(rows[0], limit)
}
