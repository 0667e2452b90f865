import { setTimeout as sleep } from 'node:timers/promises'
import { pauseAt } from '@askonce/config'
import type { DispatchItem } from '@askonce/queue'
import { mayMeetLimit, type SubmissionLimits } from '@askonce/core'
import {
  dispatchesOf,
  GroupCommit,
  isUnavailable,
  OverloadedError,
  submitBatch,
  submitLimited,
  SubmissionRefusedError,
} from '@askonce/store'
import type { Db, NewJob, RefusedSubmission, SubmitKind, SubmitOrder, SubmitResult } from '@askonce/store'
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
  /** Called after each commit with the jobs that are to be handed to BullMQ. */
  handOver: (items: readonly DispatchItem[]) => void
}

type Settled = SubmitResult | RefusedSubmission | null
type Group = GroupCommit<Waiting, Settled>

/** The way into the table: concurrent submissions share statements and commits. */
export class Submissions {
  private readonly options: SubmissionsOptions
  private readonly group: Group
  /** One at a time, and never where small ones go: two of ten megabytes would keep those waiting for seconds. */
  private readonly largeGroup: Group
  /** Of tenants whose submissions may meet a limit: each waits for its own lock and its own count, and nobody else does. */
  private readonly limitedGroups = new Map<string, Group>()
  /** The last commit failed: Postgres was away, or took nothing. */
  private failure: { error: Error; atMs: number } | null = null
  /** What the last batch would have been quickest with. */
  private order: SubmitOrder = 'insert first'
  private waitingBytes = 0
  private refused = 0
  private refusedLoggedAtMs = Number.NEGATIVE_INFINITY

  constructor(options: SubmissionsOptions) {
    this.options = options
    const settle = (jobs: readonly NewJob[]): Promise<SubmitResult[]> => this.settleUnlimited(jobs)
    this.group = this.createGroup(concurrency, settle)
    this.largeGroup = this.createGroup(1, settle)
  }

  /**
   * Settles one submission of a tenant with these limits; resolves after the commit. Rejects with `OverloadedError` when too much waits and
   * with `SubmissionRefusedError` at a limit of its tenant (then nothing was accepted), with `StoreUnavailableError` or the driver's error
   * when Postgres is away: then the outcome is unknown, and the same key finds out.
   */
  async submit(job: NewJob, limits: SubmissionLimits): Promise<SubmitResult> {
    if (pauseAt !== null) await pauseAt('api.received')
    const size = job.request.length
    if (this.waitingBytes > 0 && this.waitingBytes + size > maxWaitingBytes) {
      throw this.refuse(new OverloadedError(`${this.waitingBytes} bytes are waiting already`))
    }
    const item: Waiting = { job, abandoned: false }
    this.waitingBytes += size
    try {
      const result = await patiently(this.groupFor(job, limits).submit(item), () => {
        item.abandoned = true
      })
      if (result === null) throw new Error('an abandoned submission has no reader')
      if (result.kind === 'refused') {
        this.options.metrics.submissions.inc({ outcome: result.code })
        throw new SubmissionRefusedError(result)
      }
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
    let depth = this.group.depth + this.largeGroup.depth
    for (const group of this.limitedGroups.values()) depth += group.depth
    return depth
  }

  /** What the last commit met, if it failed and that was a moment ago; null otherwise. */
  get trouble(): Error | null {
    const { failure } = this
    return failure !== null && performance.now() - failure.atMs < troubleLastsMs ? failure.error : null
  }

  private createGroup(
    atOnce: number,
    settle: (jobs: readonly NewJob[]) => Promise<(SubmitResult | RefusedSubmission)[]>,
  ): Group {
    const { maxWaiting, metrics } = this.options
    return new GroupCommit({
      commit: (items) => this.commit(items, settle),
      maxRows,
      maxBytes,
      maxWaiting,
      concurrency: atOnce,
      bytesOf: ({ job }) => job.request.length,
      onBatch: (rows) => metrics.groupRows.observe({ group: 'submit' }, rows),
    })
  }

  private groupFor({ tenantId, request, reserveUsd }: NewJob, limits: SubmissionLimits): Group {
    if (!mayMeetLimit(limits, reserveUsd)) return request.length > largeBytes ? this.largeGroup : this.group
    const known = this.limitedGroups.get(tenantId)
    if (known !== undefined) return known
    // One at a time: they would wait for each other in the database.
    const group = this.createGroup(1, (jobs) => submitLimited(this.options.db, tenantId, jobs))
    this.limitedGroups.set(tenantId, group)
    return group
  }

  private async settleUnlimited(jobs: readonly NewJob[]): Promise<SubmitResult[]> {
    const settled = await submitBatch(this.options.db, jobs, this.order)
    const known = settled.filter(({ kind }) => kind !== 'created').length
    this.order = known > settled.length / 2 ? 'look first' : 'insert first'
    return settled
  }

  private async commit(
    items: Waiting[],
    settle: (jobs: readonly NewJob[]) => Promise<(SubmitResult | RefusedSubmission)[]>,
  ): Promise<Settled[]> {
    const live = items.filter((item) => !item.abandoned)
    if (live.length === 0) return items.map(() => null)
    const jobs = live.map(({ job }) => job)
    const settled = await this.persistently(() => settle(jobs))
    if (pauseAt !== null) await pauseAt('api.committed')
    this.options.handOver(dispatchesOf(settled.filter((result) => result.kind !== 'refused')))
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
