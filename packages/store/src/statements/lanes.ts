import { backoffCapMs, backoffOverloadedBaseMs } from '@askonce/core'
import { sql, type RawBuilder } from 'kysely'
import type { Db, LaneReading, LaneRow, LaneState } from '../tables.ts'

/** Every lane that has ever been closed, and the models that are closed in it. What has no row is open. */
export async function readLanes(db: Db): Promise<LaneReading[]> {
  const { rows } = await sql<LaneReading>`
    select *, greatest(0, coalesce(extract(epoch from until - now()) * 1000, 0))::float8 as remaining_ms from lanes
    where model = '' or state <> 'open'
    order by name, model
  `.execute(db)
  return rows
}

/** Stops a lane until a person resumes it: money or credentials. The first reason stays. */
export async function stopLane(db: Db, name: string, code: string, reason: string): Promise<void> {
  await sql`
    insert into lanes as l (name, state, code, reason) values (${name}, 'stopped', ${code}, ${reason})
    on conflict (name, model) do update
    set state = 'stopped', code = excluded.code, reason = excluded.reason, until = null, changed_at = now()
    where l.state <> 'stopped'
  `.execute(db)
}

/** A refusal that closes a lane, or a model in it, for a time. */
export interface Trouble {
  /** The lane. */
  name: string
  /** Empty: the whole lane. */
  model: string
  code: string
  reason: string
  /** The wait that the provider asked for; 0: it named none. */
  leastMs: number
  /** How long ago the refused call began. */
  sinceMs: number
}

/** What became of a lane: null where it is left as it was. */
export interface Closed {
  state: LaneState
  waitMs: number
}

/**
 * Our own wait after so many refusals in a row: doubling, capped, half of it fixed, so that it is never next to nothing. Computed
 * here, where the count is true for all processes.
 */
function ownWaitMs(before: RawBuilder<unknown>): RawBuilder<unknown> {
  return sql`(least(${backoffCapMs}::float8, ${backoffOverloadedBaseMs}::float8 * power(2, least(greatest(${before}, 0), 20))) * (1 + random()) / 2)`
}

const inMs = (ms: RawBuilder<unknown>): RawBuilder<unknown> => sql`(now() + ${ms} * interval '1 millisecond')`

/**
 * Calls that are refused together are one refusal: those that began before the lane was closed have met what closed it. Without
 * this a worker with forty calls under way would double the wait forty times.
 */
const isNews = (sinceMs: number): RawBuilder<unknown> =>
  sql`(l.state = 'open' or l.changed_at <= now() - ${sinceMs}::float8 * interval '1 millisecond')`

const closed = sql`l.state, greatest(0, extract(epoch from l.until - now()) * 1000)::float8 as "waitMs"`

/**
 * Pauses an open or paused lane, or one model in it, for as long as the provider asks and at least for our own wait, which doubles
 * with each refusal until an answer comes. The later end of two pauses wins. Pauses of other models that ended an hour ago are
 * forgotten: callers choose the names of models, and the table must not grow with them.
 */
export async function pauseLane(db: Db, trouble: Trouble): Promise<Closed | null> {
  const { name, model, code, reason, leastMs, sinceMs } = trouble
  const news = isNews(sinceMs)
  const least = sql`${leastMs}::float8`
  const { rows } = await sql<Closed>`
    with forgotten as (
      delete from lanes where (name, model) in (
        select name, model from lanes
        where name = ${name} and model not in ('', ${model}) and (state = 'open' or until < now() - interval '1 hour')
        for update skip locked
      )
    )
    insert into lanes as l (name, model, state, code, reason, until, failures)
    values (
      ${name}, ${model}, 'paused', ${code}, ${reason}, ${inMs(sql`greatest(${least}, ${ownWaitMs(sql`0`)})`)}, 1
    )
    on conflict (name, model) do update
    set state = 'paused', code = excluded.code, reason = excluded.reason,
        until = greatest(
          l.until, ${inMs(sql`greatest(${least}, case when ${news} then ${ownWaitMs(sql`l.failures`)} else 0 end)`)}
        ),
        failures = case when ${news} then l.failures + 1 else l.failures end,
        changed_at = case when ${news} then now() else l.changed_at end
    where l.state in ('open', 'paused')
    returning ${closed}
  `.execute(db)
  return rows[0] ?? null
}

/** Overload answers in a row that open the breaker. */
export const breakerThreshold = 5

/**
 * Counts an overload answer. From the fifth in a row on the breaker is open: closed to everybody for a wait that doubles, then one
 * probe at a time. Once it is open, calls that began before say nothing new.
 */
export async function countOverload(db: Db, trouble: Omit<Trouble, 'model'>): Promise<Closed | null> {
  const { name, code, reason, leastMs, sinceMs } = trouble
  const opens = sql`(l.failures + 1 >= ${breakerThreshold})`
  const until = inMs(
    sql`greatest(${leastMs}::float8, ${ownWaitMs(sql`l.failures + 1 - ${breakerThreshold}::integer`)})`,
  )
  const { rows } = await sql<Closed>`
    insert into lanes as l (name, failures) values (${name}, 1)
    on conflict (name, model) do update
    set failures = l.failures + 1,
        state = case when ${opens} then 'breaker' else l.state end,
        code = case when ${opens} then ${code} else l.code end,
        reason = case when ${opens} then ${reason} else l.reason end,
        -- The provider's own wait, if it named one, is not cut short; a probe's is.
        until = case when ${opens} and l.state = 'paused' then greatest(l.until, ${until}) when ${opens} then ${until} else l.until end,
        changed_at = case when ${opens} then now() else l.changed_at end
    where l.state in ('open', 'paused') or (l.state = 'breaker' and ${isNews(sinceMs)})
    returning ${closed}
  `.execute(db)
  return rows[0] ?? null
}

/**
 * The provider answered for a model: the counts of it and of its lane start over, and a breaker closes, as does a pause that is over.
 * Does nothing to what is in order.
 */
export async function clearTrouble(db: Db, name: string, model: string): Promise<void> {
  const opens = sql`(state = 'breaker' or (state = 'paused' and until <= now()))`
  await sql`
    update lanes set
      failures = 0,
      state = case when ${opens} then 'open' else state end,
      code = case when ${opens} then null else code end,
      reason = case when ${opens} then null else reason end,
      until = case when ${opens} then null else until end,
      changed_at = now()
    where name = ${name} and model in ('', ${model}) and (failures > 0 or ${opens})
  `.execute(db)
}

/**
 * Opens a lane again with every model in it, whatever closed it, or the one model that is named. The row of the lane, or of that
 * model; null: there is none (it was never closed).
 */
export async function resumeLane(db: Db, name: string, model: string | null = null): Promise<LaneRow | null> {
  const { rows } = await sql<LaneRow>`
    update lanes set state = 'open', code = null, reason = null, until = null, failures = 0, changed_at = now()
    where name = ${name} and (${model}::text is null or model = ${model}::text)
    returning *
  `.execute(db)
  return rows.find((row) => row.model === (model ?? '')) ?? rows[0] ?? null
}
