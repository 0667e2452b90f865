import type { Billing } from '@askonce/core'
import {
  hasBudget,
  hasRoom,
  isLimited,
  type Attempt,
  type Claim,
  type Rules,
  type Settings,
  type Tenant,
  type World,
} from './state.ts'

/** One step of one process. */
export interface Move {
  name: string
  next: World
  /** Whether it happens without anybody asking, and without a fault. */
  unasked: boolean
  /** The tenant of which a call begins with it; null: none. */
  claims: number | null
}

type Make = (name: string, next: World, more?: { asked?: boolean; claims?: number }) => void

/** Every step that can be taken next. */
export function movesOf(world: World, rules: Rules, settings: Settings): Move[] {
  const moves: Move[] = []
  const make: Make = (name, next, { asked = false, claims } = {}) => {
    moves.push({ name, next: tidied(next, rules, settings), unasked: !asked, claims: claims ?? null })
  }
  world.tenants.forEach(({ queued }, tenant) => {
    if (queued < settings.queued) make(`submit ${tenant}`, withQueued(world, tenant, 1), { asked: true })
  })
  world.workers.forEach((_, worker) => claimMoves(world, worker, rules, settings, make))
  world.attempts.forEach((_, index) => attemptMoves(world, index, rules, settings, make))
  return moves
}

/** Leaves out what nothing depends on any more, and orders what has no order, so that worlds that differ in nothing else are one. */
function tidied(world: World, rules: Rules, settings: Settings): World {
  const attempts = world.attempts.filter(({ tenant, ledger, phase, end }) => {
    if (ledger === 'open') return true
    // Only money depends on evidence that comes late.
    if (!hasBudget(tenant, settings)) return false
    const nothingComes = phase === 'over' || (phase === 'ending' && end === 'maybe')
    return ledger === 'maybe' || (rules.settlesTwice && !nothingComes)
  })
  const text = new Map(attempts.map((one) => [one, JSON.stringify(one)]))
  return { ...world, attempts: attempts.toSorted((a, b) => ((text.get(a) ?? '') < (text.get(b) ?? '') ? -1 : 1)) }
}

function withTenant(world: World, tenant: number, change: (row: Tenant) => Partial<Tenant>): World {
  return { ...world, tenants: world.tenants.map((row, at) => (at === tenant ? { ...row, ...change(row) } : row)) }
}

function withQueued(world: World, tenant: number, more: number): World {
  return withTenant(world, tenant, ({ queued }) => ({ queued: queued + more }))
}

function withAttempt(world: World, index: number, change: Partial<Attempt>): World {
  return { ...world, attempts: world.attempts.map((one, at) => (at === index ? { ...one, ...change } : one)) }
}

function withWorker(world: World, worker: number, change: Partial<World['workers'][number]>): World {
  return { ...world, workers: world.workers.map((one, at) => (at === worker ? { ...one, ...change } : one)) }
}

/** claim_jobs for one place: chosen in one step, committed in another; between them others see nothing of it but its locks. */
function claimMoves(world: World, worker: number, rules: Rules, settings: Settings, make: Make): void {
  const one = world.workers[worker]
  if (one === undefined) return
  const { claim } = one
  // The process dies: its transaction is rolled back, and its memory of whose turn it is is gone.
  if (claim !== null || one.turn !== 0 || one.credit !== 0) {
    const fresh = withWorker(world, worker, { turn: 0, credit: 0, claim: null })
    make(`worker ${worker} dies`, { ...fresh, passedOver: 0 }, { asked: true })
  }
  if (claim === null && !rules.countsBehindLock) {
    const counted = world.tenants.map((_, tenant) => hasRoom(world, tenant, settings))
    if (isDue(world, 0) || isDue(world, 1)) {
      make(`worker ${worker} begins`, withWorker(world, worker, { claim: { pick: null, locks: [], counted } }))
    }
    return
  }
  const chosen = claim?.pick ?? null
  if (chosen === null) return choose(world, worker, claim, rules, settings, make)
  make(`worker ${worker} claims ${chosen}`, committed(world, worker, chosen, rules, settings), { claims: chosen })
}

function isDue(world: World, tenant: number): boolean {
  const taken = world.workers.filter(({ claim }) => claim?.pick === tenant).length
  return (world.tenants[tenant]?.queued ?? 0) > taken
}

function isLockedByAnother(world: World, worker: number, tenant: number): boolean {
  return world.workers.some(({ claim }, at) => at !== worker && claim?.locks.includes(tenant) === true)
}

