import { markWorkerDead, readBeats, type Beat, type BeatReading, type Db } from '@askonce/store'
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
const session = 4711
/** What the next readings see of one worker, and of the database. */
const show = (
  beat: number,
  seen: Partial<Pick<Beat, 'session' | 'connected'> & Pick<BeatReading, 'reader' | 'abandoned'>> = {},
): void => {
  const { reader = 1, abandoned = 0, ...of } = { session, connected: true, ...seen }
  vi.mocked(readBeats).mockResolvedValue({ reader, abandoned, beats: [{ id: 'worker-0', beat, ...of }] })
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
    expect(markWorkerDead).toHaveBeenCalledExactlyOnceWith(expect.anything(), 'worker-0', 7, null)
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
      return Promise.resolve({
        reader: 1,
        abandoned: 0,
        beats: [{ id: 'worker-0', beat: 7, session, connected: true }],
      })
    })
    await lookFor(watching, leaseMs)
    expect(markWorkerDead).not.toHaveBeenCalled()
  })
})

// A killed process leaves what a frozen one, or one behind a partition, does not: its session ends without a farewell.
describe('a third of the lease is enough for a worker', () => {
  const gone = { connected: false, abandoned: 1 }
  const third = leaseMs / 3

  test('whose session was seen while it beat, and then was abandoned; the mark asks once more', async () => {
    const watching = watch()
    show(6)
    await lookFor(watching, 500)
    show(7)
    await lookFor(watching, 500)
    show(7, gone)
    await lookFor(watching, third - 500)
    expect(markWorkerDead).not.toHaveBeenCalled()
    await lookFor(watching, 500)
    expect(markWorkerDead).toHaveBeenCalledExactlyOnceWith(expect.anything(), 'worker-0', 7, session)
  })

  test('also where its last beat and the end of its session are seen in one reading', async () => {
    const watching = watch()
    show(5)
    await lookFor(watching, 500)
    show(6)
    await lookFor(watching, 500)
    show(7, gone)
    await lookFor(watching, third)
    expect(markWorkerDead).not.toHaveBeenCalled()
    await lookFor(watching, 500)
    expect(markWorkerDead).toHaveBeenCalledExactlyOnceWith(expect.anything(), 'worker-0', 7, session)
  })

  test('but not for one that beats again, in whatever session', async () => {
    const watching = watch()
    show(6)
    await lookFor(watching, 500)
    show(7)
    await lookFor(watching, 500)
    show(7, gone)
    await lookFor(watching, third - 500)
    show(8, { ...gone, session: 4712, connected: true })
    await lookFor(watching, leaseMs)
    expect(markWorkerDead).not.toHaveBeenCalled()
  })

  test.each<{ what: string; after: Parameters<typeof show>[1]; before?: Parameters<typeof show>[1] }>([
    { what: 'it is frozen or cut off: its session goes on', after: {} },
    { what: 'the server, an operator or the worker itself ended its session', after: { connected: false } },
    {
      what: 'its session tells nothing: a pooler, a proxy',
      before: { session: null, connected: false },
      after: { ...gone, session: null },
    },
    { what: 'the server restarted: the session of the janitor is another one', after: { ...gone, reader: 2 } },
    { what: 'its session was never seen while it beat', before: { connected: false }, after: gone },
  ])('the whole one where $what', async ({ before, after }) => {
    const watching = watch()
    show(6, before)
    await lookFor(watching, 500)
    show(7, before)
    await lookFor(watching, 500)
    show(7, after)
    await lookFor(watching, leaseMs - 500)
    expect(markWorkerDead).not.toHaveBeenCalled()
    await lookFor(watching, 1_000)
    expect(markWorkerDead).toHaveBeenCalledExactlyOnceWith(expect.anything(), 'worker-0', 7, null)
  })

  test('the whole one where nobody saw its session end: readings had failed meanwhile', async () => {
    const watching = watch()
    show(6)
    await lookFor(watching, 500)
    show(7)
    await lookFor(watching, 500)
    vi.mocked(readBeats).mockRejectedValueOnce(new Error('Postgres is away'))
    await expect(lookFor(watching, 500)).rejects.toThrow('away')
    show(7, gone)
    await lookFor(watching, leaseMs)
    expect(markWorkerDead).not.toHaveBeenCalled()
    await lookFor(watching, 500)
    expect(markWorkerDead).toHaveBeenCalledExactlyOnceWith(expect.anything(), 'worker-0', 7, null)
  })
})
