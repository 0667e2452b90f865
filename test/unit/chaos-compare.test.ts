import { expect, test } from 'vitest'
import { schedule } from '../chaos/compare/schedule.ts'
import { tallyRow, type Line } from '../chaos/compare/tally.ts'

const at = 1_000

function accepted(key: string, when = at): Line {
  return { type: 'accepted', key, at: when }
}

function answered(key: string, when: number, sha = 'one'): Line {
  return { type: 'ended', key, at: when, how: 'answered', sha }
}

test('counts what was paid, lost, answered twice and held', () => {
  const lines: Line[] = [
    { type: 'asked', key: 'never accepted', at },
    ...['a', 'b', 'c', 'd'].map((key) => accepted(key)),
    answered('a', 2_000),
    // Seen again after a crash of the producer, and it is another answer.
    answered('a', 9_000, 'two'),
    { type: 'ended', key: 'b', at: 2_000, how: 'failed', sha: null },
    { type: 'ended', key: 'c', at: 2_000, how: 'held', sha: null },
  ]
  const calls = new Map([
    ['a', 2],
    ['b', 3],
    ['c', 1],
  ])
  expect(tallyRow('x', lines, calls, [])).toMatchObject({
    accepted: 4,
    calls: 6,
    paidPerJob: 1.5,
    paidMoreThanOnce: 2,
    lost: 1,
    twoAnswers: 1,
    failed: 1,
    held: 1,
  })
})

test('recovery is the longest wait of a job that the fault caught; what came later or never ended does not count', () => {
  const lines = [
    accepted('before'),
    answered('before', 1_500),
    accepted('caught'),
    answered('caught', 5_000),
    answered('caught', 50_000),
    accepted('later', 3_000),
    answered('later', 9_000),
    accepted('lost'),
  ]
  expect(tallyRow('x', lines, new Map(), [2_000])).toMatchObject({ recoveryP50Ms: 3_000, recoveryMaxMs: 3_000 })
})

test('the schedule is a function of the seed, in order, within the load, and may leave FLUSHALL out', () => {
  const plan = schedule(5, 60_000, true)
  expect(schedule(5, 60_000, true)).toEqual(plan)
  expect(schedule(6, 60_000, true)).not.toEqual(plan)
  expect(plan.map((fault) => fault.atMs)).toEqual(plan.map((fault) => fault.atMs).toSorted((a, b) => a - b))
  expect(Math.max(...plan.map((fault) => fault.atMs))).toBeLessThan(55_000)
  const kinds = schedule(5, 60_000, false).map(({ kind }) => kind)
  expect(kinds).toHaveLength(plan.length - 1)
  expect(kinds).not.toContain('redis: FLUSHALL')
})
