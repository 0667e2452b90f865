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

/** After a pause or behind a breaker, this long from one hand-over to the next. */
const turnMs = 1_000

/**
 * Takes due jobs that nobody has handed to BullMQ, oldest due first, from every model of every lane that is open: of each lane at
 * most `limit`, of which its models have equal shares. The lanes and their models are found by skipping through the index, so the
 * cost does not grow with what a closed lane or a paused model has waiting, nor do the others wait for it.
 *
 * What was closed for a time opens for one job at a time, a second apart, until a call is answered: all at once would meet the
 * same refusal.
 */
export async function takeDueJobs(db: Db, limit: number): Promise<Dispatch[]> {
  const rows = await hot<Dispatch>(db, 'take_due_jobs')`
    with recursive waiting (lane, model) as (
      (select lane, model from jobs where state = 'queued' and dispatched_at is null order by lane, model limit 1)
      union all
      select j.lane, j.model
      from waiting w
      cross join lateral (
        select lane, model from jobs
        where state = 'queued' and dispatched_at is null and (lane, model) > (w.lane, w.model)
        order by lane, model limit 1
      ) j
    ),
    open as (
      select
        w.lane, w.model, coalesce(l.state <> 'open', false) as lane_waited, coalesce(m.state <> 'open', false) as model_waited,
        count(*) over (partition by w.lane) as models
      from waiting w
      left join lanes l on l.name = w.lane and l.model = ''
      left join lanes m on m.name = w.lane and m.model = w.model
      where (l.name is null or l.state = 'open' or (l.state in ('paused', 'breaker') and l.until <= now()))
        and (m.name is null or m.state = 'open' or m.until <= now())
    ),
    turns as (
      update lanes t set turn_at = now() + ${turnMs} * interval '1 millisecond'
      from (
        select lane, '' as model from open where lane_waited
        union select lane, model from open where model_waited
      ) w
      where t.name = w.lane and t.model = w.model and t.until <= now() and (t.turn_at is null or t.turn_at <= now())
      returning t.name, t.model
    ),
    due as (
      select d.id, row_number() over (partition by o.lane order by d.run_at, d.id) > 1 and o.lane_waited as too_many
      from open o
      cross join lateral (
        select j.id, j.run_at from jobs j
        where j.lane = o.lane and j.model = o.model and j.state = 'queued' and j.dispatched_at is null and j.run_at <= now()
        order by j.run_at, j.id
        limit case when o.lane_waited or o.model_waited then 1 else greatest(1, ${limit}::integer / o.models) end
        for update skip locked
      ) d
      where (not o.lane_waited or (o.lane, '') in (select name, model from turns))
        and (not o.model_waited or (o.lane, o.model) in (select name, model from turns))
    )
    update jobs j set dispatch = j.dispatch + 1, dispatched_at = now()
    where j.id = any(array(select id from due where not too_many))
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
