import { tenantBounds, uncertainPolicies, type OnUncertain, type TenantLimits } from '@askonce/core'
import type { TenantSettings } from '@askonce/store'
import type { Command } from 'commander'
import { dollarAmount, integer, maxTimeoutSeconds, maxTtlSeconds, oneOf, orWord, period } from './options.ts'

/** What takes a tenant's own value away. */
const byServer = 'default'
type ByServer = typeof byServer
const serverDecides = `; ${byServer}: the server decides`
const none = 'none'
type None = typeof none

/** The options of limits, with what each means. The names of their values are those of the settings. */
export const limitOptions: Readonly<Record<keyof TenantLimits, { option: string; means: string }>> = {
  weight: { option: 'weight', means: 'its share of the calls where several tenants wait' },
  maxRunning: { option: 'max-running', means: 'calls at once' },
  maxQueued: { option: 'max-queued', means: 'queued jobs; submissions beyond it are refused' },
  submissionsPerSecond: { option: 'submissions-per-second', means: 'new jobs a second; more are refused' },
  callsPerMinute: { option: 'calls-per-minute', means: 'calls that begin within any minute' },
  tokensPerMinute: { option: 'tokens-per-minute', means: 'tokens of calls that begin within any minute' },
  budgetDayUsd: { option: 'budget-day', means: 'US dollars for each day of UTC' },
  budgetMonthUsd: { option: 'budget-month', means: 'US dollars for each month of UTC' },
}

/** Whether a limit is in dollars. */
export function isBudget(name: keyof TenantLimits): boolean {
  return name === 'budgetDayUsd' || name === 'budgetMonthUsd'
}

type GivenLimits = { [Name in keyof TenantLimits]?: number | None }

/** The values of the options, as commander gives them. */
export interface GivenSettings extends Omit<GivenLimits, 'budgetDayUsd' | 'budgetMonthUsd'> {
  budgetDay?: number | None
  budgetMonth?: number | None
  deriveKeys?: 'on' | 'off'
  onUncertain?: OnUncertain | ByServer
  maxAttempts?: number | ByServer
  maxPaidAttempts?: number | ByServer
  ttl?: number | ByServer
  timeout?: number | ByServer
}

/** Adds every option that sets something of a tenant. */
export function withTenantOptions(command: Command): Command {
  for (const [name, { option, means }] of Object.entries(limitOptions)) {
    const { min, max } = tenantBounds[name as keyof TenantLimits]
    const parse = isBudget(name as keyof TenantLimits) ? dollarAmount(min, max) : integer(min, max)
    const away = name === 'weight' ? '' : `; ${none}: no limit`
    command.option(`--${option} <n>`, `${means}${away}`, name === 'weight' ? parse : orWord(none, parse))
  }
  return command
    .option(
      '--derive-keys <on|off>',
      'whether SDK requests without a key get one made from what they ask, so that equal requests share one answer',
      oneOf(['on', 'off']),
    )
    .option(
      '--on-uncertain <policy>',
      `after a call that may have been billed: ${uncertainPolicies.join(', ')}${serverDecides}`,
      orWord(byServer, oneOf([...uncertainPolicies])),
    )
    .option('--max-attempts <n>', `most calls per request to run${serverDecides}`, orWord(byServer, integer(1, 100)))
    .option(
      '--max-paid-attempts <n>',
      `most calls of a job that may have been billed${serverDecides}`,
      orWord(byServer, integer(1, 10)),
    )
    .option(
      '--ttl <time>',
      `how long answers are kept, in seconds or as 12h, 7d${serverDecides}`,
      orWord(byServer, period(maxTtlSeconds)),
    )
    .option(
      '--timeout <time>',
      `how long one call may take, in seconds or as 90s, 15m${serverDecides}`,
      orWord(byServer, period(maxTimeoutSeconds)),
    )
}

/** What the options set. */
export function settingsOf(given: GivenSettings): TenantSettings {
  const { deriveKeys, onUncertain, maxAttempts, maxPaidAttempts, ttl, timeout, budgetDay, budgetMonth, ...limits } =
    given
  return {
    weight: valueOf(limits.weight),
    maxRunning: valueOf(limits.maxRunning),
    maxQueued: valueOf(limits.maxQueued),
    submissionsPerSecond: valueOf(limits.submissionsPerSecond),
    callsPerMinute: valueOf(limits.callsPerMinute),
    tokensPerMinute: valueOf(limits.tokensPerMinute),
    budgetDayUsd: valueOf(budgetDay),
    budgetMonthUsd: valueOf(budgetMonth),
    deriveKeys: deriveKeys === undefined ? undefined : deriveKeys === 'on',
    onUncertain: valueOf(onUncertain),
    maxAttempts: valueOf(maxAttempts),
    maxPaidAttempts: valueOf(maxPaidAttempts),
    ttlSeconds: valueOf(ttl),
    timeoutSeconds: valueOf(timeout),
  }
}

function valueOf<T>(given: T | ByServer | None | undefined): T | null | undefined {
  return given === byServer || given === none ? null : given
}
