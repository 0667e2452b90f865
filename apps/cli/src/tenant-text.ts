import type { TenantLimits } from '@askonce/core'
import type { Tenant, TenantUse } from '@askonce/store'
import { count, dollars } from './format.ts'
import { isBudget, limitOptions } from './tenant-options.ts'

/** The limits of a tenant in the words of the options; empty: it has none. */
export function limitsOf(tenant: TenantLimits): string {
  return names()
    .flatMap((name) => {
      const value = tenant[name]
      if (value === null || (name === 'weight' && value === 1)) return []
      return [`${limitOptions[name].option} ${isBudget(name) ? dollars(value) : value}`]
    })
    .join(', ')
}

/** What holds for its submissions, in the words of the options; empty: the server decides everything. */
export function defaultsOf({ onUncertain, maxAttempts, maxPaidAttempts, ttlSeconds, timeoutSeconds }: Tenant): string {
  const parts = [
    ['on-uncertain', onUncertain],
    ['max-attempts', maxAttempts],
    ['max-paid-attempts', maxPaidAttempts],
    ['ttl', ttlSeconds === null ? null : `${ttlSeconds}s`],
    ['timeout', timeoutSeconds === null ? null : `${timeoutSeconds}s`],
  ]
  return parts.flatMap(([name, value]) => (value === null ? [] : [`${name} ${value}`])).join(', ')
}

/** A limit of a tenant beside its use. */
export interface LimitLine {
  name: string
  limit: string
  use: string
  /** Nothing more fits. */
  isReached: boolean
}

/** Every limit of a tenant with its use. */
export function limitLines(tenant: Tenant, use: TenantUse): LimitLine[] {
  return names().map((name) => {
    const limit = tenant[name]
    const { used, text } = uses[name](use)
    const shown = limit === null ? 'none' : isBudget(name) ? dollars(limit) : String(limit)
    return { name: limitOptions[name].option, limit: shown, use: text, isReached: limit !== null && used >= limit }
  })
}

/** `used` is compared with the limit. */
type Used = { used: number; text: string }
const unused: Used = { used: Number.NEGATIVE_INFINITY, text: '-' }

const uses: Readonly<Record<keyof TenantLimits, (use: TenantUse) => Used>> = {
  weight: () => unused,
  maxRunning: ({ running }) => ({ used: running, text: `${running} running` }),
  maxQueued: ({ queued }) => ({ used: queued, text: `${queued} queued` }),
  submissionsPerSecond: () => unused,
  callsPerMinute: ({ callsMinute }) => ({
    used: callsMinute,
    text: `${count(callsMinute, 'call')} in the last minute`,
  }),
  tokensPerMinute: ({ tokensMinute }) => ({
    used: tokensMinute,
    text: `${count(tokensMinute, 'token')} in the last minute`,
  }),
  budgetDayUsd: ({ usdDay, reservedUsdDay }) => money(usdDay, reservedUsdDay),
  budgetMonthUsd: ({ usdMonth, reservedUsd }) => money(usdMonth, reservedUsd),
}

function money(spent: number, reserved: number): Used {
  return { used: spent + reserved, text: `${dollars(spent)} spent, ${dollars(reserved)} reserved` }
}

function names(): (keyof TenantLimits)[] {
  return Object.keys(limitOptions) as (keyof TenantLimits)[]
}
