import { sql } from 'kysely'
import { expiryAfter } from './run-again.ts'
import type { Db } from '../tables.ts'

/** Fails queued jobs past their deadline, at most `limit`; returns their ids. */
export async function failOverdue(
  db: Db,
  error: string,
  limit: number,
  uncertainTtlSeconds: number,
): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    with overdue as (
      select j.id from ready r
      cross join lateral (
        select id from jobs where id = r.job_id and state = 'queued' and deadline_at <= now() limit 1 for update skip locked
      ) j
      where r.deadline_at <= now()
      order by r.deadline_at limit ${limit}
    )
    update jobs j set
      state = 'failed', error = ${error}::jsonb, completed_at = now(), expires_at = ${expiryAfter(uncertainTtlSeconds)}
    from overdue
    where j.id = overdue.id
    returning j.id
  `.execute(db)
  return rows.map(({ id }) => id)
}

/** Fails jobs that were held for a decision longer than `uncertainTtlSeconds`, at most `limit`; returns their ids. */
export async function failForgotten(
  db: Db,
  error: string,
  limit: number,
  uncertainTtlSeconds: number,
): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    with forgotten as (
      select j.id from job_lists l
      cross join lateral (
        select id from jobs where id = l.job_id and state = 'uncertain' and uncertain_since = l.since limit 1 for update skip locked
      ) j
      where l.list = 'uncertain' and l.since <= now() - make_interval(secs => ${uncertainTtlSeconds}::integer)
      order by l.since limit ${limit}
    )
    update jobs j set
      state = 'failed', error = ${error}::jsonb, uncertain_since = null, completed_at = now(),
      expires_at = ${expiryAfter(uncertainTtlSeconds)}
    from forgotten
    where j.id = forgotten.id
    returning j.id
  `.execute(db)
  return rows.map(({ id }) => id)
}
