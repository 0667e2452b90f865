import type { OnUncertain, Operation, RequestHeaders } from '@askonce/core'
import { sql } from 'kysely'
import { checked, lockOrder, mayRun } from '../fragments.ts'
import { hot } from '../hot.ts'
import type { Db } from '../tables.ts'

/** A claimed job: everything the call and its end need. From its commit on the attempt counts as paid. */
export interface Claim {
  id: string
  attempt: number
  generation: number
  tenant_id: string
  operation: Operation
  model: string
  lane: string
  request: Buffer
  /** Headers of the caller that go with it. */
  request_headers: RequestHeaders | null
  /** Whether the request asks for a stream. */
  streamed: boolean
  timeout_ms: number
  on_uncertain: OnUncertain
  /** Reruns with backoff since the last request to run. */
  reruns: number
  /** What names this attempt to the provider; nobody else knows it. */
  mark: string
  /** Milliseconds since the job could first have run in this round, by the database clock. */
  queue_ms: number
}

const claimable = checked(
  sql`j.state = 'queued' and j.run_at <= now() and j.deadline_at > now() and j.tries < j.max_attempts and ${mayRun}`,
)

/**
 * Claims delivered jobs and writes their attempt rows in one commit, before any request leaves.
 *
 * The worker's own row is locked first: marking it dead and claiming exclude each other, so no claim can slip in behind a
 * reclaim. The lock is the weakest that does it. With FOR SHARE the beats waited too, and two groups of claims that always overlap
 * let none through (measured: up to 4 s, and a worker whose beat is late may not claim).
 *
 * Rows of a closed lane, or of a paused model, are given back instead (`dispatched_at = null`): the janitor hands them over when it opens.
 * A delivery that came twice, early, late or after the end matches nothing and returns normally.
 *
 * `probes` names lanes whose breaker lets this one claim through.
 */
export async function claimJobs(
  db: Db,
  workerId: string,
  ids: readonly string[],
  probes: readonly string[],
): Promise<Claim[]> {
  const rows = await hot<Claim>(db, 'claim_jobs')`
    with alive as materialized (select id from workers where id = ${workerId}::uuid and not dead for key share),
    due as (
      select
        j.id,
        (
          l.name is null or l.state = 'open' or (l.state = 'paused' and l.until <= now())
          or (l.state = 'breaker' and l.name = any(${probes}::text[]))
        ) and (m.name is null or m.state = 'open' or m.until <= now()) as lane_open
      from jobs j
      left join lanes l on l.name = j.lane and l.model = ''
      left join lanes m on m.name = j.lane and m.model = j.model
      where
        j.id = any(${ids}::uuid[]) and exists (select from alive)
        and ${claimable}
      ${lockOrder}
      for update of j skip locked
    ),
    given_back as (update jobs j set dispatched_at = null where j.id = any(array(select id from due where not lane_open))),
    claimed as (
      update jobs j
      set state = 'running', attempt = j.attempt + 1, tries = j.tries + 1, paid = j.paid + 1, started_at = now()
      where j.id = any(array(select id from due where lane_open))
      returning j.*, gen_random_uuid() as mark
    ),
    opened as (
      insert into attempts (
        job_id, attempt, generation, tenant_id, idempotency_key, fingerprint, operation, lane, model, worker_id, mark, metadata
      )
      select
        id, attempt, generation, tenant_id, idempotency_key, fingerprint, operation, lane, model, ${workerId}::uuid, mark, metadata
      from claimed
    ),
    noted as (
      insert into open_attempts (worker_id, claim, job_id, attempt, tenant_id, lane)
      select ${workerId}::uuid, 0, id, attempt, tenant_id, lane from claimed
    )
    select
      id, attempt, generation, tenant_id, operation, model, lane, r.request, r.request_headers, streamed, timeout_ms, on_uncertain, reruns,
      mark,
      extract(epoch from now() - run_at)::float8 * 1000 as queue_ms
    from claimed c
    cross join lateral (select request, request_headers from requests where job_id = c.id limit 1) r
  `
  return rows
}
