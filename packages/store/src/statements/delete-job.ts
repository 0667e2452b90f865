import { sql } from 'kysely'
import { notExpired } from '../fragments.ts'
import type { Db, JobRow } from '../tables.ts'

/** Forgets a terminal job: body gone, key free; the ledger stays. Null: unknown, expired or another tenant's. */
export async function deleteJob(
  db: Db,
  tenantId: string,
  id: string,
): Promise<{ deleted: boolean; was: JobRow['state'] } | null> {
  const { rows } = await sql<{ deleted: boolean; was: JobRow['state'] }>`
    with picked as (
      select j.id, j.state as was from jobs j
      where j.id = ${id}::uuid and j.tenant_id = ${tenantId} and ${notExpired}
      for update
    ),
    gone as (
      delete from jobs j using picked p
      -- The state under the lock: the version of this statement's snapshot may be older.
      where j.id = p.id and p.was in ('succeeded', 'failed', 'cancelled')
      returning j.id
    ),
    -- Its pieces, if its answer has any, are swept next.
    due as (update large_answers l set check_at = now() from gone g where l.job_id = g.id)
    select p.was, g.id is not null as deleted from picked p left join gone g on g.id = p.id
  `.execute(db)
  return rows[0] ?? null
}
