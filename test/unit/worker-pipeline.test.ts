import type { Verdict } from '@askonce/core'
import type { Provider } from '@askonce/providers'
import type { Claim } from '@askonce/store'
import { createMetrics, type Log } from '@askonce/telemetry'
import { describe, expect, test } from 'vitest'
import { HeldAttempts } from '../../apps/worker/src/held.ts'
import type { LaneControl } from '../../apps/worker/src/lane-control.ts'
import type { LookUps } from '../../apps/worker/src/look-up.ts'
import { runAttempt } from '../../apps/worker/src/pipeline.ts'
import type { Recorder } from '../../apps/worker/src/recorder.ts'
import type { StreamWriter } from '../../apps/worker/src/stream-writer.ts'

const log: Log = { event: () => undefined, child: () => log }
const answer = { kind: 'answer', status: 200, body: Buffer.from('{}'), flags: [], usage: {} } as unknown as Verdict
const refusal = {
  kind: 'pause',
  billing: 'none',
  sent: true,
  code: 'rate_limited',
  message: '',
  body: null,
} as unknown as Verdict

/** Carries one attempt to its end; what was written, in order. The database may never reply to what concerns the lane. */
async function written(verdict: Verdict, lanesReply: boolean): Promise<string[]> {
  const order: string[] = []
  const held = new HeldAttempts()
  const lane = (what: string) => (): Promise<void> => {
    order.push(what)
    return lanesReply ? Promise.resolve() : new Promise(() => undefined)
  }
  let onRecorded: () => void = () => undefined
  const recorded = new Promise<void>((resolve) => (onRecorded = resolve))
  const attempt = runAttempt(
    {
      held,
      providers: new Map([['lane', { call: () => Promise.resolve(verdict), stored: null } as unknown as Provider]]),
      lookUps: { before: () => Promise.resolve('send') } as unknown as LookUps,
      laneControl: { onAnswer: lane('lane opens'), onFailure: lane('lane closes') } as unknown as LaneControl,
      recorder: {
        record: (_tenant: string, end: object) => {
          order.push('end')
          onRecorded()
          return Promise.resolve({ committed: true, end, ended: null })
        },
      } as unknown as Recorder,
      // The claim is of no stream.
      streams: {} as StreamWriter,
      log,
      metrics: createMetrics(),
      maySend: () => true,
      workerId: () => '',
    },
    { id: 'job', attempt: 1, lane: 'lane', reruns: 0, timeout_ms: 1_000 } as unknown as Claim,
    held.hold('job', 1, 1),
  )
  await (lanesReply ? attempt : recorded)
  return order
}

describe('what is written first', () => {
  test('an answer, and what it means for its lane after it', async () => {
    expect(await written(answer, true)).toEqual(['end', 'lane opens'])
    expect(await written(answer, false)).toEqual(['end'])
  })

  test('that a lane is closed, before its job is queued again; but that waits for it two seconds at most', async () => {
    expect(await written(refusal, true)).toEqual(['lane closes', 'end'])
    const startedAt = performance.now()
    expect(await written(refusal, false)).toEqual(['lane closes', 'end'])
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(1_990)
  }, 10_000)
})
