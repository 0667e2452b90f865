import { waitCauses, waitKindOf, type LimitUse, type WaitCause, type WaitKind } from '@askonce/core'
import { sql, type RawBuilder } from 'kysely'
import { changedJobColumns } from '../fragments.ts'
import type { Db } from '../tables.ts'
import type { ListedJob } from './read-jobs.ts'

/** Why a queued job waits is computed when somebody asks; nothing of it is stored. */

/** The limits of tenants and their use, with the times at which something gets free. */
export interface LimitUseRow extends LimitUse {
  tenant_id: string
  /** The database's. */
  now: Date
  /** When the oldest calls, and the oldest tokens, that are counted are counted no longer; null: none are. */
  calls_until: Date | null
  tokens_until: Date | null
  /** When the day and the month of UTC end. */
  day_until: Date
  month_until: Date
}

const isLimited = sql`
  num_nonnulls(t.max_running, t.calls_per_minute, t.tokens_per_minute, t.budget_day_usd, t.budget_month_usd) > 0
`

/**
 * The limits and the use of those tenants that the condition on `tenants t` chooses. What a tenant has no limit on is not read, and what is
 * read is a range of an index: open attempts, 60 seconds, the days of a month.
 */
const limitUses = (condition: RawBuilder<unknown>): RawBuilder<LimitUseRow> => sql<LimitUseRow>`
  select
    t.id as tenant_id, now() as now,
    t.max_running,
    case when t.max_running is null then 0 else (
      select count(*) from open_attempts o where o.tenant_id = t.id
    ) end as running,
    t.calls_per_minute, coalesce(m.calls, 0) as calls, to_timestamp(m.first_call + 61) as calls_until,
    t.tokens_per_minute, coalesce(m.tokens, 0) as tokens, to_timestamp(m.first_tokens + 61) as tokens_until,
    t.budget_day_usd, coalesce(b.of_day, 0) as used_day_usd, today.day_until,
    t.budget_month_usd, coalesce(b.of_month, 0) as used_month_usd, today.month_until
  from tenants t
  cross join (
    select
      date_trunc('month', utc)::date as month, utc::date as day,
      (date_trunc('day', utc) + interval '1 day') at time zone 'utc' as day_until,
      (date_trunc('month', utc) + interval '1 month') at time zone 'utc' as month_until
    from (select now() at time zone 'utc' as utc) u
  ) today
  left join lateral (
    select
      sum(s.calls) as calls, sum(s.tokens) as tokens,
      min(s.second) filter (where s.calls > 0) as first_call, min(s.second) filter (where s.tokens > 0) as first_tokens
    from tenant_seconds s
    where
      num_nonnulls(t.calls_per_minute, t.tokens_per_minute) > 0
      and s.tenant_id = t.id and s.second >= floor(extract(epoch from now()))::bigint - 60
  ) m on true
  left join lateral (
    select
      sum(d.spent_usd + d.reserved_usd) filter (where d.day = today.day) as of_day,
      sum(d.spent_usd + d.reserved_usd) as of_month
    from tenant_days d
    where
      num_nonnulls(t.budget_day_usd, t.budget_month_usd) > 0
      and d.tenant_id = t.id and d.day between today.month and today.day
  ) b on true
  where ${condition}
`

/** The limits and the use of these tenants, also of those without a limit: with the database's clock. */
export async function readLimitUses(db: Db, tenantIds: readonly string[]): Promise<LimitUseRow[]> {
  const { rows } = await limitUses(sql`t.id = any(${tenantIds}::text[])`).execute(db)
  return rows
}

/** The lanes that are closed now, and the models that are; model is empty where it is the lane. A breaker is closed until a probe opens it. */
const closedLanes = sql`
  select name collate "C" as name, model collate "C" as model from lanes
  where state in ('stopped', 'breaker') or (state = 'paused' and until > now())
`

/**
 * Twin of `tenantWaitCause` in @askonce/core, and of what comes before it: why the row `r` of `ready` waits, with `u` for the use of its
 * tenant, and {@link closedLanes} as `closed`.
 */
const waitCause = sql<WaitCause | null>`
  case
    when r.run_at > now() then 'schedule'
    when (r.lane, '') in (select name, model from closed) or (r.lane, r.model) in (select name, model from closed) then 'lane'
    when u.running >= u.max_running then 'max_running'
    when u.calls >= u.calls_per_minute then 'calls_per_minute'
    when u.tokens > 0 and u.tokens + coalesce(r.reserve_tokens, 0) > u.tokens_per_minute then 'tokens_per_minute'
    when coalesce(u.used_month_usd + r.reserve_usd > u.budget_month_usd, u.budget_month_usd is not null) then 'month'
    when coalesce(u.used_day_usd + r.reserve_usd > u.budget_day_usd, u.budget_day_usd is not null) then 'day'
  end
`

