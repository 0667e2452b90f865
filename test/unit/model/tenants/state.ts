import type { Billing } from '@askonce/core'

/**
 * Where an attempt is, outside the database. `ending`: its worker has an end in hand that may not be committed yet. `over`: nobody has it
 * any more.
 */
export type Phase = 'claimed' | 'sent' | 'ending' | 'over'

export interface Attempt {
  tenant: number
  phase: Phase
  /** What the end in hand says. */
  end: Billing | null
  /** The ledger row: open, or as it ended. A final one without an end in hand is left out: nothing depends on it any more. */
  ledger: 'open' | Billing
  /** Whether the provider has billed it. */
  charged: boolean
  /** Its worker's row is marked dead, rightly or not. */
  ownerDead: boolean
}

/** What the database holds of one tenant. */
export interface Tenant {
  queued: number
  /** tenant_days, in units of money. */
  spent: number
  reserved: number
  /** What the provider has billed by now. */
  bill: number
}

/** A statement that claims, from its choice to its commit: what it has locked is locked, what it writes nobody sees. */
export interface Claim {
  /** The tenant of the one job that it takes; null: it has only begun, and reads by an old snapshot. */
  pick: number | null
  locks: readonly number[]
  /** Only where the rule under test counts before it locks: the room of each tenant at the beginning. */
  counted: readonly boolean[]
}

/** A worker, in its memory: whose turn it is, how many calls that tenant still gets, and the claim that is under way. */
export interface Worker {
  turn: number
  credit: number
  claim: Claim | null
}

export interface World {
  tenants: readonly Tenant[]
  attempts: readonly Attempt[]
  workers: readonly Worker[]
  /** How often in succession a claim took somebody else's job, or none, while the watched tenant had a due job and room. */
  passedOver: number
}

export interface TenantSettings {
  weight: number
  maxRunning: number | null
  /** In units of money; the claim reserves `reserve` for each call, and a call costs `cost`. */
  budget: number | null
}

export interface Settings {
  tenants: readonly TenantSettings[]
  workers: number
  reserve: number
  cost: number
  /** The tenant that must not be passed over for ever. */
  watched: number
  /** Bounds of the exploration: jobs that a tenant has queued, and calls of one tenant that nobody knows the end of. */
  queued: number
  unknown: number
}

/** The rules under test: twins of statements, which are named. */
export interface Rules {
  /** claim_jobs: a tenant with limits is locked, and passed by while somebody else has it. */
  claimLocks: boolean
  /** claim_jobs: what a tenant has is counted in a statement that begins when the lock is held. */
  countsBehindLock: boolean
  /** claim_jobs, `reserved`. */
  claimReserves: boolean
  /** claim_jobs: after a tenant's share the turn is the next one's. */
  turnMovesOn: boolean
  /** claim_jobs: a tenant without room is skipped. */
  skipsTheFull: boolean
  /** settlement.ts: which ends give the reservation back. */
  releases: (billing: Billing) => boolean
  /** settlement.ts: whether an end that comes again settles again. */
  settlesTwice: boolean
  /** settlement.ts: whether evidence that comes after `maybe` settles. */
  settlesLate: boolean
  /** settlement.ts: what of the reservation comes back as spent. */
  spends: (billing: Billing, cost: number) => number
}

export const productRules: Rules = {
  claimLocks: true,
  countsBehindLock: true,
  claimReserves: true,
  turnMovesOn: true,
  skipsTheFull: true,
  releases: (billing) => billing !== 'maybe',
  settlesTwice: false,
  settlesLate: true,
  spends: (billing, cost) => (billing === 'billed' ? cost : 0),
}

export function isLimited({ maxRunning, budget }: TenantSettings): boolean {
  return maxRunning !== null || budget !== null
}

export function hasBudget(tenant: number, { tenants }: Settings): boolean {
  return typeof tenants[tenant]?.budget === 'number'
}

export function startOf({ tenants, workers }: Settings): World {
  return {
    tenants: tenants.map(() => ({ queued: 0, spent: 0, reserved: 0, bill: 0 })),
    attempts: [],
    workers: Array.from({ length: workers }, () => ({ turn: 0, credit: 0, claim: null })),
    passedOver: 0,
  }
}

/** Whether the tenant may have one more call, by what is committed. */
export function hasRoom(world: World, tenant: number, settings: Settings): boolean {
  const { maxRunning, budget } = settings.tenants[tenant] ?? { maxRunning: null, budget: null }
  const row = world.tenants[tenant]
  if (row === undefined) return false
  const running = world.attempts.filter((one) => one.tenant === tenant && one.ledger === 'open').length
  if (maxRunning !== null && running >= maxRunning) return false
  return budget === null || row.spent + row.reserved + settings.reserve <= budget
}
