import { movesOf } from './moves.ts'
import { hasRoom, startOf, type Rules, type Settings, type World } from './state.ts'

export interface Exploration {
  states: number
  /** The most that the watched tenant was passed over in succession. */
  passedOver: number
  violation: { promise: string; trace: string[] } | null
}

/** The share of each other tenant at each worker: each of them has a turn of its own to finish. */
export function mostPassedOver({ tenants, workers, watched }: Settings): number {
  const others = tenants.filter((_, tenant) => tenant !== watched).reduce((sum, { weight }) => sum + weight, 0)
  return workers * others
}

/** Visits every reachable state, nearest first, so that the trace of a violation is a shortest one. */
export function explore(rules: Rules, settings: Settings): Exploration {
  const start = startOf(settings)
  const worlds: World[] = [start]
  const index = new Map<string, number>([[JSON.stringify(start), 0]])
  const cameFrom: { parent: number; name: string }[] = [{ parent: -1, name: '' }]
  const before: number[][] = [[]]
  const served = new Set<number>()
  let passedOver = 0

  const traceTo = (at: number, last?: string): string[] => {
    const trace = last === undefined ? [] : [last]
    for (let i = at; i > 0; i = cameFrom[i]?.parent ?? 0) trace.unshift(cameFrom[i]?.name ?? '')
    return trace
  }
  const result = (violation: Exploration['violation']): Exploration => ({
    states: worlds.length,
    passedOver,
    violation,
  })

  for (let at = 0; at < worlds.length; at += 1) {
    const world = worlds[at] ?? start
    for (const { name, next, unasked, claims } of movesOf(world, rules, settings)) {
      const promise = brokenIn(next, settings)
      if (promise !== null) return result({ promise, trace: traceTo(at, name) })
      passedOver = Math.max(passedOver, next.passedOver)
      if (claims === settings.watched) served.add(at)
      const key = JSON.stringify(next)
      let to = index.get(key)
      if (to === undefined) {
        to = worlds.length
        index.set(key, to)
        worlds.push(next)
        cameFrom.push({ parent: at, name })
        before.push([])
      }
      if (unasked) before[to]?.push(at)
    }
  }
  const waits = ({ tenants }: World): boolean => (tenants[settings.watched]?.queued ?? 0) > 0
  const reaches = new Set(served)
  for (const at of reaches) for (const earlier of before[at] ?? []) reaches.add(earlier)
  const stuck = worlds.findIndex(
    (world, at) => waits(world) && hasRoom(world, settings.watched, settings) && !reaches.has(at),
  )
  if (stuck !== -1) return result({ promise: 'who has a due job and room gets a call', trace: traceTo(stuck) })
  return result(null)
}

/** Name of the first promise that a state breaks; null: none. */
function brokenIn({ tenants, attempts, passedOver }: World, settings: Settings): string | null {
  for (const [at, { spent, reserved, bill }] of tenants.entries()) {
    const { maxRunning = null, budget = null } = settings.tenants[at] ?? {}
    const its = attempts.filter(({ tenant }) => tenant === at)
    const open = its.filter(({ ledger }) => ledger === 'open').length
    if (maxRunning !== null && open > maxRunning) return 'never more calls at once than max_running'
    if (budget === null) continue
    const held = its.filter(({ ledger }) => ledger === 'open' || ledger === 'maybe')
    if (reserved !== held.length * settings.reserve) return 'reserved is what open and maybe attempts have reserved'
    if (spent + reserved > budget) return 'spent and reserved are within the budget'
    const unsettled = held.filter(({ charged }) => charged).length * settings.cost
    if (bill !== spent + unsettled) return 'spent is what the provider has billed and is known to have'
    if (bill > budget) return 'the bill is within the budget'
  }
  if (passedOver > mostPassedOver(settings)) return 'nobody is passed over for ever'
  return null
}
