import { sql } from 'kysely'
import { checked, changedJobColumns, lockOrder } from '../fragments.ts'
import { hot } from '../hot.ts'
import { expiryAfter } from './run-again.ts'
import type { Db, JobRow } from '../tables.ts'

/**
 * Notes that somebody besides their batch wants these jobs. Jobs that have ended meanwhile are not returned: who asks has to look
 * again, since a batch may just have cancelled them. Both this and {@link cancelOwnedJobs} lock the row first, so either the
 * batch sees no owner and leaves the job alone, or this sees a job that has ended.
 */
export async function disownJobs(db: Db, ids: readonly string[]): Promise<JobRow[]> {
  const rows = await hot<JobRow>(db, 'disown_jobs')`
    with unfinished as (
      select j.id from jobs j
      where j.id = any(${ids}::uuid[]) and ${checked(sql`j.state in ('queued', 'running', 'uncertain')`)}
      ${lockOrder}
      for update
    )
    update jobs j set owner_batch = null where j.id = any(array(select id from unfinished))
    returning ${changedJobColumns}
  `
  return rows
}

/** Cancels those of these jobs that are queued and that nobody but this batch wants. Returns their ids. */
export async function cancelOwnedJobs(
  db: Db,
  batchId: string,
  ids: readonly string[],
  uncertainTtlSeconds: number,
): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    with owned as (
      select j.id from jobs j
      where j.id = any(${ids}::uuid[]) and j.owner_batch = ${batchId}::uuid and ${checked(sql`j.state = 'queued'`)}
      ${lockOrder}
      for update
    )
    update jobs j set
      state = 'cancelled', uncertain_since = null, completed_at = now(), expires_at = ${expiryAfter(uncertainTtlSeconds)}
    from owned o
    where j.id = o.id
    returning j.id
  `.execute(db)
  return rows.map(({ id }) => id)
}
