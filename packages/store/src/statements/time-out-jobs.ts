import { sql } from 'kysely'
import { expiryAfter } from './run-again.ts'
import type { Db } from '../tables.ts'

/** What the index jobs_deadline holds. */
const queuedUntil = sql`(case when state = 'queued' then deadline_at end)`

/** Fails queued jobs past their deadline, at most `limit`; returns their ids. */
export async function failOverdue(
  db: Db,
  error: string,
  limit: number,
  uncertainTtlSeconds: number,
): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    with overdue as (
      select id from jobs where ${queuedUntil} <= now() order by ${queuedUntil} limit ${limit}
      for update skip locked
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
      select id from jobs
      where state = 'uncertain' and uncertain_since <= now() - make_interval(secs => ${uncertainTtlSeconds}::integer)
      order by uncertain_since limit ${limit}
      for update skip locked
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