/** Visits the tenants from the one whose turn it is; with nothing left of its credit, from the one behind it. */
function choose(world: World, worker: number, begun: Claim | null, rules: Rules, settings: Settings, make: Make): void {
  const one = world.workers[worker]
  if (one === undefined) return
  const count = settings.tenants.length
  const first = one.credit > 0 ? 0 : 1
  const locks: number[] = []
  let pick: number | null = null
  for (let step = first; step < first + count && pick === null; step += 1) {
    const tenant = (one.turn + step) % count
    const limits = settings.tenants[tenant]
    if (limits === undefined || !isDue(world, tenant)) continue
    if (isLimited(limits) && rules.claimLocks) {
      if (isLockedByAnother(world, worker, tenant)) continue
      locks.push(tenant)
    }
    const room = begun === null ? hasRoom(world, tenant, settings) : (begun.counted[tenant] ?? false)
    if (room) pick = tenant
    else if (!rules.skipsTheFull) break
  }
  const { watched } = settings
  const isPassedOver =
    pick !== watched &&
    isDue(world, watched) &&
    hasRoom(world, watched, settings) &&
    !isLockedByAnother(world, worker, watched)
  const passedOver = pick === watched ? 0 : world.passedOver + (isPassedOver ? 1 : 0)
  if (pick === null) {
    // It looks again later; what it has seen changes nothing.
    if (isPassedOver || begun !== null) {
      make(`worker ${worker} finds nothing`, { ...withWorker(world, worker, { claim: null }), passedOver })
    }
    return
  }
  const claim: Claim = { pick, locks, counted: [] }
  make(`worker ${worker} chooses ${pick}`, { ...withWorker(world, worker, { claim }), passedOver })
}

function committed(world: World, worker: number, tenant: number, rules: Rules, settings: Settings): World {
  const one = world.workers[worker]
  const limits = settings.tenants[tenant]
  if (one === undefined || limits === undefined) return world
  const had = one.turn === tenant && one.credit > 0 ? one.credit : limits.weight
  const next = { turn: tenant, credit: rules.turnMovesOn ? had - 1 : had, claim: null }
  let after = withQueued(withWorker(world, worker, next), tenant, -1)
  if (!isLimited(limits)) return after
  if (limits.budget !== null && rules.claimReserves) {
    after = withTenant(after, tenant, ({ reserved }) => ({ reserved: reserved + settings.reserve }))
  }
  const attempt: Attempt = { tenant, phase: 'claimed', end: null, ledger: 'open', charged: false, ownerDead: false }
  return { ...after, attempts: [...after.attempts, attempt] }
}

function attemptMoves(world: World, index: number, rules: Rules, settings: Settings, make: Make): void {
  const attempt = world.attempts[index]
  if (attempt === undefined) return
  const { tenant, phase, end, ledger, charged, ownerDead } = attempt
  const isPaid = hasBudget(tenant, settings)
  const named = (what: string): string => `${what} a call of ${tenant}`
  const ending = (billing: Billing, more: Partial<Attempt> = {}): World =>
    withAttempt(world, index, { phase: 'ending', end: billing, ...more })

  if (phase === 'claimed') {
    const sent = withAttempt(world, index, { phase: 'sent', charged: isPaid })
    const billed = isPaid ? withTenant(sent, tenant, ({ bill }) => ({ bill: bill + settings.cost })) : sent
    make(named('send'), billed)
    make(named('do not send, or is refused:'), ending('none'))
  }
  if (phase === 'sent') {
    make(named('answer to'), ending('billed'))
    make(named('no usable answer to'), ending('maybe'))
  }
  if (phase === 'ending' && end !== null) {
    for (const then of ['over', 'ending'] as const) {
      const what = then === 'over' ? 'record' : 'record, reply lost,'
      make(named(what), ended(withAttempt(world, index, { phase: then }), index, end, false, rules, settings))
    }
  }
  if (phase !== 'over')
    make(named('worker dies with'), withAttempt(world, index, { phase: 'over', end: null }), { asked: true })
  // A look-up finds what the provider has billed.
  if (phase === 'over' && ledger === 'maybe' && charged) {
    make(named('look-up finds'), ended(world, index, 'billed', false, rules, settings))
  }
  if (ledger !== 'open') return
  const unknown = world.attempts.filter(
    (one) => one.tenant === tenant && (one.ownerDead || one.ledger === 'maybe'),
  ).length
  if (!ownerDead && unknown < settings.unknown) {
    make(named('declare dead the worker of'), withAttempt(world, index, { ownerDead: true }))
  } else if (ownerDead) make(named('reclaim'), ended(world, index, 'maybe', true, rules, settings))
}

/** end-attempts.ts with settlement.ts: ledger, job and tenant in one step. */
function ended(
  world: World,
  index: number,
  billing: Billing,
  onlyOpen: boolean,
  rules: Rules,
  settings: Settings,
): World {
  const attempt = world.attempts[index]
  if (attempt === undefined) return world
  const { tenant, ledger } = attempt
  const isRecorded = ledger === 'open' || (ledger === 'maybe' && billing !== 'maybe' && !onlyOpen)
  let after = world
  if (isRecorded) after = withAttempt(after, index, { ledger: billing, ownerDead: false })
  // The policy rerun: what was not answered is queued again.
  const isQueued = ledger === 'open' && billing !== 'billed' && (world.tenants[tenant]?.queued ?? 0) < settings.queued
  if (isQueued) after = withQueued(after, tenant, 1)
  const settles = isRecorded ? ledger === 'open' || rules.settlesLate : rules.settlesTwice
  if (!hasBudget(tenant, settings) || !settles || !rules.releases(billing)) return after
  return withTenant(after, tenant, ({ reserved, spent }) => ({
    reserved: reserved - settings.reserve,
    spent: spent + rules.spends(billing, settings.cost),
  }))
}
