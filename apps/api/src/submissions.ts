import { setTimeout as sleep } from 'node:timers/promises'
import { pauseAt } from '@askonce/config'
import { GroupCommit, isUnavailable, lanesToWake, OverloadedError, submitBatch } from '@askonce/store'
import type { Db, NewJob, SubmitKind, SubmitOrder, SubmitResult } from '@askonce/store'
import type { Log, Metrics } from '@askonce/telemetry'
import { patiently } from './patience.ts'

const maxRows = 500
const maxBytes = 8 * 1024 * 1024
const concurrency = 2
/** A request that takes Postgres and the way to it noticeably long. */
const largeBytes = 1024 * 1024
/** Request bodies that may wait, in bytes: the number of submissions alone does not bound memory. */
const maxWaitingBytes = 256 * 1024 * 1024
/** A batch that meets a broken connection is sent again, with the same ids, for so long. */
const retryForMs = 2_000
const retryEveryMs = 100
/** For so long a failure says something of the submissions to come. */
const troubleLastsMs = 5_000

/** The word of metrics and logs for what a submission got. */
export const outcomeNames: Record<SubmitKind, string> = {
  created: 'new',
  rerun: 'rerun',
  attached: 'attached',
  replayed: 'replayed',
  mismatch: 'mismatch',
}

interface Waiting {
  job: NewJob
  /** Nobody waits for it any more. */
  abandoned: boolean
}

interface SubmissionsOptions {
  db: Db
  log: Log
  metrics: Metrics
  maxWaiting: number
  /** Called after each commit with the lanes in which it has made jobs run. */
  wake: (lanes: readonly string[]) => void
}

/** The way into the table: concurrent submissions share statements and commits. */
export class Submissions {
  private readonly options: SubmissionsOptions
  private readonly group: GroupCommit<Waiting, SubmitResult | null>
  /** One at a time, and never where small ones go: two of ten megabytes would keep those waiting for seconds. */
  private readonly largeGroup: GroupCommit<Waiting, SubmitResult | null>
  /** The last commit failed: Postgres was away, or took nothing. */
  private failure: { error: Error; atMs: number } | null = null
  /** What the last batch would have been quickest with. */
  private order: SubmitOrder = 'insert first'
  private waitingBytes = 0
  private refused = 0
  private refusedLoggedAtMs = Number.NEGATIVE_INFINITY

  constructor(options: SubmissionsOptions) {
    this.options = options
    const group = (atOnce: number): GroupCommit<Waiting, SubmitResult | null> =>
      new GroupCommit({
        commit: (items) => this.commit(items),
        maxRows,
        maxBytes,
        maxWaiting: options.maxWaiting,
        concurrency: atOnce,
        bytesOf: ({ job }) => job.request.length,
        onBatch: (rows) => options.metrics.groupRows.observe({ group: 'submit' }, rows),
      })
    this.group = group(concurrency)
    this.largeGroup = group(1)
  }

  /**
   * Settles one submission; resolves after the commit. Rejects with `OverloadedError` when too much waits (then nothing was
   * accepted), with `StoreUnavailableError` or the driver's error when Postgres is away: then the outcome is unknown, and the
   * same key finds out.
   */
  async submit(job: NewJob): Promise<SubmitResult> {
    if (pauseAt !== null) await pauseAt('api.received')
    const size = job.request.length
    if (this.waitingBytes > 0 && this.waitingBytes + size > maxWaitingBytes) {
      throw this.refuse(new OverloadedError(`${this.waitingBytes} bytes are waiting already`))
    }
    const item: Waiting = { job, abandoned: false }
    this.waitingBytes += size
    try {
      const result = await patiently((size > largeBytes ? this.largeGroup : this.group).submit(item), () => {
        item.abandoned = true
      })
      if (result === null) throw new Error('an abandoned submission has no reader')
      this.options.metrics.submissions.inc({ outcome: outcomeNames[result.kind] })
      return result
    } catch (error) {
      throw error instanceof OverloadedError ? this.refuse(error) : error
    } finally {
      this.waitingBytes -= size
    }
  }

  /** Most submissions that may wait. */
  get maxWaiting(): number {
    return this.options.maxWaiting
  }

  /** Submissions that wait for a batch. */
  get depth(): number {
    return this.group.depth + this.largeGroup.depth
  }

  /** What the last commit met, if it failed and that was a moment ago; null otherwise. */
  get trouble(): Error | null {
    const { failure } = this
    return failure !== null && performance.now() - failure.atMs < troubleLastsMs ? failure.error : null
  }

  private async commit(items: Waiting[]): Promise<(SubmitResult | null)[]> {
    const live = items.filter((item) => !item.abandoned)
    if (live.length === 0) return items.map(() => null)
    const jobs = live.map(({ job }) => job)
    const settled = await this.persistently(() => submitBatch(this.options.db, jobs, this.order))
    const known = settled.filter(({ kind }) => kind !== 'created').length
    this.order = known > settled.length / 2 ? 'look first' : 'insert first'
    if (pauseAt !== null) await pauseAt('api.committed')
    this.options.wake(lanesToWake(settled))
    const results = new Map(live.map((item, index) => [item, settled[index] ?? null]))
    return items.map((item) => results.get(item) ?? null)
  }

  /** Again with the same ids: whether the lost statement took effect or not, the result is the same. */
  private async persistently<T>(run: () => Promise<T>): Promise<T> {
    const giveUpAtMs = performance.now() + retryForMs
    for (;;) {
      try {
        const result = await run()
        this.failure = null
        return result
      } catch (error) {
        if (!isUnavailable(error)) throw error
        if (performance.now() >= giveUpAtMs) {
          this.failure = { error: error as Error, atMs: performance.now() }
          throw error
        }
        await sleep(retryEveryMs)
      }
    }
  }

  private refuse(error: OverloadedError): OverloadedError {
    this.refused += 1
    if (performance.now() - this.refusedLoggedAtMs >= 1_000) {
      this.options.log.event('submission.overloaded', { count: this.refused, reason: error.message })
      this.refusedLoggedAtMs = performance.now()
      this.refused = 0
    }
    return error
  }
}
