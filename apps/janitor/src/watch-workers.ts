import { markWorkerDead, readBeats, type Beat, type BeatReading, type Db } from '@askonce/store'
import type { Log } from '@askonce/telemetry'

export const watchEveryMs = 500

/** A reading that ends longer after the one before, because it came late or took long, says nothing about the time between. */
const lateAfterMs = 2_000

/** Of the lease: after so much silence a worker is dead whose session was seen to end as a killed process leaves it. */
const shareForTheKilled = 1 / 3

interface Watched {
  beat: number
  /** Monotonic time at which the first reading that showed this beat had ended. */
  since: number
  /** The session in which it beats, while it is seen to exist. */
  session: number | null
  /** That session, once it was seen to have ended without a farewell. */
  ended: number | null
}

/**
 * Declares workers dead. Dead means seen dead: their beat was read, unchanged, in successive readings for the whole lease, on this
 * janitor's own monotonic clock. A failed or late reading, or one in another session of the janitor's, starts every watch anew. After a
 * minute without Postgres, or a laptop's sleep, all beats look stale; calling those workers dead would pay for every running call again.
 *
 * A third of the lease is enough where the process is known to have died: these readings saw its session exist while it beat, then saw it
 * gone, in one session of our own, and Postgres counted a session that ended without a farewell meanwhile. A server that restarts ends
 * our session too; an operator, a time limit of the server, and a worker that gives a connection up are counted otherwise; and behind
 * a pooler or a proxy, which may be cut while the worker lives, beats name no session.
 */
export class WorkerWatch {
  private readonly db: Db
  private readonly leaseMs: number
  private readonly log: Log
  private watched = new Map<string, Watched>()
  private last: BeatReading | null = null
  private lastReadAt = -Infinity

  /** `db` is one session, so that two readings can be told to be of the same run of the server. */
  constructor(db: Db, leaseMs: number, log: Log) {
    this.db = db
    this.leaseMs = leaseMs
    this.log = log
  }

  /** One reading; the next one after it has ended. Returns how many workers were declared dead. */
  async look(): Promise<number> {
    const startedAt = performance.now()
    let reading: BeatReading
    try {
      reading = await readBeats(this.db)
    } catch (error) {
      this.forget()
      throw error
    }
    const now = performance.now()
    if (now - this.lastReadAt > lateAfterMs || reading.reader !== this.last?.reader) this.forget()
    const abandoned = this.last !== null && reading.abandoned > this.last.abandoned
    this.lastReadAt = now
    this.last = reading

    const seen = new Map<string, Watched>()
    let dead = 0
    for (const beat of reading.beats) {
      const { id } = beat
      const watched = follow(this.watched.get(id), beat, now, abandoned)
      // From the end of the first reading to the start of this one: no more than that is known to have been silent.
      const silentMs = startedAt - watched.since
      const { ended } = watched
      if (silentMs >= (ended === null ? this.leaseMs : this.leaseMs * shareForTheKilled)) {
        if (await this.bury(id, watched, silentMs)) dead += 1
      } else {
        seen.set(id, watched)
      }
    }
    this.watched = seen
    return dead
  }

  private async bury(id: string, { beat, ended }: Watched, silentMs: number): Promise<boolean> {
    const byItsSession = silentMs < this.leaseMs
    if (!(await markWorkerDead(this.db, id, beat, byItsSession ? ended : null))) return false
    this.log.event('worker.declared_dead', {
      worker: id,
      duration_ms: Math.round(silentMs),
      reason: byItsSession ? 'its process ended' : 'no beat for the whole lease',
    })
    return true
  }

  private forget(): void {
    this.watched.clear()
    this.last = null
  }
}

/** What is known of a worker after a reading, from what was known before it. */
function follow(before: Watched | undefined, now: Beat, endedAt: number, abandoned: boolean): Watched {
  const { beat, session, connected } = now
  // Of a first reading it is not known when its beat was written: the session may be another's with the same process id.
  if (before === undefined) return { beat, since: endedAt, session: null, ended: null }
  const isSame = before.beat === beat
  const since = isSame ? before.since : endedAt
  if (connected) return { beat, since, session: isSame ? before.session : session, ended: null }
  // A beat that was written in that session just before its end is seen only now.
  if (before.session !== null && before.session === session) {
    return { beat, since, session: null, ended: abandoned ? session : null }
  }
  return { beat, since, session: null, ended: isSame ? before.ended : null }
}
