import type { FailureVerdict } from '@askonce/core'
import {
  clearTrouble,
  countOverload,
  lanesChannel,
  notify,
  pauseLane,
  stopLane,
  type Closed,
  type Db,
  type LaneWatch,
} from '@askonce/store'
import { errorReason, type Log } from '@askonce/telemetry'

export interface LaneControlOptions {
  db: Db
  watch: LaneWatch
  log: Log
}

/** The call that was answered or refused. */
export interface LaneCall {
  lane: string
  model: string
  /** How long ago it began. */
  sinceMs: number
}

/**
 * What a provider's answers do to their lane, or to the model that was asked. A failure here costs one more refused call, so it is
 * logged and passed over.
 */
export class LaneControl {
  private readonly options: LaneControlOptions
  /** Lanes in which this process has counted a refusal since the last answer: the watch may not show it yet. */
  private readonly counted = new Set<string>()

  constructor(options: LaneControlOptions) {
    this.options = options
  }

  async onAnswer({ lane, model }: Pick<LaneCall, 'lane' | 'model'>): Promise<void> {
    const { db } = this.options
    const disturbed = this.counted.has(lane) || this.isDisturbed(lane, '') || this.isDisturbed(lane, model)
    if (!disturbed) return
    this.counted.delete(lane)
    await this.change(lane, () => clearTrouble(db, lane, model))
  }

  async onFailure({ lane, model, sinceMs }: LaneCall, verdict: FailureVerdict): Promise<void> {
    const { db, log, watch } = this.options
    const { kind, code, message: reason, overloaded, wholeLane, billing, sent } = verdict
    const trouble = { name: lane, code, reason, leastMs: verdict.retryAfterMs ?? 0, sinceMs }
    if (kind === 'alarm') {
      const known = watch.get(lane)?.state === 'stopped'
      await this.change(lane, () => stopLane(db, lane, code, reason))
      // The calls that were under way meet the same refusal; one line is enough.
      if (!known) log.event('lane.stopped', { lane, error_code: code, reason: 'askonce lanes resume opens it again' })
    } else if (kind === 'pause') {
      this.counted.add(lane)
      const paused = wholeLane === true ? '' : model
      const closed = await this.change(lane, () => pauseLane(db, { ...trouble, model: paused }))
      if (closed) log.event('lane.paused', { lane, model: paused || null, error_code: code, ...waitOf(closed) })
    } else if (overloaded || code === 'connection_failed') {
      // An endpoint that cannot be reached is as overloaded as one that says so.
      this.counted.add(lane)
      const closed = await this.change(lane, () => countOverload(db, trouble))
      if (closed?.state === 'breaker') log.event('lane.breaker', { lane, error_code: code, ...waitOf(closed) })
    } else if (sent && billing === 'none') {
      // Any other answer of the provider itself shows that it is there.
      await this.onAnswer({ lane, model })
    }
  }

  /** Whether an answer changes the row: it counts refusals, or was closed for a time that is over. */
  private isDisturbed(lane: string, model: string): boolean {
    const { watch } = this.options
    const seen = watch.get(lane, model)
    if (seen === undefined) return false
    return (
      seen.failures > 0 || seen.state === 'breaker' || (seen.state === 'paused' && watch.closedBy(lane, model) === null)
    )
  }

  private async change<Result>(lane: string, write: () => Promise<Result>): Promise<Result | null> {
    const { db, watch, log } = this.options
    try {
      const result = await write()
      await watch.refresh()
      await notify(db, lanesChannel, [lane])
      return result
    } catch (error) {
      log.event('loop.failed', { loop: 'lane control', reason: errorReason(error) })
      return null
    }
  }
}

function waitOf({ waitMs }: Closed): { duration_ms: number } {
  return { duration_ms: Math.round(waitMs) }
}
