import { setTimeout as sleep } from 'node:timers/promises'
import { pauseAt } from '@askonce/config'
import { mayMeetLimit, type SubmissionLimits } from '@askonce/core'
import {
  GroupCommit,
  isUnavailable,
  lanesToWake,
  OverloadedError,
  recallBatch,
  submitBatch,
  submitLimited,
  SubmissionRefusedError,
} from '@askonce/store'
import type {
  Db,
  NewJob,
  RecallItem,
  Recalled,
  RefusedSubmission,
  SubmitKind,
  SubmitOrder,
  SubmitResult,
} from '@askonce/store'
import type { Log, Metrics } from '@askonce/telemetry'
import { patiently } from './patience.ts'

const maxRows = 500
const maxBytes = 8 * 1024 * 1024
/** Known keys bring their answers with them, each of up to 64 kB. */
const maxRecalled = 128
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

/** To parse a body of so many bytes takes longer than to look for its key in vain. */
const dearBytes = 16 * 1024
/** So many keys in a row that were known, or were new, decide what the next ones are taken for. */
const mostLeaning = 64

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
  /** The key had no row a moment ago. */
  isAbsent: boolean
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

type Settled = SubmitResult | RefusedSubmission | null
type Settle = (items: readonly Waiting[]) => Promise<(SubmitResult | RefusedSubmission)[]>
type Group = GroupCommit<Waiting, Settled>

/** The way into the table: concurrent submissions share statements and commits. */
export class Submissions {
  private readonly options: SubmissionsOptions
  private readonly group: Group
  /** One at a time, and never where small ones go: two of ten megabytes would keep those waiting for seconds. */
  private readonly largeGroup: Group
  /** Of tenants whose submissions may meet a limit: each waits for its own lock and its own count, and nobody else does. */
  private readonly limitedGroups = new Map<string, Group>()
  private readonly recalls: GroupCommit<RecallItem, Recalled>
  /** The last commit failed: Postgres was away, or took nothing. */
  private failure: { error: Error; atMs: number } | null = null
  /** Above 0: the keys of late were known rather than new. It decides what is tried first, and nothing else. */
  private leaning = 0
  private waitingBytes = 0
  private refused = 0
  private refusedLoggedAtMs = Number.NEGATIVE_INFINITY

  constructor(options: SubmissionsOptions) {
    this.options = options
    const settle: Settle = (items) => this.settleUnlimited(items)
    this.group = this.createGroup(concurrency, settle)
    this.largeGroup = this.createGroup(1, settle)
    this.recalls = new GroupCommit({
      commit: (items) => persistently(() => recallBatch(options.db, items)),
      maxRows: maxRecalled,
      maxBytes: Number.POSITIVE_INFINITY,
      maxWaiting: options.maxWaiting,
      concurrency,
      bytesOf: () => 0,
      onBatch: (rows) => options.metrics.groupRows.observe({ group: 'recall' }, rows),
    })
  }

  /**
   * Whether to {@link recall} a body before it is parsed. Where keys are new it would cost each of them a look: then only what takes long to
   * parse is looked for.
   */
  shouldRecall(body: Buffer): boolean {
    return this.leaning > 0 || body.length >= dearBytes
  }

  /** What the key has for these bytes; rejects as {@link submit} does. What is not settled by it is to be parsed and submitted. */
  async recall(item: RecallItem): Promise<Recalled> {
    const recalled = await patiently(this.recalls.submit(item)).catch((error: unknown) => {
      throw error instanceof OverloadedError ? this.refuse(error) : error
    })
    if (recalled.kind === 'settled') {
      this.lean(1)
      this.options.metrics.submissions.inc({ outcome: outcomeNames[recalled.result.kind] })
    }
    return recalled
  }

  /**
   * Settles one submission of a tenant with these limits; resolves after the commit. Rejects with `OverloadedError` when too much waits and
   * with `SubmissionRefusedError` at a limit of its tenant (then nothing was accepted), with `StoreUnavailableError` or the driver's error
   * when Postgres is away: then the outcome is unknown, and the same key finds out. `isAbsent`: the key had no row a moment ago.
   */
  async submit(job: NewJob, limits: SubmissionLimits, isAbsent = false): Promise<SubmitResult> {
    if (pauseAt !== null) await pauseAt('api.received')
    const size = job.request.length
    if (this.waitingBytes > 0 && this.waitingBytes + size > maxWaitingBytes) {
      throw this.refuse(new OverloadedError(`${this.waitingBytes} bytes are waiting already`))
    }
    const item: Waiting = { job, isAbsent, abandoned: false }
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

  private createGroup(atOnce: number, settle: Settle): Group {
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
    const group = this.createGroup(1, (items) => submitLimited(this.options.db, tenantId, jobsOf(items)))
    this.limitedGroups.set(tenantId, group)
    return group
  }

  private async settleUnlimited(items: readonly Waiting[]): Promise<SubmitResult[]> {
    const absent = items.filter(({ isAbsent }) => isAbsent).length
    const order: SubmitOrder = this.leaning > 0 && absent <= items.length / 2 ? 'look first' : 'insert first'
    const settled = await submitBatch(this.options.db, jobsOf(items), order)
    for (const { kind } of settled) this.lean(kind === 'created' ? -1 : 1)
    return settled
  }

  private async commit(items: Waiting[], settle: Settle): Promise<Settled[]> {
    const live = items.filter((item) => !item.abandoned)
    if (live.length === 0) return items.map(() => null)
    const settled = await this.stored(() => settle(live))
    if (pauseAt !== null) await pauseAt('api.committed')
    this.options.wake(lanesToWake(settled.filter((result) => result.kind !== 'refused')))
    const results = new Map(live.map((item, index) => [item, settled[index] ?? null]))
    return items.map((item) => results.get(item) ?? null)
  }

  private lean(by: 1 | -1): void {
    this.leaning = Math.max(-mostLeaning, Math.min(mostLeaning, this.leaning + by))
  }

  /** What it says of the next ones is remembered: that a key can be read says nothing of that. */
  private async stored<T>(run: () => Promise<T>): Promise<T> {
    try {
      const result = await persistently(run)
      this.failure = null
      return result
    } catch (error) {
      if (isUnavailable(error)) this.failure = { error: error as Error, atMs: performance.now() }
      throw error
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

const jobsOf = (items: readonly Waiting[]): NewJob[] => items.map(({ job }) => job)

/** Again with the same ids: whether the lost statement took effect or not, the result is the same. */
async function persistently<T>(run: () => Promise<T>): Promise<T> {
  const giveUpAtMs = performance.now() + retryForMs
  for (;;) {
    try {
      return await run()
    } catch (error) {
      if (!isUnavailable(error) || performance.now() >= giveUpAtMs) throw error
      await sleep(retryEveryMs)
    }
  }
}
