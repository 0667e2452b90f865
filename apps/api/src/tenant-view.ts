import type { Tenant, TenantSettings, TenantUse } from '@askonce/store'
import type { z } from 'zod'
import type { tenant, tenantChange, tenantWithUse } from './schemas/tenants.ts'

/** What a tenant may have and what holds for it, as JSON. */
export function tenantJson(row: Tenant): Omit<z.infer<typeof tenant>, 'created_at'> & { created_at: Date } {
  return {
    object: 'tenant',
    id: row.id,
    weight: row.weight,
    max_running: row.maxRunning,
    max_queued: row.maxQueued,
    submissions_per_second: row.submissionsPerSecond,
    calls_per_minute: row.callsPerMinute,
    tokens_per_minute: row.tokensPerMinute,
    budget_usd: { day: row.budgetDayUsd, month: row.budgetMonthUsd },
    derive_keys: row.deriveKeys,
    on_uncertain: row.onUncertain,
    max_attempts: row.maxAttempts,
    max_paid_attempts: row.maxPaidAttempts,
    ttl_seconds: row.ttlSeconds,
    timeout_seconds: row.timeoutSeconds,
    created_at: row.createdAt,
  }
}

export function useJson(use: TenantUse): z.infer<typeof tenantWithUse>['use'] {
  return {
    running: use.running,
    queued: use.queued,
    usd_day: use.usdDay,
    usd_month: use.usdMonth,
    reserved_usd: use.reservedUsd,
  }
}

/** What is to be set. A budget that is null takes both of its members away. */
export function settingsOf(given: z.infer<typeof tenantChange>): TenantSettings {
  const { budget_usd: budget } = given
  return {
    weight: given.weight,
    maxRunning: given.max_running,
    maxQueued: given.max_queued,
    submissionsPerSecond: given.submissions_per_second,
    callsPerMinute: given.calls_per_minute,
    tokensPerMinute: given.tokens_per_minute,
    budgetDayUsd: budget === null ? null : budget?.day,
    budgetMonthUsd: budget === null ? null : budget?.month,
    deriveKeys: given.derive_keys,
    onUncertain: given.on_uncertain,
    maxAttempts: given.max_attempts,
    maxPaidAttempts: given.max_paid_attempts,
    ttlSeconds: given.ttl_seconds,
    timeoutSeconds: given.timeout_seconds,
  }
}
