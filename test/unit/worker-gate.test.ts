import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { ByteBudget } from '../../apps/worker/src/byte-budget.ts'
import { Gate } from '../../apps/worker/src/gate.ts'

beforeEach(() => {
  vi.useFakeTimers()
})
afterEach(() => {
  vi.useRealTimers()
})

/** Callers that stand at the gate; `entered` says who may try. */
function callers(gate: Gate, count: number, signal?: AbortSignal): { entered: number[]; refused: number[] } {
  const seen = { entered: [] as number[], refused: [] as number[] }
  for (let number = 0; number < count; number += 1) {
    void gate.enter(signal).then((entered) => (entered ? seen.entered : seen.refused).push(number))
  }
  return seen
}
const tick = (ms = 0): Promise<unknown> => vi.advanceTimersByTimeAsync(ms)

describe('the gate', () => {
  test('is open until somebody fails; then one at a time tries, however many wait', async () => {
    const gate = new Gate()
    expect(await gate.enter()).toBe(true)
    // Those that entered before the first failure fail too, and it counts once.
    for (let straggler = 0; straggler < 50; straggler += 1) gate.failed()
    expect(gate.isOpen).toBe(false)
    const { entered } = callers(gate, 300)
    await tick()
    expect(entered).toEqual([])
    await tick(100)
    expect(entered).toEqual([0])
    // While it tries nobody else does.
    await tick(60_000)
    expect(entered).toEqual([0])
    gate.worked()
    await tick()
    expect(entered).toHaveLength(300)
    expect(gate.isOpen).toBe(true)
  })

  test('a long outage costs one try every two seconds, by another caller each time', async () => {
    const gate = new Gate()
    gate.failed()
    const { entered } = callers(gate, 100)
    for (let second = 0; second < 600; second += 1) {
      await tick(100)
      if (entered.length > 0 && !gate.isOpen) gate.failed()
    }
    // 60 seconds at 1 to 2 seconds each, and the shorter waits of the beginning.
    expect(entered.length).toBeGreaterThan(25)
    expect(entered.length).toBeLessThan(75)
    expect(new Set(entered).size).toBe(entered.length)
  })

  test('a hint makes the next one try at once', async () => {
    const gate = new Gate()
    for (let failure = 0; failure < 10; failure += 1) gate.failed()
    const { entered } = callers(gate, 2)
    gate.hint()
    await tick()
    expect(entered).toEqual([0])
    gate.hint()
    await tick()
    expect(entered).toEqual([0])
  })

  test('who does not try after all gives the turn to the next', async () => {
    const gate = new Gate()
    gate.failed()
    const { entered } = callers(gate, 2)
    await tick(100)
    gate.leave()
    await tick(100)
    expect(entered).toEqual([0, 1])
  })

  test('who gives up leaves the line; shut for good it lets nobody in', async () => {
    const gate = new Gate()
    gate.failed()
    const given = new AbortController()
    const gone = callers(gate, 1, given.signal)
    const others = callers(gate, 2)
    given.abort()
    await tick(100)
    expect([gone.refused, gone.entered, others.entered]).toEqual([[0], [], [0]])
    gate.shutForGood()
    await tick(5_000)
    expect(others).toEqual({ entered: [0], refused: [1] })
    expect(await gate.enter()).toBe(false)
  })
})

test('the byte budget lets in what fits, in order, and one that never fits alone', async () => {
  const budget = new ByteBudget(10)
  const inside: number[] = []
  const together: number[][] = []
  const run = (bytes: number): Promise<void> =>
    budget.with(bytes, async () => {
      inside.push(bytes)
      together.push([...inside])
      await new Promise((resolve) => setTimeout(resolve, 10))
      inside.splice(inside.indexOf(bytes), 1)
    })
  const all = Promise.all([4, 5, 6, 100, 3, 1].map(run))
  await vi.advanceTimersByTimeAsync(100)
  await all
  expect(together).toEqual([[4], [4, 5], [6], [100], [3], [3, 1]])
  // A failure gives back what it took.
  await expect(budget.with(10, () => Promise.reject(new Error('no')))).rejects.toThrow('no')
  expect(await budget.with(10, () => Promise.resolve('in'))).toBe('in')
})
