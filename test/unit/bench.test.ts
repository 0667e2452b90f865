import { availableParallelism } from 'node:os'
import { expect, test } from 'vitest'
import { readOptions } from '../../bench/options.ts'
import { median, percentile, spread } from '../../bench/stats.ts'
import { summarise } from '../../bench/summary.ts'
import { readable, renderMarkdown, renderText } from '../../bench/table.ts'

const target = { figure: 'rate', of: 'ours', against: 'theirs', bound: 'at least', factor: 2 } as const
const submit = {
  name: 'submit',
  title: 'how many',
  figures: [
    { name: 'rate', unit: 'jobs/s' },
    { name: 'p99', unit: 'ms' },
  ],
  targets: [
    target,
    { ...target, factor: 2.01 },
    { figure: 'p99', of: 'ours', against: null, bound: 'at most', factor: 9 },
    { ...target, against: 'absent' },
  ],
  open: () => Promise.reject(new Error('nothing is started')),
} as const
const summary = summarise(submit, [
  {
    contender: 'ours',
    rounds: [
      { rate: 100, p99: 9 },
      { rate: 300, p99: 1 },
      { rate: 200, p99: 30 },
    ],
  },
  { contender: 'theirs', rounds: [{ rate: 90 }, { rate: 100 }, { rate: 400 }] },
  { contender: 'broken', rounds: [] },
])

test('the median is the middle value, or the mean of the two in the middle, in any order', () => {
  expect(median([3, 1, 2])).toBe(2)
  expect(median([4, 1, 3, 2])).toBe(2.5)
  expect(median([])).toBeNaN()
})

test('the spread is the largest distance from the median, as a share of it', () => {
  expect(spread([90, 100, 130])).toBeCloseTo(0.3)
  expect(spread([100])).toBe(0)
})

test('a percentile is a value that was seen, the largest for a share of 1', () => {
  expect([0.5, 0.51, 1].map((share) => percentile([40, 10, 30, 20], share))).toEqual([20, 30, 40])
  expect(percentile([], 0.5)).toBeNaN()
})

test('a target may bound how much more a figure is than that of another one, in its unit', () => {
  const more = { figure: 'p99', of: 'ours', against: 'theirs', bound: 'at most', factor: 5, difference: true } as const
  const found = summarise({ ...submit, targets: [more, { ...more, factor: 4.9 }, { ...more, against: 'absent' }] }, [
    { contender: 'ours', rounds: [{ p99: 12 }] },
    { contender: 'theirs', rounds: [{ p99: 7 }] },
  ])
  expect(found.targets.map(({ reached, met }) => ({ reached, met }))).toEqual([
    { reached: 5, met: true },
    { reached: 5, met: false },
    { reached: null, met: null },
  ])
  expect(renderText(found)).toContain('→ ours − theirs, p99: 5.00 (at most 5.00 ms): met')
})

test('a target is judged by medians, its bound included, and one that was not measured is neither met nor missed', () => {
  expect(summary.targets.map(({ reached, met }) => ({ reached, met }))).toEqual([
    { reached: 2, met: true },
    { reached: 2, met: false },
    { reached: 9, met: true },
    { reached: null, met: null },
  ])
})

test('both tables say what was reached, what was wanted, and what was not measured', () => {
  const text = renderText(summary)
  expect(text).toContain('ours    200 ±50 % jobs/s, p99 9.00 ±233 % ms')
  expect(text).toContain('broken  not measured')
  expect(text).toContain('→ ours ÷ theirs: 2.00 (at least 2.01): missed')
  expect(text).toContain('→ ours, p99: 9.00 (at most 9.00 ms): met')
  expect(text).toContain('→ ours ÷ absent: ? (at least 2.00): not measured')
  const page = renderMarkdown([summary])
  expect(page).toContain('| submit | ours | 200 ±50 % jobs/s, p99 9.00 ±233 % ms |')
  expect(page).toContain('| submit | ours ÷ theirs: at least 2.01 | 2.00, missed |')
  expect(page).toContain('| submit | ours, p99: at most 9.00 ms | 9.00, met |')
})

test('of a rate that was missed the table says what all cores have for one unit, and what it takes', () => {
  const rates = { ...submit, targets: [{ ...target, factor: 4 }, target] }
  const measured = { rate: 200, 'own cpu': 100, 'postgres cpu': 30, 'redis cpu': 0.2, generator: 1 }
  const names = Object.keys(measured).map((name) => ({ name, unit: 'µs' }))
  const found = summarise({ ...rates, figures: names }, [
    { contender: 'ours', rounds: [measured] },
    { contender: 'theirs', rounds: [{ rate: 100 }] },
  ])
  const available = (availableParallelism() * 1e6) / 400
  expect(found.targets[0]?.room).toMatchObject({ perSecond: 400, available })
  expect(found.targets[1]?.room).toBeNull()
  expect(renderMarkdown([found])).toContain(
    `2.00, missed; 400/s leave all cores ${readable(available)} µs for each, and it takes 180: 100 own + 30.0 postgres + 50.0 generator`,
  )
})

test('numbers keep the digits that mean something', () => {
  expect([12_345.6, 12.345, 1.2345, Number.NaN].map(readable)).toEqual(['12,346', '12.3', '1.23', '?'])
})

test('age and sweep run only when they are asked for, and a smoke run has one round', () => {
  const usual = readOptions([])
  expect(usual).toMatchObject({ rounds: 3, smoke: false })
  expect(usual).not.toHaveProperty('cases', expect.arrayContaining(['age']))
  expect(readOptions(['--long'])).toHaveProperty('cases', expect.arrayContaining(['age', 'sweep', 'submit']))
  expect(readOptions(['--case', 'sweep,submit'])).toHaveProperty('cases', ['submit', 'sweep'])
  expect(readOptions(['--smoke', '--rounds', '5'])).toHaveProperty('rounds', 1)
})

test('what does not fit is refused by name', () => {
  expect(() => readOptions(['--case', 'submit,speed'])).toThrow(/--case speed: there are submit, bulk/)
  expect(() => readOptions(['--rounds', '0'])).toThrow(/--rounds is 0: a whole number from 1 to 99/)
  expect(() => readOptions(['--sweep-rows', '1e6'])).toThrow(/--sweep-rows is 1e6/)
  expect(() => readOptions(['--fast'])).toThrow(/--fast/)
})
