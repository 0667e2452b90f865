import { setTimeout as sleep } from 'node:timers/promises'
import { readHeldMaybes, type Db, type MaybeAttempt } from '@askonce/store'
import { errorReason, type Log, type Metrics } from '@askonce/telemetry'
import { nameOf } from './held.ts'

const everyMs = 10_000
/** When the attempts of a held job are asked about, after it was held: an answer may turn up late. */
const askAfterMs = [0, 30_000, 300_000, 3_600_000]
/** Waits of a lane whose provider cannot be asked, doubling: a moment is over when it was answered, not when it was tried. */
const firstRetryMs = 2_000
const retryCapMs = 60_000
const pageRows = 200
const atOnce = 4
const beforeAll = { jobId: '00000000-0000-0000-0000-000000000000', attempt: 0 }

export interface HeldLookUpsOptions {
  db: Db
  lane: string
  /** Asks about one attempt. failed: nothing is known, it has to be asked again. Does not reject while the database answers. */
  ask: (row: MaybeAttempt) => Promise<'found' | 'absent' | 'failed'>
  log: Log
  metrics: Metrics
  stopping: AbortSignal
}

/**
 * Asks about the attempts of the held jobs of one lane. What was answered is remembered in memory: a restart asks once more, and so does
 * every other worker.
 */
export class HeldLookUps {
  private readonly options: HeldLookUpsOptions
  private after: { jobId: string; attempt: number } = beforeAll
  /** How many of the moments of `askAfterMs` are over for an attempt: in this pass over the held jobs, and the one before. */
  private answered = new Map<string, number>()
  private answeredBefore = new Map<string, number>()
  /** Rounds since the provider last answered in which it could not be asked. */
  private failures = 0

  constructor(options: HeldLookUpsOptions) {
    this.options = options
  }

  /** Rounds until `stopping` is aborted. Never rejects. */
  async run(): Promise<void> {
    const { stopping, log, metrics } = this.options
    while (!stopping.aborted) {
      let waitMs = everyMs
      try {
        waitMs = await this.round()
      } catch (error) {
        metrics.loopFailures.inc({ loop: 'look_up' })
        log.event('loop.failed', { loop: 'look_up', reason: errorReason(error) })
      }
      await sleep(waitMs, undefined, { signal: stopping }).catch(() => undefined)
    }
  }

  /**
   * Asks about what is due of one page, and no further than the first failure. Returns the milliseconds until the next round, which goes on
   * behind the last attempt that was asked about: one whose stored answer is no good must not keep the others from being found.
   */
  async round(): Promise<number> {
    const { db, lane, ask, stopping } = this.options
    const rows = await readHeldMaybes(db, [lane], 'chat.completions', this.after, pageRows)
    let [next, failed] = [0, false]
    const askNext = async (): Promise<void> => {
      for (let row = rows[next]; row !== undefined && !failed && !stopping.aborted; row = rows[next]) {
        next += 1
        const name = nameOf(row.jobId, row.attempt)
        const over = this.answered.get(name) ?? this.answeredBefore.get(name) ?? 0
        this.answered.set(name, over)
        const { heldMs } = row
        const moments = askAfterMs.filter((ms) => ms <= heldMs).length
        if (moments <= over) continue
        if ((await ask(row)) === 'failed') {
          failed = true
        } else {
          this.answered.set(name, moments)
          this.failures = 0
        }
      }
    }
    await Promise.all(Array.from({ length: atOnce }, askNext))
    const last = rows[next - 1]
    if (last !== undefined && (next < rows.length || rows.length === pageRows)) this.after = last
    else this.startOver()
    if (failed) this.failures += 1
    return this.failures === 0 ? everyMs : Math.min(retryCapMs, firstRetryMs * 2 ** Math.min(this.failures - 1, 10))
  }

  /** The next page is the first one; what was not seen in this pass is held no longer. */
  private startOver(): void {
    this.after = beforeAll
    this.answeredBefore = this.answered
    this.answered = new Map()
  }
}
