/** What a tenant may have at most, and its share where several wait. Null: as much as it likes. */
export interface TenantLimits {
  /** Its share of the calls, beside other tenants that wait. */
  weight: number
  /** Calls at once. */
  maxRunning: number | null
  /** Jobs that may be queued when one more is submitted. */
  maxQueued: number | null
  /** Submissions that make a job run, by the second of the database clock. */
  submissionsPerSecond: number | null
  callsPerMinute: number | null
  tokensPerMinute: number | null
  /** US dollars for each day of UTC. */
  budgetDayUsd: number | null
  /** US dollars for each month of UTC. */
  budgetMonthUsd: number | null
}

/** The least and the most that each limit may be. The CHECKs of the table are compared with this by a test. */
export const tenantBounds: Readonly<Record<keyof TenantLimits, { column: string; min: number; max: number }>> = {
  weight: { column: 'weight', min: 1, max: 100 },
  maxRunning: { column: 'max_running', min: 0, max: 100_000 },
  maxQueued: { column: 'max_queued', min: 0, max: 100_000_000 },
  submissionsPerSecond: { column: 'submissions_per_second', min: 1, max: 1_000_000 },
  callsPerMinute: { column: 'calls_per_minute', min: 1, max: 10_000_000 },
  tokensPerMinute: { column: 'tokens_per_minute', min: 1, max: 1_000_000_000_000 },
  budgetDayUsd: { column: 'budget_day_usd', min: 0, max: 100_000_000 },
  budgetMonthUsd: { column: 'budget_month_usd', min: 0, max: 100_000_000 },
}

/** What submissions of a tenant have to be looked at for, before they make a job run. */
export type SubmissionLimits = Pick<
  TenantLimits,
  'maxQueued' | 'submissionsPerSecond' | 'budgetDayUsd' | 'budgetMonthUsd'
>

/** Of a tenant for whom nothing is set. */
export const noLimits: TenantLimits = {
  weight: 1,
  maxRunning: null,
  maxQueued: null,
  submissionsPerSecond: null,
  callsPerMinute: null,
  tokensPerMinute: null,
  budgetDayUsd: null,
  budgetMonthUsd: null,
}

/** The whole of the smaller budget, US dollars: no single call may cost more. Null: there is no budget. */
export function wholeBudgetUsd({
  budgetDayUsd,
  budgetMonthUsd,
}: Pick<TenantLimits, 'budgetDayUsd' | 'budgetMonthUsd'>): number | null {
  if (budgetDayUsd === null) return budgetMonthUsd
  return budgetMonthUsd === null ? budgetDayUsd : Math.min(budgetDayUsd, budgetMonthUsd)
}

/** The form of a tenant's name; the CHECK of the table is the same. */
export const tenantName = /^[a-z0-9][a-z0-9_-]{0,62}$/
export const tenantNameRule = 'up to 63 of a-z, 0-9, - and _, beginning with a letter or digit'

/** Whether a submission whose call costs at most so much (null: unknown) could be refused if it made a job run. */
export function mayMeetLimit(limits: SubmissionLimits, reserveUsd: number | null): boolean {
  const budgetUsd = wholeBudgetUsd(limits)
  return (
    limits.maxQueued !== null ||
    limits.submissionsPerSecond !== null ||
    (budgetUsd !== null && (reserveUsd === null || reserveUsd > budgetUsd))
  )
}
