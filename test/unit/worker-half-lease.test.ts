import { beatWorker, type Claim, type Db } from '@askonce/store'
import { createMetrics, type Log } from '@askonce/telemetry'
import type { Provider } from '@askonce/providers'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Heartbeat } from '../../apps/worker/src/heartbeat.ts'
import { HeldAttempts } from '../../apps/worker/src/held.ts'
import type { LaneControl } from '../../apps/worker/src/lane-control.ts'
import type { LookUps } from '../../apps/worker/src/look-up.ts'
import { runAttempt } from '../../apps/worker/src/pipeline.ts'
import type { Recorder } from '../../apps/worker/src/recorder.ts'
import type { StreamWriter } from '../../apps/worker/src/stream-writer.ts'
import { Taker } from '../../apps/worker/src/taker.ts'

vi.mock('@askonce/store', async (original) => ({
  ...(await original<object>()),
  registerWorker: () => Promise.resolve(),
  beatWorker: vi.fn<typeof beatWorker>(),
  readOpenAttempts: () => Promise.resolve([]),
  retireWorker: () => Promise.resolve(),
  Session: class {
    readonly db = {}
    close(): Promise<void> {
      return Promise.resolve()
    }
  },
}))

const leaseMs = 6_000
const log: Log = { event: () => undefined, child: () => log }

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] })
})
afterEach(() => {
  vi.useRealTimers()
})

// A janitor takes a worker's jobs after a whole lease of silence. Whoever was silent for half of it begins nothing new.
describe('a worker whose beats are not acknowledged', () => {
  test('is fresh for half the lease, counted from when the last beat was sent, and not a millisecond longer', async () => {
    let acknowledge: (alive: boolean) => void = () => undefined
    vi.mocked(beatWorker).mockImplementation(() => new Promise((resolve) => (acknowledge = resolve)))
    let onBeat: () => void = () => undefined
    const beat = (): Promise<void> => new Promise((resolve) => (onBeat = resolve))
    const onFresh = vi.fn<() => void>()
    const heartbeat = new Heartbeat({
      databaseUrl: '',
      leaseMs,
      log,
      onFresh,
      firstClaim: () => 1,
      onOpenAttempts: () => onBeat(),
    })
    expect(heartbeat.fresh).toBe(false)
    const registered = beat()
    heartbeat.start()
    await registered
    expect(heartbeat.fresh).toBe(true)
    vi.advanceTimersByTime(leaseMs / 2 - 1)
    expect(heartbeat.fresh).toBe(true)
    vi.advanceTimersByTime(1)
    expect(heartbeat.fresh).toBe(false)
    expect(onFresh).toHaveBeenCalledTimes(1)

    // The reply comes late: what counts is when its beat was sent.
    await vi.waitUntil(() => vi.mocked(beatWorker).mock.calls.length === 1, 10_000)
    const late = beat()
    vi.advanceTimersByTime(1_000)
    acknowledge(true)
    await late
    expect(heartbeat.fresh).toBe(true)
    // What was not claimed meanwhile is looked for at once.
    expect(onFresh).toHaveBeenCalledTimes(2)
    vi.advanceTimersByTime(leaseMs / 2 - 1_000)
    expect(heartbeat.fresh).toBe(false)
    acknowledge(true)
    vi.mocked(beatWorker).mockResolvedValue(true)
    await heartbeat.stop()
  })

  test('claims nothing, and does as soon as it may', async () => {
    let fresh = false
    const run = vi.fn<() => Promise<null>>(() => Promise.resolve(null))
    const failed = vi.fn<() => void>()
    const held = new HeldAttempts()
    const taker = new Taker({
      // Any statement fails.
      db: {} as Db,
      lane: 'lane',
      concurrency: 5,
      held,
      log: { ...log, event: failed },
      metrics: createMetrics(),
      workerId: () => '',
      mayClaim: () => fresh,
      run,
      passOn: () => undefined,
      onChange: () => undefined,
    })
    const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
    taker.wake()
    await turn()
    expect([held.busy, failed.mock.calls]).toEqual([0, []])
    fresh = true
    taker.look()
    await vi.waitUntil(() => failed.mock.calls.length > 0)
    expect(failed).toHaveBeenCalledWith('loop.failed', expect.objectContaining({ loop: 'claim', lane: 'lane' }))
    expect(run).not.toHaveBeenCalled()
    taker.stop()
  })

  test.each([false, true])('sends what it has claimed only if it may: %s', async (maySend) => {
    const calls: string[] = []
    const ends: string[] = []
    const provider = {
      call: () => {
        calls.push('sent')
        return Promise.reject(new Error('of no interest'))
      },
    } as unknown as Provider
    const recorder = {
      record: (_tenant: string, end: { outcome: string; billing: string }) => {
        ends.push(`${end.outcome}, ${end.billing}`)
        return Promise.resolve({ committed: false, end, ended: null })
      },
    } as unknown as Recorder
    const held = new HeldAttempts()
    const claim = { id: 'job', attempt: 1, lane: 'lane', reruns: 0, timeout_ms: 1_000 } as unknown as Claim
    await runAttempt(
      {
        held,
        providers: new Map([['lane', provider]]),
        lookUps: { before: () => Promise.resolve('send') } as unknown as LookUps,
        laneControl: { onFailure: () => Promise.resolve() } as unknown as LaneControl,
        recorder,
        // The claim is of no stream.
        streams: {} as StreamWriter,
        log,
        metrics: createMetrics(),
        maySend: () => maySend,
        workerId: () => '',
      },
      claim,
      held.hold('job', 1, 1),
    )
    expect(calls).toEqual(maySend ? ['sent'] : [])
    expect(ends).toHaveLength(1)
    expect(ends[0] === 'unsent, none').toBe(!maySend)
  })
})