/** Queued jobs that a page of {@link listWaiting} looks at: where few of many wait for the same, pages are short. */
export const maxLookedAt = 5_000

export interface WaitingFilter {
  tenantId: string
  kind: WaitKind
  /** RFC 3339. */
  createdAfter?: string | undefined
  limit: number
  after?: { createdAt: string; id: string } | undefined
}

export interface WaitingJob extends ListedJob {
  cause: WaitCause
}

/** One page of jobs that wait. */
export interface WaitingPage {
  jobs: WaitingJob[]
  /** Where the next page begins: behind the last job of this one, or where it stopped looking. Null: there is none. */
  next: { createdAt: string; id: string } | null
}

/**
 * Queued jobs of a tenant that wait for one kind of thing, newest first. It goes through `ready`, whose rows are narrow, stops at the
 * end of the page, and looks at no more than {@link maxLookedAt} rows: the last of these comes along, whatever it waits for.
 */
export async function listWaiting(db: Db, filter: WaitingFilter): Promise<WaitingPage> {
  const { tenantId, kind, createdAfter, limit, after } = filter
  const causes = waitCauses.filter((cause) => waitKindOf[cause] === kind)
  const conditions = [
    sql`tenant_id = ${tenantId}`,
    ...(createdAfter === undefined ? [] : [sql`created_at > ${createdAfter}::timestamptz`]),
    ...(after === undefined ? [] : [sql`(created_at, job_id) < (${after.createdAt}::timestamptz, ${after.id}::uuid)`]),
  ]
  const { rows } = await sql<WaitingJob & { fits: boolean; number: number; looked_at: string }>`
    with closed as materialized (${closedLanes}),
    u as materialized (${limitUses(sql`t.id = ${tenantId}`)}),
    found as (
      select r.job_id, r.created_at, r.number, r.cause, coalesce(r.cause = any(${causes}), false) as fits
      from (
        select r.*, ${waitCause} as cause
        from (
          select *, row_number() over (order by created_at desc, job_id desc) as number
          from ready where ${sql.join(conditions, sql` and `)}
          order by created_at desc, job_id desc
          limit ${maxLookedAt}
        ) r
        left join u on true
      ) r
      where r.cause = any(${causes}) or r.number = ${maxLookedAt}
      order by r.created_at desc, r.job_id desc
      limit ${limit + 1}
    )
    select ${changedJobColumns}, f.job_id as looked_at, f.number, f.cause, f.created_at::text as cursor_at, f.fits and j.id is not null as fits
    from found f left join jobs j on j.id = f.job_id
    order by f.created_at desc, f.job_id desc
  `.execute(db)
  const fitting = rows.filter(({ fits }) => fits)
  const jobs = fitting.slice(0, limit)
  const last = fitting.length > limit ? fitting[limit - 1] : rows.find(({ number }) => number === maxLookedAt)
  return { jobs, next: last === undefined ? null : { createdAt: last.cursor_at, id: last.looked_at } }
}

/** How many jobs of a tenant in a lane wait for the same. */
export interface WaitingGroup {
  lane: string
  tenant_id: string
  cause: WaitCause | null
  count: number
}

/** What {@link countWaiting} looks at: jobs of one tenant in one lane, tenants with jobs in a lane, and jobs in all. */
export const countedOfGroup = 10_000
const countedGroups = 1_000
export const countedInAll = 100_000

/**
 * How many queued jobs wait for what. It skips from tenant to tenant of each lane, and counts so many of each and no more, so that its cost is
 * bounded whatever waits: larger numbers mean "at least".
 */
export async function countWaiting(db: Db): Promise<WaitingGroup[]> {
  const { rows } = await sql<WaitingGroup>`
    with recursive groups as (
      (select lane, tenant_id, 1 as number from ready order by lane, tenant_id limit 1)
      union all
      select n.lane, n.tenant_id, g.number + 1
      from groups g
      cross join lateral (
        select lane, tenant_id from ready
        where (lane, tenant_id) > (g.lane, g.tenant_id)
        order by lane, tenant_id
        limit 1
      ) n
      where g.number < ${countedGroups}
    ),
    closed as materialized (${closedLanes}),
    used as materialized (${limitUses(sql`t.id in (select tenant_id from groups) and ${isLimited}`)})
    select lane, tenant_id, cause, count(*) as count
    from (
      select r.lane, r.tenant_id, ${waitCause} as cause
      from (
        select r.*
        from groups g
        cross join lateral (
          select lane, tenant_id, model, run_at, reserve_usd, reserve_tokens from ready
          where lane = g.lane and tenant_id = g.tenant_id
          limit ${countedOfGroup}
        ) r
        limit ${countedInAll}
      ) r
      left join used u on u.tenant_id = r.tenant_id
    ) r
    group by lane, tenant_id, cause
    order by lane, tenant_id, cause
  `.execute(db)
  return rows
}
