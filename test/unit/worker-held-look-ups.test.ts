import { readHeldMaybes, type Db, type MaybeAttempt } from '@askonce/store'
import { createMetrics, type Log } from '@askonce/telemetry'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { HeldLookUps } from '../../apps/worker/src/held-look-ups.ts'

vi.mock('@askonce/store', () => ({ readHeldMaybes: vi.fn<typeof readHeldMaybes>() }))

const log: Log = { event: () => undefined, child: () => log }
const hourMs = 3_600_000

let held: MaybeAttempt[]
/** Jobs that were asked about, in order. */
let asked: string[]
let outcomeOf: (jobId: string) => 'found' | 'absent' | 'failed'
let lookUps: HeldLookUps
beforeEach(() => {
  held = []
  asked = []
  outcomeOf = () => 'absent'
  vi.mocked(readHeldMaybes).mockImplementation((_db, _lanes, _operation, after, limit) =>
    Promise.resolve(held.filter(({ jobId }) => jobId > after.jobId).slice(0, limit)),
  )
  lookUps = new HeldLookUps({
    db: {} as Db,
    lane: 'openai',
    ask: ({ jobId }) => {
      asked.push(jobId)
      const outcome = outcomeOf(jobId)
      if (outcome === 'found') held = held.filter((row) => row.jobId !== jobId)
      return Promise.resolve(outcome)
    },
    log,
    metrics: createMetrics(),
    stopping: new AbortController().signal,
  })
})

function hold(count: number, heldMs: number): void {
  held = Array.from({ length: count }, (_, index) => ({
    jobId: `job-${String(index).padStart(3, '0')}`,
    attempt: 1,
    mark: 'mark',
    tenant: 'acme',
    lane: 'openai',
    model: 'gpt-test',
    heldMs,
  }))
}

async function rounds(count: number): Promise<number[]> {
  const waits: number[] = []
  for (let round = 0; round < count; round += 1) waits.push(await lookUps.round())
  return waits
}

test('an attempt is asked about four times in the first hour, and no more', async () => {
  const times: number[] = []
  for (const heldMs of [0, 29_999, 30_000, 299_999, 300_000, 3_599_999, hourMs, 9 * hourMs]) {
    hold(1, heldMs)
    const before = asked.length
    expect(await lookUps.round()).toBe(10_000)
    if (asked.length > before) times.push(heldMs)
  }
  expect(times).toEqual([0, 30_000, 300_000, hourMs])
})

describe('a provider that cannot be asked', () => {
  test('is asked less and less, down to once a minute, and no further in a round than to the first failure', async () => {
    hold(100, 2 * hourMs)
    outcomeOf = () => 'failed'
    expect(await rounds(8)).toEqual([2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000])
    // What was under way beside the first failure: four at once.
    expect(asked).toHaveLength(8 * 4)
  })

  test('costs no attempt its moment: after an outage of hours every held job is asked about, once', async () => {
    hold(100, 0)
    outcomeOf = () => 'failed'
    await rounds(60)
    hold(100, 5 * hourMs)
    asked = []
    outcomeOf = () => 'absent'
    // The pass that is under way, and a whole one.
    const waits = await rounds(2)
    expect(waits).toEqual([10_000, 10_000])
    await rounds(4)
    expect(asked.toSorted()).toEqual(held.map(({ jobId }) => jobId))
  })

  test('for one attempt, does not keep the others from being found', async () => {
    hold(450, hourMs)
    const bad = ['job-000', 'job-001', 'job-002', 'job-003', 'job-204', 'job-449']
    outcomeOf = (jobId) => (bad.includes(jobId) ? 'failed' : 'found')
    await rounds(12)
    expect(held.map(({ jobId }) => jobId)).toEqual(bad)
    asked = []
    // What is left is asked about at the slow pace, and does not use up its moment.
    expect((await rounds(12)).slice(-3)).toEqual([60_000, 60_000, 60_000])
    expect(new Set(asked)).toEqual(new Set(bad))
  })
})

test('pages go on where the last one ended; an answer is remembered over passes', async () => {
  hold(450, 0)
  await rounds(3)
  expect(asked).toEqual(held.map(({ jobId }) => jobId))
  await rounds(6)
  expect(asked).toHaveLength(450)
})
