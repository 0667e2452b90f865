import type { JobState } from '@askonce/core'
import { sql } from 'kysely'
import type { Db } from '../tables.ts'

export interface Statistics {
  /** Unexpired and expired rows alike. `succeeded` is the planner's estimate of the table less the counted rest. */
  jobs: Record<JobState, number>
  /** Seconds since the oldest due queued job could have run; 0 when none is due. */
  oldestQueuedSeconds: number
  oldestUncertainSeconds: number
  workersAlive: number
  openAttempts: number
}

/** Gauges for /metrics. Counts walk the lists of exceptions and what is queued or open; the succeeded rows, most of the table, are never counted. */
export async function readStatistics(db: Db): Promise<Statistics> {
  const [states, gauges] = await Promise.all([
    sql<{ state: JobState; count: number }>`
      select list as state, count(*) as count from job_lists where list in ('failed', 'cancelled', 'uncertain') group by list
      union all
      select 'queued', count(*) from ready
      union all
      select 'running', count(*) from open_attempts o
      cross join lateral (select state, attempt from jobs where id = o.job_id limit 1) j
      where j.state = 'running' and j.attempt = o.attempt
    `.execute(db),
    sql<{ rows: number; queued: number; uncertain: number; workers: number; open: number }>`
      select
        greatest((select reltuples from pg_class where oid = 'jobs'::regclass), 0)::float8 as rows,
        coalesce(extract(epoch from now() - (select min(run_at) from ready where run_at <= now())), 0)::float8 as queued,
        coalesce(extract(epoch from now() - (select min(since) from job_lists where list = 'uncertain')), 0)::float8 as uncertain,
        (select count(*) from workers where not dead) as workers,
        (select count(*) from open_attempts) as open
    `.execute(db),
  ])
  const counted = new Map(states.rows.map(({ state, count }) => [state, count]))
  const of = (state: JobState): number => counted.get(state) ?? 0
  const rest = [...counted.values()].reduce((sum, count) => sum + count, 0)
  const gauge = gauges.rows[0]
  return {
    jobs: {
      queued: of('queued'),
      running: of('running'),
      uncertain: of('uncertain'),
      failed: of('failed'),
      cancelled: of('cancelled'),
      succeeded: Math.max(0, Math.round((gauge?.rows ?? 0) - rest)),
    },
    oldestQueuedSeconds: gauge?.queued ?? 0,
    oldestUncertainSeconds: gauge?.uncertain ?? 0,
    workersAlive: gauge?.workers ?? 0,
    openAttempts: gauge?.open ?? 0,
  }
}
