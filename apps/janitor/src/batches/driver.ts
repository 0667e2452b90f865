import type { Config } from '@askonce/config'
import { Intake } from '@askonce/intake'
import { createWorstCase } from '@askonce/providers'
import type { Waker } from '@askonce/queue'
import {
  beginEnd,
  dropScan,
  endBatch,
  findEnded,
  findLinesOf,
  hasActiveBatches,
  notify,
  readUndone,
  releaseBatch,
  settledChannel,
  takeBatches,
} from '@askonce/store'
import type { Db, LeasedBatch } from '@askonce/store'
import type { Log } from '@askonce/telemetry'
import { collect, endLines } from './collect.ts'
import { leaseMs } from './lease.ts'
import { submitLines, type SubmittedLines } from './submit-lines.ts'
import { validateSlice } from './validate.ts'

/** Batches that one janitor works on at once. */
const atOnce = 4
/** How long one of them may submit or end lines before others get their turn. */
const sliceMs = 1_000
const idleMs = 300
const activeEveryMs = 250
const idleEveryMs = 5_000
const failedMs = 1_000
/** Hints may be lost: so many open lines are looked at in each scan. */
const scanLines = 2_000
const scanEveryMs = 1_000
const endChunk = 250
const hintChunk = 500
/** What waits beyond this is dropped: the scan finds it. */
const maxHints = 50_000

export interface BatchDriverOptions {
  db: Db
  config: Config
  waker: Waker
  log: Log
}

/**
 * Drives batches: validates their files, submits their lines, collects results, and ends them. It keeps nothing that matters in memory:
 * each step is a commit, and any janitor goes on behind it.
 */
export class BatchDriver {
  private readonly options: BatchDriverOptions
  private readonly intake: Intake
  /** Where the scan of a batch's open lines is, and when it was there. */
  private readonly scans = new Map<string, { line: number; at: number }>()
  private hints = new Set<string>()
  private active = false

  constructor(options: BatchDriverOptions) {
    this.options = options
    const { lanes, prices } = options.config
    this.intake = new Intake(options.config, createWorstCase(lanes, prices))
  }

  async close(): Promise<void> {
    await this.intake.close()
  }

  /** Until the next round. A new batch is said on a channel; while there is none, a round is for what was not heard. */
  get everyMs(): number {
    return this.active ? activeEveryMs : idleEveryMs
  }

  /** Jobs that have settled, perhaps of a batch. */
  hint(jobIds: readonly string[]): void {
    if (!this.active || this.hints.size + jobIds.length > maxHints) return
    for (const id of jobIds) this.hints.add(id)
  }

  /** Writes the results of jobs that have settled. True: there are more. */
  async collectHinted(): Promise<boolean> {
    if (this.hints.size === 0) return false
    const ids = [...this.hints].slice(0, hintChunk)
    // Before the look: a hint that comes during it is a new one.
    for (const id of ids) this.hints.delete(id)
    for (const { batch_id: batchId, lines } of await findLinesOf(this.options.db, ids)) {
      await collect(this.options.db, batchId, lines)
    }
    return this.hints.size > 0
  }

  /** A slice of work on each batch that is due. True: there is more to do. */
  async round(): Promise<boolean> {
    const { db } = this.options
    const batches = await takeBatches(db, atOnce, leaseMs)
    if (batches.length === 0) {
      this.active = await hasActiveBatches(db)
      if (!this.active) this.scans.clear()
      return false
    }
    this.active = true
    const outcomes = await Promise.allSettled(
      batches.map(async (batch) => {
        let wakeInMs = failedMs
        try {
          wakeInMs = await this.work(batch)
        } finally {
          await releaseBatch(db, batch, wakeInMs)
        }
        return wakeInMs === 0
      }),
    )
    const failure = outcomes.find(({ status }) => status === 'rejected')
    if (failure?.status === 'rejected') throw failure.reason
    return outcomes.some((outcome) => outcome.status === 'fulfilled' && outcome.value)
  }

  /** One slice. Returns in how many milliseconds the batch wants another. */
  private work(batch: LeasedBatch): Promise<number> {
    switch (batch.status) {
      case 'validating':
        return this.validate(batch)
      case 'in_progress':
        return this.run(batch)
      case 'cancelling':
        return this.cancel(batch)
      default:
        return this.finish(batch)
    }
  }

  private async validate(batch: LeasedBatch): Promise<number> {
    const { db, config } = this.options
    const validated = await validateSlice({ db, config, intake: this.intake }, batch)
    if (validated === 'failed') this.say(batch, 'failed')
    return validated === 'lost' ? idleMs : 0
  }

  private async run(batch: LeasedBatch): Promise<number> {
    const { db, config, waker } = this.options
    if (batch.over) {
      await beginEnd(db, batch, 'expired')
      return 0
    }
    const stopAt = performance.now() + sliceMs
    const parts = { db, config, waker }
    let step: SubmittedLines
    do {
      step = await submitLines(parts, batch)
      if (step === 'lost') return idleMs
    } while (step === 'more' && performance.now() < stopAt)
    await this.scan(batch.id)
    if (step === 'none' && (await beginEnd(db, batch, 'completed'))) {
      await this.end(batch)
      return 0
    }
    return step === 'more' ? 0 : idleMs
  }

  /** Looks for ended jobs among the next open lines, in turn. */
  private async scan(batchId: string): Promise<void> {
    const { db } = this.options
    const { line, at } = this.scans.get(batchId) ?? { line: 0, at: -Infinity }
    if (performance.now() - at < scanEveryMs) return
    const { lines, last } = await findEnded(db, batchId, line, scanLines)
    this.scans.set(batchId, { line: last ?? 0, at: performance.now() })
    await collect(db, batchId, lines)
  }

  private async cancel(batch: LeasedBatch): Promise<number> {
    if (batch.in_progress_at === null) {
      if (await dropScan(this.options.db, batch, { status: 'cancelled' })) this.say(batch, 'cancelled')
      return 0
    }
    // The window bounds the wait for answers that are on their way.
    return this.endRest(batch, 'cancelled', !batch.over)
  }

  private finish(batch: LeasedBatch): Promise<number> {
    if (batch.ending === 'expired') return this.endRest(batch, 'expired', false)
    return this.end(batch).then(() => idleMs)
  }

  private async endRest(batch: LeasedBatch, how: 'cancelled' | 'expired', waits: boolean): Promise<number> {
    const { db, config } = this.options
    const uncertainTtlSeconds = Math.round(config.limits.uncertainTtlMs / 1000)
    const stopAt = performance.now() + sliceMs
    let after = 0
    for (;;) {
      const lines = await readUndone(db, batch.id, after, endChunk)
      const last = lines.at(-1)
      if (last === undefined) break
      const cancelled = await endLines(db, batch.id, lines, { how, waits, uncertainTtlSeconds })
      await notify(db, settledChannel, cancelled)
      after = last
      if (performance.now() > stopAt) return 0
    }
    return (await this.end(batch)) ? 0 : idleMs
  }

  private async end(batch: LeasedBatch): Promise<boolean> {
    const retentionSeconds = Math.round(this.options.config.limits.batchRetentionMs / 1000)
    const ended = await endBatch(this.options.db, batch.id, retentionSeconds)
    if (ended) this.say(batch, batch.ending ?? 'completed')
    return ended
  }

  private say({ id, tenant_id: tenant, operation, total, created_at: since }: LeasedBatch, state: string): void {
    this.scans.delete(id)
    const duration = Date.now() - since.getTime()
    this.options.log.event('batch.ended', { batch: id, tenant, operation, state, count: total, duration_ms: duration })
  }
}
