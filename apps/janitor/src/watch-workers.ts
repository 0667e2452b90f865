import { markWorkerDead, readBeats, type Db } from '@askonce/store'
import type { Log } from '@askonce/telemetry'

export const watchEveryMs = 500

/** A reading that ends longer after the one before, because it came late or took long, says nothing about the time between. */
const lateAfterMs = 2_000

interface Watched {
  beat: number
  /** Monotonic time at which the first reading that showed this beat had ended. */
  since: number
}

/**
 * Declares workers dead. Dead means seen dead: their beat was read, unchanged, in successive readings for the whole lease, on this
 * janitor's own monotonic clock. A failed or late reading starts every watch anew. After a minute without Postgres, or a laptop's
 * sleep, all beats look stale; calling those workers dead would pay for every running call again.
 */
export class WorkerWatch {
  private readonly db: Db
  private readonly leaseMs: number
  private readonly log: Log
  private watched = new Map<string, Watched>()
  private lastReadAt = -Infinity

  constructor(db: Db, leaseMs: number, log: Log) {
    this.db = db
    this.leaseMs = leaseMs
    this.log = log
  }

  /** One reading; the next one after it has ended. Returns how many workers were declared dead. */
  async look(): Promise<number> {
    const startedAt = performance.now()
    let beats: { id: string; beat: number }[]
    try {
      beats = await readBeats(this.db)
    } catch (error) {
      this.watched.clear()
      throw error
    }
    const now = performance.now()
    if (now - this.lastReadAt > lateAfterMs) this.watched.clear()
    this.lastReadAt = now

    const seen = new Map<string, Watched>()
    let dead = 0
    for (const { id, beat } of beats) {
      const before = this.watched.get(id)
      const watched = before?.beat === beat ? before : { beat, since: now }
      // From the end of the first reading to the start of this one: no more than that is known to have been silent.
      if (startedAt - watched.since >= this.leaseMs) {
        if (await markWorkerDead(this.db, id, beat)) {
          dead += 1
          this.log.event('worker.declared_dead', { worker: id, duration_ms: Math.round(startedAt - watched.since) })
        }
      } else {
        seen.set(id, watched)
      }
    }
    this.watched = seen
    return dead
  }
}
