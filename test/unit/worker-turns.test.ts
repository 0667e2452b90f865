import type { Claim, Claimed } from '@askonce/store'
import { describe, expect, test } from 'vitest'
import { Turns, type Beginning } from '../../apps/worker/src/turns.ts'

const at = (seconds: number): Date => new Date(Date.UTC(2026, 0, 1) + seconds * 1_000)

/** A claim of so many jobs of a group, the newest of which could run from `seconds` on. */
function claimed(count: number, group: { tenant?: string; model?: string; priority?: number; seconds?: number } = {}) {
  const { tenant = 'a', model = 'm', priority = 5, seconds = 100 } = group
  const one = { tenant_id: tenant, model, priority, run_at: at(seconds) } as unknown as Claim
  return Array.from({ length: count }, () => one)
}

const result = (claims: Claim[], tenant = 'a', credit = 0): Claimed => ({
  claims,
  turn: { tenant, credit },
  more: true,
  atLimit: false,
})

/** Turns that have looked at everything at time 0, at which they claimed these jobs. */
function after(...all: Claim[][]): Turns {
  const turns = new Turns()
  turns.end(turns.begin(0), result(all.flat()), 0, 0)
  return turns
}

describe('turns', () => {
  test('go on where the last claim ended', () => {
    const turns = new Turns()
    const first = turns.begin(0)
    expect(first.turn).toEqual({ tenant: '', credit: 0 })
    turns.end(first, result([], 'b', 3), 0, 1)
    expect(turns.begin(2).turn).toEqual({ tenant: 'b', credit: 3 })
  })

  test('one claim in ten takes first what has waited for long', () => {
    const turns = new Turns()
    const aged: number[] = []
    for (let number = 1; number <= 30; number += 1) if (turns.begin(number).agedFirst) aged.push(number)
    expect(aged).toEqual([10, 20, 30])
  })
})

// DESIGN.md §8: a held snapshot must not slow the claim down.
describe('bounds of groups', () => {
  test('a group of which a thousand were claimed is looked at from a second before the newest of them on', () => {
    expect(after(claimed(999)).begin(1).known).toEqual([])
    expect(after(claimed(1_000)).begin(1).known).toMatchObject([
      { tenant: 'a', model: 'm', priority: 5, since: at(99) },
    ])
  })

  test('they move on with what is claimed, and never back', () => {
    const turns = after(claimed(1_000))
    const next = (seconds: number, nowMs: number): void => {
      const beginning = turns.begin(nowMs)
      turns.end(beginning, result(claimed(1, { seconds })), nowMs, nowMs)
    }
    next(200, 1)
    expect(turns.begin(2).known.map(({ since }) => since)).toEqual([at(199)])
    // A rerun of what was submitted long ago, found by a whole look.
    next(50, 3)
    expect(turns.begin(4).known.map(({ since }) => since)).toEqual([at(199)])
  })

  test('come in the order of the key: tenants and models by their bytes, then priority', () => {
    const turns = after(
      claimed(1_000, { tenant: 'b', model: 'x', priority: 7 }),
      claimed(1_000, { tenant: 'b', model: 'x', priority: 5 }),
      claimed(1_000, { tenant: 'b', model: '\u{1F600}' }),
      claimed(1_000, { tenant: 'b', model: '\uFFFD' }),
      claimed(1_000, { tenant: 'a_b' }),
      claimed(1_000, { tenant: 'a-b' }),
    )
    expect(turns.begin(1).known.map(({ tenant, model, priority }) => [tenant, model, priority])).toEqual([
      ['a-b', 'm', 5],
      ['a_b', 'm', 5],
      ['b', 'x', 5],
      ['b', 'x', 7],
      ['b', '\uFFFD', 5],
      ['b', '\u{1F600}', 5],
    ])
  })

  test('what stayed behind them is looked for every second', () => {
    const turns = after(claimed(1_000))
    const known = (nowMs: number): number => turns.begin(nowMs).known.length
    expect([known(1), known(999), known(1_000)]).toEqual([1, 1, 0])
    const whole: Beginning = turns.begin(1_000)
    turns.end(whole, result([]), 1_000, 1_010)
    expect([known(1_011), known(2_009), known(2_010)]).toEqual([1, 1, 0])
  })

  test('and less often where that takes long: at most a twentieth of the time goes into it', () => {
    const turns = after(claimed(1_000))
    turns.end(turns.begin(1_000), result([]), 1_000, 1_500)
    expect([turns.begin(11_499).known.length, turns.begin(11_500).known.length]).toEqual([1, 0])
  })

  test('a claim with bounds does not put the whole look off', () => {
    const turns = after(claimed(1_000))
    for (let nowMs = 100; nowMs < 1_000; nowMs += 100) turns.end(turns.begin(nowMs), result([]), nowMs, nowMs)
    expect(turns.begin(1_000).known).toEqual([])
  })

  test('two hundred groups are remembered, those that were claimed from last', () => {
    const turns = after(claimed(1_000, { model: 'first' }))
    const many = Array.from({ length: 200 }, (_, index) => claimed(1, { model: `m${index}` })).flat()
    turns.end(turns.begin(1), result([...many.slice(0, 199), ...claimed(1, { model: 'first' })]), 1, 1)
    expect(turns.begin(2).known).toHaveLength(1)
    turns.end(turns.begin(3), result(many), 3, 3)
    turns.end(turns.begin(4), result(claimed(999, { model: 'first' })), 4, 4)
    expect(turns.begin(5).known).toEqual([])
  })
})
