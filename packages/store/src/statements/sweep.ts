import { sql } from 'kysely'
import { checked } from '../fragments.ts'
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

/** Entries of jobs that are gone, or that ran again, beside those of a statement's jobs: they must not take all its places. */
const spareEntries = 100

export const sweepBytes = 64 * 1024 * 1024

/**
 * Deletes expired jobs within bounds. Select and delete are one statement, and rows that somebody holds (a take-over, another sweeper) are left
 * for the next time. Entries that speak of no job any more, and of none but those that go here, are dropped with them: left behind, they would
 * take the places of the next statement. Sizes are those of the pointers' targets, so no answer is read for them.
 */
export async function sweepExpired(
  db: Db,
  limit: number,
  { bytes = sweepBytes, skip = [] }: Partial<SweepBounds> = {},
): Promise<SweptRows> {
  const { rows } = await sql<{ due: number; picked: number; swept: number; dropped: number }>`
    with entries as materialized (
      select ctid as place, expires_at, job_ids from expiries where expires_at <= now()
      order by expires_at limit ${limit + skip.length + spareEntries}
    ),
    -- In the order of the entries, as far as the limit goes.
    due as materialized (
      select e.expires_at, j.id from entries e cross join lateral unnest(e.job_ids) as of (job_id)
      cross join lateral (select id from jobs where id = of.job_id and expires_at = e.expires_at limit 1) j
      where j.id <> all(${skip}::uuid[])
      limit ${limit}
    ),
    expired as materialized (
      select
        d.expires_at, j.id,
        j.bytes + coalesce(pg_column_size(r.request), 0) + coalesce(pg_column_size(w.response), 0) as bytes
      from due d
      cross join lateral (
        select id, coalesce(pg_column_size(error_response), 0)::bigint as bytes
        from jobs where id = d.id and expires_at <= now() limit 1 for update skip locked
      ) j
      left join lateral (select request from requests where job_id = j.id limit 1) r on true
      left join lateral (select response from answers where job_id = j.id limit 1) w on true
    ),
    sized as (select id, sum(bytes) over (order by expires_at, id) - bytes as before from expired),
    gone as (
      delete from jobs j using sized s
      where j.id = any(array(select id from sized)) and ${checked(sql`j.id = s.id`)} and s.before < ${bytes} returning j.id
    ),
    dropped as (
      delete from expiries where ctid = any(array(
        select e.place from entries e
        where not exists (
          select from unnest(e.job_ids) as of (job_id)
          cross join lateral (select id from jobs where id = of.job_id and expires_at = e.expires_at limit 1) j
          where j.id not in (select id from gone)
        )
      ))
      returning 1
    )
    select
      (select count(*) from due) as due, (select count(*) from expired) as picked, (select count(*) from gone) as swept,
      (select count(*) from dropped) as dropped
  `.execute(db)
  const { due = 0, picked = 0, swept: count = 0, dropped = 0 } = rows[0] ?? {}
  return { count, more: due >= limit || picked > count || dropped >= limit }
}

/** The expired job that {@link sweepExpired} would take first. */
export async function nextExpired(db: Db, skip: readonly string[]): Promise<string | null> {
  const { rows } = await sql<{ id: string }>`
    select j.id from (select * from expiries where expires_at <= now() order by expires_at) e
    cross join lateral unnest(e.job_ids) as of (job_id)
    cross join lateral (select id from jobs where id = of.job_id and expires_at = e.expires_at limit 1) j
    where j.id <> all(${skip}::uuid[])
    limit 1
  `.execute(db)
  return rows[0]?.id ?? null
}

/** What a statement says that counts what it picked, up to `limit`, and what of that it deleted. */
export function swept(row: { picked: number; swept: number } | undefined, limit: number): SweptRows {
  const { picked = 0, swept: count = 0 } = row ?? {}
  return { count, more: picked >= limit || picked > count }
}

/**
 * Deletes ended attempts older than the ledger's retention, at most `limit`, but never those of a job that still exists. Tenant by tenant, by
 * their start: an index on the end would make every end touch all indexes of the ledger.
 */
export async function sweepAttempts(db: Db, retentionSeconds: number, limit: number): Promise<SweptRows> {
  const { rows } = await sql<{ picked: number; swept: number }>`
    with long_ago as materialized (select now() - make_interval(secs => ${retentionSeconds}::integer) as at),
    old as (
      select a.job_id, a.attempt from tenants t
      cross join lateral (
        select a.job_id, a.attempt from attempts a
        where a.tenant_id = t.id and a.started_at < (select at from long_ago) and a.finished_at < (select at from long_ago)
          and not exists (select from jobs j where j.id = a.job_id)
        order by a.started_at limit ${limit}
        for update of a skip locked
      ) a
      limit ${limit}
    ),
    gone as (delete from attempts a using old o where a.job_id = o.job_id and a.attempt = o.attempt returning 1)
    select (select count(*) from old) as picked, (select count(*) from gone) as swept
  `.execute(db)
  return swept(rows[0], limit)
}

/** Deletes what tenants have used of limits that look at a minute or a month, once nobody looks at it any more. */
export async function sweepTenantUse(db: Db, limit: number): Promise<SweptRows> {
  const { rows } = await sql<{ picked: number; swept: number }>`
    with seconds as (
      select tenant_id, "second" from tenant_seconds where "second" < extract(epoch from now() - interval '1 hour')
      limit ${limit} for update skip locked
    ),
    -- Late evidence about an attempt settles what it reserved on its day: those of the month before stay.
    days as (
      select tenant_id, day from tenant_days where day < (now() - interval '62 days')::date limit ${limit} for update skip locked
    ),
    gone_seconds as (
      delete from tenant_seconds u using seconds s where u.tenant_id = s.tenant_id and u."second" = s."second" returning 1
    ),
    gone_days as (delete from tenant_days d using days o where d.tenant_id = o.tenant_id and d.day = o.day returning 1)
    select
      greatest((select count(*) from seconds), (select count(*) from days)) as picked,
      (select count(*) from gone_seconds) + (select count(*) from gone_days) as swept
  `.execute(db)
  const { picked = 0, swept: count = 0 } = rows[0] ?? {}
  return { count, more: picked >= limit }
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
