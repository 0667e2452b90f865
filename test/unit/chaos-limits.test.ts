import type { LogLine } from '@askonce/testkit'
import { describe, expect, test } from 'vitest'
import { beyondLimits, type TenantRules } from '../chaos/limits.ts'

// The checker of limits must be able to fail, and must not fail where a call was only late.

/** Noon of some day, in milliseconds since the epoch. */
const noon = Date.UTC(2030, 0, 2, 12)
const none: TenantRules = { maxRunning: null, callsPerMinute: null, budgets: [], liftedAtMs: null }

/** A call that arrives so many milliseconds after noon and costs one dollar. */
function call(atMs: number, endsAtMs: number | null = atMs + 100, outputTokens = 1_000_000): LogLine {
  const endedAt = endsAtMs === null ? null : noon + endsAtMs
  return { marker: 'team-0', arrivedAt: noon + atMs, endedAt, inputTokens: 0, outputTokens }
}

function beyond(rules: Partial<TenantRules>, log: LogLine[]) {
  const price = { inputUsd: 0, outputUsd: 1 }
  const found = beyondLimits({ tenant: 'team', rules: { ...none, ...rules }, price, log })
  return found.map(({ kind, count }) => [kind, count])
}

describe('calls at once', () => {
  test('counts those that arrive while as many run as may', () => {
    expect(beyond({ maxRunning: 2 }, [call(0), call(50), call(100)])).toEqual([])
    expect(beyond({ maxRunning: 2 }, [call(0), call(50), call(99)])).toEqual([['calls', 1]])
    expect(beyond({ maxRunning: 1 }, [call(0, null), call(50), call(60), call(500)])).toEqual([['calls', 3]])
  })

  test('a call whose worker may have been declared dead meanwhile is nobody’s', () => {
    expect(beyond({ maxRunning: 1 }, [call(0, null), call(2_999)])).toEqual([['calls', 1]])
    expect(beyond({ maxRunning: 1 }, [call(0, null), call(3_000)])).toEqual([])
  })

  test('a refused call runs as well', () => {
    expect(beyond({ maxRunning: 1 }, [call(0, 100, 0), call(50, 100, 0)])).toEqual([['calls', 1]])
  })

  test('nothing is judged after the limits were lifted', () => {
    const log = [call(0), call(50)]
    expect(beyond({ maxRunning: 1, liftedAtMs: noon + 50 }, log)).toEqual([])
    expect(beyond({ maxRunning: 1, liftedAtMs: noon + 51 }, log)).toEqual([['calls', 1]])
  })
})

test('calls in a minute: those that arrive so close together that they were claimed within one', () => {
  const log = (lastMs: number): LogLine[] => [call(0), call(1_000), call(lastMs)]
  expect(beyond({ callsPerMinute: 2 }, log(48_000))).toEqual([])
  expect(beyond({ callsPerMinute: 2 }, log(47_999))).toEqual([['calls', 1]])
  expect(beyond({ callsPerMinute: 3 }, log(2_000))).toEqual([])
})

describe('dollars', () => {
  test('counts what the upstream has billed, whatever became of it', () => {
    const budgets = [{ fromMs: 0, usd: 2 }]
    expect(beyond({ budgets }, [call(0), call(1)])).toEqual([])
    expect(beyond({ budgets }, [call(0), call(1, 2, 0), call(3)])).toEqual([])
    expect(beyond({ budgets }, [call(0), call(1), call(2, null, 500_000)])).toEqual([['dollars', 0.5]])
  })

  test('a budget holds until it is raised, and what was beyond it then stays so', () => {
    const budgets = [
      { fromMs: 0, usd: 1 },
      { fromMs: noon + 1_000, usd: 2 },
    ]
    expect(beyond({ budgets }, [call(0), call(1_000)])).toEqual([])
    expect(beyond({ budgets }, [call(0), call(999)])).toEqual([['dollars', 1]])
  })

  test('each day of UTC has its own; what arrives within moments of midnight may be of either', () => {
    const budgets = [{ fromMs: 0, usd: 1 }]
    const midnight = 12 * 60 * 60_000
    expect(beyond({ budgets }, [call(0), call(midnight + 12_000)])).toEqual([])
    expect(beyond({ budgets }, [call(0), call(midnight + 100), call(midnight + 12_000)])).toEqual([])
    expect(beyond({ budgets }, [call(midnight + 12_000), call(midnight + 13_000)])).toEqual([['dollars', 1]])
  })
})
