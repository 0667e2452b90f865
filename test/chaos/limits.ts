import type { LogLine } from '@askonce/testkit'
import { leaseMs } from './timing.ts'

/** What a tenant may have, and since when. */
export interface TenantRules {
  maxRunning: number | null
  callsPerMinute: number | null
  /** US dollars for each day of UTC: what may have been set at a time (milliseconds since the epoch), in order. Empty: no budget. */
  budgets: readonly { fromMs: number; usd: number }[]
  /** When all of it was lifted; calls that arrive later are not judged. Null: it holds. */
  liftedAtMs: number | null
}

/** US dollars per million tokens. */
export interface Price {
  inputUsd: number
  outputUsd: number
}

export interface TenantEvidence {
  tenant: string
  rules: TenantRules
  price: Price
  /** The upstream's log of this tenant's requests, in the order of their arrival. */
  log: readonly LogLine[]
}

/** How much a tenant had beyond what it may have. */
export interface Beyond {
  kind: 'calls' | 'dollars'
  count: number
  what: string
}

/**
 * How long after its claim a call may arrive: a Postgres that is frozen in a COMMIT answers when it thaws, and the worker sends then.
 * No fault lasts longer.
 */
const lagMs = 12_000
/**
 * How long after its arrival a call is counted as one that runs, if its connection is not closed earlier. A worker that is frozen keeps the
 * connection when it has been declared dead, and then its calls are nobody's. That is at the earliest half a lease after it has sent
 * one, for it sends nothing when its last beat is older than the other half.
 */
const runsMs = leaseMs / 2
const minuteMs = 60_000
const dayMs = 24 * 60 * minuteMs

/** Compares the upstream's own log of a tenant's requests with what the tenant may have. Empty: nothing was beyond it. */
export function beyondLimits({ rules, price, log }: TenantEvidence): Beyond[] {
  const { maxRunning, callsPerMinute, budgets, liftedAtMs } = rules
  const judged = log.filter(({ arrivedAt }) => liftedAtMs === null || arrivedAt < liftedAtMs)
  const found: Beyond[] = []
  if (maxRunning !== null) {
    const { count, most } = atOnce(judged, maxRunning)
    if (count > 0) found.push({ kind: 'calls', count, what: `${most} calls at once, ${maxRunning} allowed` })
  }
  if (callsPerMinute !== null) {
    const { count, most } = inAMinute(judged, callsPerMinute)
    if (count > 0) found.push({ kind: 'calls', count, what: `${most} calls in a minute, ${callsPerMinute} allowed` })
  }
  if (budgets.length > 0) {
    const dollars = beyondBudget(judged, price, budgets)
    if (dollars > 0) found.push({ kind: 'dollars', count: dollars, what: `$${dollars} beyond what was allowed` })
  }
  return found
}

interface Excess {
  /** Requests that arrived when there were as many as there may be. */
  count: number
  most: number
}

function atOnce(log: readonly LogLine[], limit: number): Excess {
  let running: number[] = []
  const excess = { count: 0, most: 0 }
  for (const { arrivedAt, endedAt } of log) {
    running = running.filter((overAt) => overAt > arrivedAt)
    running.push(Math.min(endedAt ?? Infinity, arrivedAt + runsMs))
    excess.most = Math.max(excess.most, running.length)
    if (running.length > limit) excess.count += 1
  }
  return excess
}

/**
 * Claims keep the limit in every minute. Their calls arrive up to `lagMs` later, some of them sooner than others; those that arrive within a
 * minute less that time were claimed within one minute, and no more may be said.
 */
function inAMinute(log: readonly LogLine[], limit: number): Excess {
  const excess = { count: 0, most: 0 }
  let first = 0
  for (const [index, { arrivedAt }] of log.entries()) {
    while (arrivedAt - (log[first]?.arrivedAt ?? arrivedAt) >= minuteMs - lagMs) first += 1
    const count = index - first + 1
    excess.most = Math.max(excess.most, count)
    if (count > limit) excess.count += 1
  }
  return excess
}

/** The most that the bill of a day ever was beyond what was allowed by then, in US dollars. */
function beyondBudget(log: readonly LogLine[], price: Price, budgets: TenantRules['budgets']): number {
  let day = NaN
  let spent = 0
  let most = 0
  for (const { arrivedAt, inputTokens, outputTokens } of log) {
    // A call counts for the day of its claim: of those that arrive shortly after midnight nobody here knows which that is.
    if (arrivedAt % dayMs < lagMs) continue
    const its = Math.floor(arrivedAt / dayMs)
    if (its !== day) spent = 0
    day = its
    spent += (inputTokens * price.inputUsd + outputTokens * price.outputUsd) / 1e6
    const allowed = budgets.findLast(({ fromMs }) => fromMs <= arrivedAt)?.usd ?? 0
    most = Math.max(most, spent - allowed)
  }
  // What adding up many small amounts may be off by is no dollar.
  return Math.round(most * 1e6) / 1e6
}
