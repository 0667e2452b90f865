import { backoffMs, breakerMs, type FailureVerdict } from '@askonce/core'
import {
  breakerThreshold,
  clearOverload,
  countOverload,
  lanesChannel,
  notify,
  pauseLane,
  stopLane,
  type Db,
  type LaneWatch,
} from '@askonce/store'
import { errorReason, type Log } from '@askonce/telemetry'

export interface LaneControlOptions {
  db: Db
  watch: LaneWatch
  log: Log
}

/**
 * What a provider's answers do to their lane. Written before the end of the attempt: the job must not be back in the queue of a
 * lane that nobody has closed yet. A failure here costs one more refused call, so it is logged and passed over.
 */
export class LaneControl {
  private readonly options: LaneControlOptions
  /** Overload answers that this process has counted since the last answer, by lane: the watch may not show them yet. */
  private readonly counted = new Map<string, number>()

  constructor(options: LaneControlOptions) {
    this.options = options
  }

  async onAnswer(lane: string): Promise<void> {
    const seen = this.options.watch.get(lane)
    const disturbed = (this.counted.get(lane) ?? 0) > 0 || (seen?.failures ?? 0) > 0 || seen?.state === 'breaker'
    if (!disturbed) return
    this.counted.delete(lane)
    await this.change(lane, () => clearOverload(this.options.db, lane))
  }

  async onFailure(lane: string, verdict: FailureVerdict): Promise<void> {
    const { db, log, watch } = this.options
    const { kind, code, message, retryAfterMs, overloaded } = verdict
    if (kind === 'alarm') {
      const known = watch.get(lane)?.state === 'stopped'
      await this.change(lane, () => stopLane(db, lane, code, message))
      // The calls that were under way meet the same refusal; one line is enough.
      if (!known) log.event('lane.stopped', { lane, error_code: code, reason: 'askonce lanes resume opens it again' })
      return
    }
    if (kind === 'pause') {
      const forMs =
        retryAfterMs ?? backoffMs({ reruns: 2, overloaded: false, retryAfterMs: null, random: 0.5 + Math.random() / 2 })
      await this.change(lane, () => pauseLane(db, lane, code, message, forMs))
      log.event('lane.paused', { lane, error_code: code, duration_ms: forMs })
      return
    }
    // An endpoint that cannot be reached is as overloaded as one that says so.
    if (overloaded || code === 'connection_failed') {
      const failures = Math.max(this.counted.get(lane) ?? 0, watch.get(lane)?.failures ?? 0) + 1
      this.counted.set(lane, failures)
      const forMs = Math.max(retryAfterMs ?? 0, breakerMs(failures - breakerThreshold, Math.random()))
      await this.change(lane, () => countOverload(db, lane, code, message, forMs))
      if (failures >= breakerThreshold) log.event('lane.breaker', { lane, error_code: code, duration_ms: forMs })
      return
    }
    // Any other answer of the provider itself shows that it is there.
    if (verdict.sent && verdict.billing === 'none') await this.onAnswer(lane)
  }

  private async change(lane: string, write: () => Promise<void>): Promise<void> {
    const { db, watch, log } = this.options
    try {
      await write()
      await watch.refresh()
      await notify(db, lanesChannel, [lane])
    } catch (error) {
      log.event('loop.failed', { loop: 'lane control', reason: errorReason(error) })
    }
  }
}
