import { waitKindOf, type WaitCause } from '@askonce/core'
import type { WaitingGroup } from '@askonce/store'
import { count } from '../format.ts'
import { type Check, warn } from './check.ts'

/** What lets jobs go that wait for a limit or a budget of their tenant. */
const todoOf: Record<Exclude<WaitCause, 'schedule' | 'lane'>, (tenant: string) => string> = {
  max_running: (tenant) => `They go as calls end. To allow more at once: askonce tenants set ${tenant} --max-running N`,
  calls_per_minute: (tenant) =>
    `They go as the minute passes. To allow more: askonce tenants set ${tenant} --calls-per-minute N`,
  tokens_per_minute: (tenant) =>
    `They go as the minute passes. To allow more: askonce tenants set ${tenant} --tokens-per-minute N`,
  day: (tenant) =>
    `It resets at midnight UTC. To go on now: askonce tenants set ${tenant} --budget-day USD. askonce get says of a job whether it fits at all.`,
  month: (tenant) =>
    `It resets with the month, UTC. To go on now: askonce tenants set ${tenant} --budget-month USD. askonce get says of a job whether it fits at all.`,
}

/** What queued jobs wait for that somebody could change: closed lanes, and limits and budgets of tenants. */
export function waitingChecks(groups: readonly WaitingGroup[], countedOfGroup: number): Check[] {
  const jobs = (amount: number): string =>
    amount >= countedOfGroup ? `at least ${amount} jobs wait` : count(amount, 'job waits', 'jobs wait')
  const lanes = sums(groups.filter(({ cause }) => cause === 'lane').map(({ lane, count: n }) => [lane, n]))
  const checks = [...lanes].map(([lane, amount]) =>
    warn('waiting', `${jobs(amount)} behind what is closed in lane ${lane}`, 'See that lane: askonce lanes list'),
  )
  const ofTenants = groups.flatMap(({ tenant_id: tenant, cause, count: n }) =>
    cause === null || cause === 'schedule' || cause === 'lane' ? [] : [{ tenant, cause, n }],
  )
  const tenants = sums(ofTenants.map(({ tenant, cause, n }) => [`${tenant} ${cause}`, n]))
  for (const [name, amount] of tenants) {
    const [tenant, cause] = name.split(' ') as [string, keyof typeof todoOf]
    const what = waitKindOf[cause] === 'budget' ? `the budget of the ${cause}` : cause
    checks.push(warn(`tenant ${tenant}`, `${jobs(amount)} for ${what}`, todoOf[cause](tenant)))
  }
  return checks
}

function sums(entries: readonly (readonly [name: string, amount: number])[]): Map<string, number> {
  const found = new Map<string, number>()
  for (const [name, amount] of entries) found.set(name, (found.get(name) ?? 0) + amount)
  return found
}
