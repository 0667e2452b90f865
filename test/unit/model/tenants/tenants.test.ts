import { describe, expect, it } from 'vitest'
import { explore, mostPassedOver } from './explore.ts'
import { productRules, type Rules, type Settings } from './state.ts'

// DESIGN.md §1 (3, 6): tenants take turns, and their limits and budgets hold, over every order of events.
//
// Two tenants, two workers that claim, each one job at a time. A claim chooses in one step and commits in another, so that every other step
// may come between; its worker may die there, and at any step of a call; the reply of an end may be lost and the end come again; workers are
// declared dead rightly or wrongly, and their ends come late, as a look-up's answer may. What runs here are twins of claim_jobs and of the
// settlement in end-attempts.ts (state.ts names the parts): test/integration/store compares the statements themselves.
//
// Not covered: calls and tokens in a minute, which are counted behind the same lock; several jobs in one claim; more than one model or
// priority; days and months; what Postgres does within a statement.

const free = { weight: 1, maxRunning: null, budget: null }
const heavy = { ...free, weight: 2 }

const settings = (tenants: Settings['tenants'], watched: number): Settings => ({
  tenants,
  watched,
  workers: 2,
  // Money in units: a call costs half of what is reserved for it.
  reserve: 2,
  cost: 1,
  queued: 2,
  unknown: 1,
})

const running = settings([heavy, { ...free, maxRunning: 1 }], 1)
const runningHeavy = settings([{ ...heavy, maxRunning: 2 }, free], 1)
const budget = settings([heavy, { ...free, budget: 4 }], 1)
const both = settings(
  [
    { ...heavy, maxRunning: 1 },
    { ...free, maxRunning: 1, budget: 3 },
  ],
  1,
)

const cases: [string, Settings][] = [
  ['at most one call of the one at once', running],
  ['at most two calls of the other at once', runningHeavy],
  ['a budget of two reservations', budget],
  ['limits on both, and a budget', both],
  ['limits on both, the other one watched', { ...both, watched: 0 }],
]

it.each(cases)('%s: every promise holds in every reachable state', { timeout: 120_000 }, (_name, chosen) => {
  const { violation, states, passedOver } = explore(productRules, chosen)
  expect(violation).toBeNull()
  // docs/reliability.md names both. Too few would mean that the model has lost some of its moves.
  expect(states).toBeGreaterThan(3_000)
  expect(states).toBeLessThan(80_000)
  // It is reached: the bound is no larger than it must be.
  expect(passedOver).toBe(mostPassedOver(chosen))
})

type Broken = [rule: string, promise: string, chosen: Settings, change: Partial<Rules>]

const broken: Broken[] = [
  [
    'a claim counts calls by a snapshot that is older than its lock',
    'never more calls at once than max_running',
    running,
    { countsBehindLock: false },
  ],
  [
    'a claim counts money by a snapshot that is older than its lock',
    'spent and reserved are within the budget',
    budget,
    { countsBehindLock: false },
  ],
  ['a claim counts without a lock', 'never more calls at once than max_running', running, { claimLocks: false }],
  ['a claim counts money without a lock', 'spent and reserved are within the budget', budget, { claimLocks: false }],
  [
    'a claim reserves nothing',
    'reserved is what open and maybe attempts have reserved',
    budget,
    { claimReserves: false },
  ],
  [
    'what was not billed keeps its reservation',
    'reserved is what open and maybe attempts have reserved',
    budget,
    { releases: (billing) => billing === 'billed' },
  ],
  [
    'what may be billed gives its reservation back',
    'reserved is what open and maybe attempts have reserved',
    budget,
    { releases: () => true },
  ],
  [
    'an end that comes again gives the reservation back again',
    'reserved is what open and maybe attempts have reserved',
    budget,
    { settlesTwice: true },
  ],
  [
    'late evidence does not give the reservation back',
    'reserved is what open and maybe attempts have reserved',
    budget,
    { settlesLate: false },
  ],
  [
    'what was billed is given back whole',
    'spent is what the provider has billed and is known to have',
    budget,
    { spends: () => 0 },
  ],
  [
    'what was not billed counts as spent',
    'spent is what the provider has billed and is known to have',
    budget,
    { spends: (_, cost) => cost },
  ],
  ['the turn stays with whom it was', 'nobody is passed over for ever', running, { turnMovesOn: false }],
  [
    'a tenant at its limit ends the search',
    'nobody is passed over for ever',
    { ...both, watched: 1 },
    { skipsTheFull: false },
  ],
]

describe('a rule that is broken is found', () => {
  it.each(broken)('%s: %s', { timeout: 120_000 }, (_rule, promise, chosen, change) => {
    const { violation } = explore({ ...productRules, ...change }, chosen)
    expect(violation?.promise).toBe(promise)
    expect(violation?.trace.length).toBeGreaterThan(1)
  })
})
