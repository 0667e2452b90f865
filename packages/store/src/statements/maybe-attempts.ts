import { sql } from 'kysely'
import type { Db } from '../tables.ts'

/** An attempt whose answer the provider may still have. */
export interface MaybeAttempt {
  jobId: string
  attempt: number
  /** What names it to the provider. */
  mark: string
  tenant: string
  lane: string
  model: string
  /** Milliseconds since the job is held, by the database clock. */
  heldMs: number
}

/**
 * The earlier attempts of a claimed job that are maybe billed on the lane, newest first, at most ten. `consented`: somebody has
 * accepted that the claimed attempt may be a second charge.
 */
export async function readEarlierMaybes(
  db: Db,
  { id, attempt, lane }: { id: string; attempt: number; lane: string },
): Promise<{ attempts: { attempt: number; mark: string }[]; consented: boolean }> {
  const { rows } = await sql<{ attempts: { attempt: number; mark: string }[]; consented: boolean }>`
    select
      array(
        select json_build_object('attempt', a.attempt, 'mark', a.mark) from attempts a
        where
          a.job_id = j.id and a.attempt < ${attempt} and a.billing = 'maybe' and a.lane = ${lane} and a.mark is not null
        order by a.attempt desc limit 10
      ) as attempts,
      j.paid <= j.consented_paid as consented
    from jobs j where j.id = ${id}::uuid
  `.execute(db)
  return rows[0] ?? { attempts: [], consented: false }
}

/**
 * Attempts of held jobs that are maybe billed and whose request speaks of storing, in the order of jobs after `after`; pages of
 * `limit`. Reads the requests only for that word: whether it was meant, the provider knows.
 */
export async function readHeldMaybes(
  db: Db,
  lanes: readonly string[],
  operation: string,
  after: { jobId: string; attempt: number },
  limit: number,
): Promise<MaybeAttempt[]> {
  const { rows } = await sql<MaybeAttempt>`
    select
      j.id as "jobId", a.attempt, a.mark, j.tenant_id as tenant, a.lane, a.model,
      extract(epoch from now() - j.uncertain_since)::float8 * 1000 as "heldMs"
    from job_lists l
    join jobs j on j.id = l.job_id
    join attempts a on a.job_id = j.id
    join requests r on r.job_id = j.id
    where
      l.list = 'uncertain' and j.state = 'uncertain' and a.lane = any(${[...lanes]}::text[]) and a.operation = ${operation} and a.billing = 'maybe'
      and a.mark is not null and position('"store"'::bytea in r.request) > 0
      and (j.id, a.attempt) > (${after.jobId}::uuid, ${after.attempt}::integer)
    order by j.id, a.attempt
    limit ${limit}
  `.execute(db)
  return rows
}
