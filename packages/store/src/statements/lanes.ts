import { sql } from 'kysely'
import type { Db, LaneReading, LaneRow } from '../tables.ts'

/** Every lane that has ever been closed. A lane without a row is open. */
export async function readLanes(db: Db): Promise<LaneReading[]> {
  const { rows } = await sql<LaneReading>`
    select *, greatest(0, coalesce(extract(epoch from until - now()) * 1000, 0))::float8 as remaining_ms from lanes order by name
  `.execute(db)
  return rows
}

/** Stops a lane until a person resumes it: money or credentials. The first reason stays. */
export async function stopLane(db: Db, name: string, code: string, reason: string): Promise<void> {
  await sql`
    insert into lanes as l (name, state, code, reason) values (${name}, 'stopped', ${code}, ${reason})
    on conflict (name) do update
    set state = 'stopped', code = excluded.code, reason = excluded.reason, until = null, changed_at = now()
    where l.state <> 'stopped'
  `.execute(db)
}

/** Pauses an open or paused lane for at least `forMs` from now. The later end of two pauses wins. */
export async function pauseLane(db: Db, name: string, code: string, reason: string, forMs: number): Promise<void> {
  const until = sql`now() + ${forMs} * interval '1 millisecond'`
  await sql`
    insert into lanes as l (name, state, code, reason, until) values (${name}, 'paused', ${code}, ${reason}, ${until})
    on conflict (name) do update
    set state = 'paused', code = excluded.code, reason = excluded.reason, until = greatest(l.until, excluded.until),
        changed_at = now()
    where l.state in ('open', 'paused')
  `.execute(db)
}

/** Overload answers in a row that open the breaker. */
export const breakerThreshold = 5

/**
 * Counts an overload answer. From the fifth in a row on the breaker is open: closed to everybody for `forMs`, then one probe.
 */
export async function countOverload(db: Db, name: string, code: string, reason: string, forMs: number): Promise<void> {
  const until = sql`now() + ${forMs} * interval '1 millisecond'`
  const opens = sql`(l.failures + 1 >= ${breakerThreshold})`
  await sql`
    insert into lanes as l (name, failures) values (${name}, 1)
    on conflict (name) do update
    set failures = l.failures + 1,
        state = case when ${opens} then 'breaker' else l.state end,
        code = case when ${opens} then ${code} else l.code end,
        reason = case when ${opens} then ${reason} else l.reason end,
        -- The provider's own wait, if it named one, is not cut short; a probe's is.
        until = case when ${opens} and l.state = 'paused' then greatest(l.until, ${until}) when ${opens} then ${until} else l.until end,
        changed_at = case when ${opens} then now() else l.changed_at end
    where l.state <> 'stopped'
  `.execute(db)
}

/** The provider answered: the count starts over and a breaker closes. Does nothing to a lane that is in order. */
export async function clearOverload(db: Db, name: string): Promise<void> {
  await sql`
    update lanes set
      failures = 0,
      state = case when state = 'breaker' then 'open' else state end,
      code = case when state = 'breaker' then null else code end,
      reason = case when state = 'breaker' then null else reason end,
      until = case when state = 'breaker' then null else until end,
      changed_at = now()
    where name = ${name} and (failures > 0 or state = 'breaker')
  `.execute(db)
}

/**
 * Takes the one probe of a breaker whose wait is over, for `forMs`: nobody else probes before that. True: this caller may send one
 * call. A prober that dies costs that wait, nothing more.
 */
export async function takeProbe(db: Db, name: string, forMs: number): Promise<boolean> {
  const { rows } = await sql`
    update lanes set until = now() + ${forMs} * interval '1 millisecond'
    where name = ${name} and state = 'breaker' and until <= now()
    returning name
  `.execute(db)
  return rows.length > 0
}

/** Gives back a probe that found nothing to send: the next delivery may probe at once. */
export async function giveProbeBack(db: Db, name: string): Promise<void> {
  await sql`update lanes set until = now() where name = ${name} and state = 'breaker' and until > now()`.execute(db)
}

/** Opens a lane again, whatever closed it. Null: no such row (it was never closed). */
export async function resumeLane(db: Db, name: string): Promise<LaneRow | null> {
  const { rows } = await sql<LaneRow>`
    update lanes set state = 'open', code = null, reason = null, until = null, failures = 0, changed_at = now()
    where name = ${name}
    returning *
  `.execute(db)
  return rows[0] ?? null
}
