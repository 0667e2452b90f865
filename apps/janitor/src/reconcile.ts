import type { Dispatcher } from '@askonce/queue'
import { readDispatched, takeBackDispatches, type Db, type DispatchedJob } from '@askonce/store'
import type { Log, Metrics } from '@askonce/telemetry'

/** A hand-over younger than this may not have reached BullMQ yet. */
const graceMs = 2_000
/** A delivery that nobody claimed for this long has lost its worker. */
const unclaimedMs = 5_000
const batch = 1_000

/**
 * Finds queued jobs that BullMQ does not hold, or holds as active although nobody claims them, and takes the hand-over back; the
 * dispatch loop makes a new one with a new id. Walks the handed-over jobs with a cursor, oldest first, a batch a round.
 */
export class Reconciler {
  private readonly db: Db
  private readonly dispatcher: Dispatcher
  private readonly log: Log
  private readonly metrics: Metrics
  private cursor: { dispatchedAt: string; id: string } | null = null
  /** First sight of an active delivery whose job is still queued, on the monotonic clock: of the pass before, and of this one. */
  private activeBefore = new Map<string, number>()
  private activeNow = new Map<string, number>()

  constructor(db: Db, dispatcher: Dispatcher, log: Log, metrics: Metrics) {
    this.db = db
    this.dispatcher = dispatcher
    this.log = log
    this.metrics = metrics
  }

  /** One batch. True: more are lost, probably; go on at once. */
  async round(): Promise<boolean> {
    const jobs = await readDispatched(this.db, graceMs, this.cursor, batch)
    if (jobs.length === 0) {
      this.endPass()
      return false
    }
    const states = await this.dispatcher.statesOf(jobs)
    const now = performance.now()
    const lost: DispatchedJob[] = []
    for (const [index, job] of jobs.entries()) {
      if (states[index] === 'missing') lost.push(job)
      if (states[index] !== 'active') continue
      const name = `${job.id}.${job.dispatch}`
      const since = this.activeBefore.get(name) ?? this.activeNow.get(name) ?? now
      if (now - since >= unclaimedMs) lost.push(job)
      else this.activeNow.set(name, since)
    }
    const last = jobs.at(-1) as DispatchedJob
    if (jobs.length < batch) this.endPass()
    else this.cursor = { dispatchedAt: last.dispatchedAt, id: last.id }
    if (lost.length === 0) return false

    const taken = await takeBackDispatches(this.db, lost)
    if (taken > 0) {
      this.metrics.redispatched.inc(taken)
      this.log.event('job.redispatched', {
        count: taken,
        reason: 'BullMQ does not hold them, or their delivery was not claimed',
      })
    }
    return lost.length > batch / 2
  }
  private endPass(): void {
    this.cursor = null
    this.activeBefore = this.activeNow
    this.activeNow = new Map()
  }
}
