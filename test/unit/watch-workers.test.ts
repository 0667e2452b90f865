import { markWorkerDead, readBeats, type Db } from '@askonce/store'
import type { Log } from '@askonce/telemetry'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { WorkerWatch } from '../../apps/janitor/src/watch-workers.ts'

vi.mock('@askonce/store', () => ({
  readBeats: vi.fn<typeof readBeats>(),
  markWorkerDead: vi.fn<typeof markWorkerDead>(() => Promise.resolve(true)),
}))

const leaseMs = 6_000
const log: Log = { event: () => undefined, child: () => log }

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] })
  vi.mocked(markWorkerDead).mockClear()
})
afterEach(() => {
  vi.useRealTimers()
})

const watch = (): WorkerWatch => new WorkerWatch({} as Db, leaseMs, log)
const show = (...beats: number[]): void => {
  vi.mocked(readBeats).mockResolvedValue(beats.map((beat, index) => ({ id: `worker-${index}`, beat })))
}
/** One reading every half second for so long. */
async function lookFor(watching: WorkerWatch, durationMs: number): Promise<void> {
  for (let past = 0; past < durationMs; past += 500) {
    vi.advanceTimersByTime(500)
    await watching.look()
  }
}

// DESIGN.md §8: dead means seen dead, or an outage would pay for every running call again.
describe('a worker is declared dead', () => {
  test('when its beat stood still in successive readings for the whole lease', async () => {
    const watching = watch()
    show(7)
    await lookFor(watching, leaseMs)
    expect(markWorkerDead).not.toHaveBeenCalled()
    await lookFor(watching, 500)
    expect(markWorkerDead).toHaveBeenCalledExactlyOnceWith(expect.anything(), 'worker-0', 7)
  })

  test('not while it beats, however seldom', async () => {
    const watching = watch()
    for (let beat = 0; beat < 5; beat += 1) {
      show(beat)
      await lookFor(watching, leaseMs - 500)
    }
    expect(markWorkerDead).not.toHaveBeenCalled()
  })

  test('not because readings failed: the watch starts anew after them', async () => {
    const watching = watch()
    show(7)
    await lookFor(watching, leaseMs - 1_000)
    vi.mocked(readBeats).mockRejectedValueOnce(new Error('Postgres is away'))
    await expect(lookFor(watching, 500)).rejects.toThrow('away')
    await lookFor(watching, leaseMs)
    expect(markWorkerDead).not.toHaveBeenCalled()
    await lookFor(watching, 500)
    expect(markWorkerDead).toHaveBeenCalledOnce()
  })

  test('not because the janitor or the whole machine slept', async () => {
    const watching = watch()
    show(7)
    await lookFor(watching, leaseMs - 1_000)
    vi.advanceTimersByTime(3_600_000)
    await lookFor(watching, leaseMs)
    expect(markWorkerDead).not.toHaveBeenCalled()
  })

  test('not because one reading took long', async () => {
    const watching = watch()
    show(7)
    await lookFor(watching, leaseMs - 1_000)
    vi.mocked(readBeats).mockImplementationOnce(() => {
      vi.advanceTimersByTime(3_000)
      return Promise.resolve([{ id: 'worker-0', beat: 7 }])
    })
    await lookFor(watching, leaseMs)
    expect(markWorkerDead).not.toHaveBeenCalled()
  })
})
