import { sql } from 'kysely'
import { checked } from '../fragments.ts'
import { hot } from '../hot.ts'
import { Rows } from '../rows.ts'
import type { Db } from '../tables.ts'

/** A job to hand to BullMQ, where it is called `<id>.<dispatch>`. */
export interface Dispatch {
  id: string
  dispatch: number
  lane: string
  priority: number
}

/**
 * Takes due jobs that nobody has handed to BullMQ, oldest due first, from every lane that is open: at most `limit` of each.
 * The lanes are found by skipping through the index, so the cost does not grow with what a closed lane has waiting.
 */
export async function takeDueJobs(db: Db, limit: number): Promise<Dispatch[]> {
  const rows = await hot<Dispatch>(db, 'take_due_jobs')`
    with recursive waiting (lane) as (
      (select lane from jobs where state = 'queued' and dispatched_at is null order by lane limit 1)
      union all
      select (select j.lane from jobs j where j.state = 'queued' and j.dispatched_at is null and j.lane > w.lane order by j.lane limit 1)
      from waiting w
      where w.lane is not null
    ),
    due as (
      select d.id
      from waiting w
      left join lanes l on l.name = w.lane
      cross join lateral (
        select j.id from jobs j
        where j.lane = w.lane and j.state = 'queued' and j.dispatched_at is null and j.run_at <= now()
        order by j.run_at, j.id
        -- Behind a breaker only one may go: the probe.
        limit case when l.state = 'breaker' then 1 else ${limit}::integer end
        for update skip locked
      ) d
      where w.lane is not null and (l.name is null or l.state = 'open' or (l.state in ('paused', 'breaker') and l.until <= now()))
    )
    update jobs j set dispatch = j.dispatch + 1, dispatched_at = now()
    where j.id = any(array(select id from due))
    returning j.id, j.dispatch, j.lane, j.priority
  `
  return rows
}

export interface DispatchedJob extends Dispatch {
  /** With microseconds, for the cursor. */
  dispatchedAt: string
}

/** Queued jobs that were handed over at least `olderThanMs` ago, oldest first, after the cursor. */
export async function readDispatched(
  db: Db,
  olderThanMs: number,
  after: { dispatchedAt: string; id: string } | null,
  limit: number,
): Promise<DispatchedJob[]> {
  const rows = await hot<DispatchedJob>(db, 'read_dispatched')`
    select id, dispatch, lane, priority, dispatched_at::text as "dispatchedAt"
    from jobs
    where state = 'queued' and dispatched_at is not null
      and dispatched_at < now() - ${olderThanMs} * interval '1 millisecond'
      and (dispatched_at, id) > (${after?.dispatchedAt ?? '-infinity'}::timestamptz, ${after?.id ?? '00000000-0000-0000-0000-000000000000'}::uuid)
    order by dispatched_at, id
    limit ${limit}
  `
  return rows
}

const stillDispatched = checked(sql`j.state = 'queued' and j.dispatched_at is not null`)

/** Takes back hand-overs that BullMQ has lost: the dispatch loop makes new ones. Only while nothing else has happened. */
export async function takeBackDispatches(db: Db, lost: readonly { id: string; dispatch: number }[]): Promise<number> {
  const rows = await hot<unknown>(db, 'take_back_dispatches')`
    with lost as (
      select j.id
      from ${new Rows(lost, { id: ['uuid', (row) => row.id], dispatch: ['integer', (row) => row.dispatch] }, 'i')}
      cross join lateral (
        select j.id from jobs j
        where j.id = i.id and ${stillDispatched} and j.dispatch = i.dispatch
        limit 1 for update skip locked
      ) j
    )
    update jobs j set dispatched_at = null where j.id = any(array(select id from lost))
    returning j.id
  `
  return rows.length
}
