import { movesOf } from './moves.ts'
import { arrowOf, atEnd, atRest, brokenByStep, brokenInState } from './properties.ts'
import type { Rules, Settings, World } from './state.ts'

export interface Exploration {
  states: number
  steps: number
  /** Arrows of the transition table that were taken, by the name that properties.ts gives them. */
  arrows: ReadonlySet<string>
  violation: { promise: string; trace: string[] } | null
}

interface Edges {
  /** Predecessors by any step, and by those steps that happen without anybody asking. */
  all: number[][]
  unasked: number[][]
}

/** Visits every reachable state, nearest first, so that the trace of a violation is a shortest one. */
export function explore(rules: Rules, settings: Settings): Exploration {
  const start: World = { job: null, attempts: [], consents: 0 }
  const worlds: World[] = [start]
  const index = new Map<string, number>([[JSON.stringify(start), 0]])
  const cameFrom: { parent: number; name: string }[] = [{ parent: -1, name: '' }]
  const edges: Edges = { all: [[]], unasked: [[]] }
  const arrows = new Set<string>()
  let steps = 0

  const traceTo = (at: number, last?: string): string[] => {
    const trace = last === undefined ? [] : [last]
    for (let i = at; i > 0; i = cameFrom[i]?.parent ?? 0) trace.unshift(cameFrom[i]?.name ?? '')
    return trace
  }
  const result = (violation: Exploration['violation']): Exploration => ({
    states: worlds.length,
    steps,
    arrows,
    violation,
  })

  for (let at = 0; at < worlds.length; at += 1) {
    const world = worlds[at] ?? start
    for (const move of movesOf(world, rules, settings)) {
      steps += 1
      const promise = brokenByStep(world, move, settings) ?? brokenInState(move.next, settings)
      if (promise !== null) return result({ promise, trace: traceTo(at, move.name) })
      const arrow = arrowOf(world, move)
      if (arrow !== null && arrow !== undefined) arrows.add(arrow)
      const key = JSON.stringify(move.next)
      let to = index.get(key)
      if (to === undefined) {
        to = worlds.length
        index.set(key, to)
        worlds.push(move.next)
        cameFrom.push({ parent: at, name: move.name })
        edges.all.push([])
        edges.unasked.push([])
      }
      edges.all[to]?.push(at)
      if (move.by !== 'user' && move.by !== 'producer' && move.by !== 'fault') edges.unasked[to]?.push(at)
    }
  }

  const stuck = firstWithoutWay(worlds, edges.unasked, (world) => world.job === null || atRest(world, settings))
  if (stuck !== null) return result({ promise: 'every accepted job ends or is held', trace: traceTo(stuck) })
  const held = firstWithoutWay(worlds, edges.all, (world) => atEnd(world, settings))
  if (held !== null) return result({ promise: 'what is held can end', trace: traceTo(held) })
  return result(null)
}

/** The first state from which no goal can be reached; null: there is none. */
function firstWithoutWay(
  worlds: readonly World[],
  predecessors: readonly number[][],
  goal: (world: World) => boolean,
): number | null {
  const reaches = new Uint8Array(worlds.length)
  const todo: number[] = []
  worlds.forEach((world, at) => {
    if (!goal(world)) return
    reaches[at] = 1
    todo.push(at)
  })
  for (let at = todo.pop(); at !== undefined; at = todo.pop()) {
    for (const before of predecessors[at] ?? []) {
      if (reaches[before] === 1) continue
      reaches[before] = 1
      todo.push(before)
    }
  }
  const found = reaches.indexOf(0)
  return found === -1 ? null : found
}
