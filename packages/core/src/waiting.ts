/** What a queued job can wait for, by the kind of it. The first that holds is said, in this order. Whoever has none waits for a free place. */
export const waitKindOf = {
  schedule: 'schedule',
  lane: 'lane',
  max_running: 'tenant_limit',
  calls_per_minute: 'tenant_limit',
  tokens_per_minute: 'tenant_limit',
  // The one that lets it go later comes first.
  month: 'budget',
  day: 'budget',
} as const

export type WaitCause = keyof typeof waitKindOf
export type WaitKind = (typeof waitKindOf)[WaitCause]

export const waitCauses = Object.keys(waitKindOf) as WaitCause[]
export const waitKinds = ['lane', 'tenant_limit', 'budget', 'schedule'] as const satisfies readonly WaitKind[]

/** The limits of a tenant and how much of each is used; null: it has no such limit. */
export interface LimitUse {
  max_running: number | null
  /** Attempts without an end. */
  running: number
  calls_per_minute: number | null
  /** As the claim counts them: of this second and the 60 before it. */
  calls: number
  tokens_per_minute: number | null
  tokens: number
  /** US dollars, of the day and of the month of UTC; what is used is what was spent and what is reserved. */
  budget_day_usd: number | null
  used_day_usd: number
  budget_month_usd: number | null
  used_month_usd: number
}

/** What a queued job asks for; null: nobody knows the most that its call can cost or use. */
export interface Reserve {
  reserve_usd: number | null
  reserve_tokens: number | null
}

/**
 * What keeps a queued job that is due, and whose lane is open, from being claimed. Twin of `waitCause` in @askonce/store, and of the
 * conditions of the claim; a test compares the first two.
 */
export function tenantWaitCause(reserve: Reserve, use: LimitUse): WaitCause | null {
  if (use.max_running !== null && use.running >= use.max_running) return 'max_running'
  if (use.calls_per_minute !== null && use.calls >= use.calls_per_minute) return 'calls_per_minute'
  // After a minute without any, a call runs whatever it needs.
  if (use.tokens_per_minute !== null && use.tokens > 0) {
    if (use.tokens + (reserve.reserve_tokens ?? 0) > use.tokens_per_minute) return 'tokens_per_minute'
  }
  if (!fits(reserve.reserve_usd, use.used_month_usd, use.budget_month_usd)) return 'month'
  if (!fits(reserve.reserve_usd, use.used_day_usd, use.budget_day_usd)) return 'day'
  return null
}

/** Dollars are exact in the database; here sums of them may be off by the last bit. */
const roundingShare = 1e-12

function fits(reserve: number | null, used: number, budget: number | null): boolean {
  if (budget === null) return true
  return reserve !== null && used + reserve <= budget * (1 + roundingShare)
}
