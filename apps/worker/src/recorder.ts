import { setTimeout as sleep } from 'node:timers/promises'
import { pauseAt } from '@askonce/config'
import { errorRegistry, isSettled, jobError, type ErrorCode } from '@askonce/core'
import {
  endAttempts,
  endWithPieces,
  GroupCommit,
  inlineAnswerBytes,
  isDataError,
  isUnavailable,
  notify,
  retryContention,
  settledChannel,
  writeAnswerPieces,
  type AttemptEndRecord,
  type Db,
  type EndedAttempt,
} from '@askonce/store'
import { errorReason, type Log, type Metrics } from '@askonce/telemetry'
import { AnswerInHand } from './answer-in-hand.ts'
import { ByteBudget } from './byte-budget.ts'
import { Gate } from './gate.ts'
import type { Safekeeping } from './safekeeping.ts'

/** Waits of an end that the database refuses for reasons of its own, while it takes others. */
const firstRetryMs = 100
const retryCapMs = 2_000
/** An answer that is not stored by then is written to disk: a server that says nothing at all may take half a minute to fail. */
const spoolAfterMs = 2_000
/** Few enough that what follows for all of them holds up the event loop for milliseconds only. */
const maxRows = 100
/** Answers that statements under way may hold in memory. */
const submittedBytes = 24 * 1024 * 1024
/** The same for those that are stored in pieces: they take their time, and the others do not wait for them. */
const submittedLargeBytes = 32 * 1024 * 1024

export interface RecorderOptions {
  db: Db
  log: Log
  metrics: Metrics
  safekeeping: Safekeeping
  uncertainTtlMs: number
}

/** What became of an end. */
export interface Recorded {
  /** False: the process is stopping and the end is not in the database. The attempt stays this worker's until it dies. */
  committed: boolean
  /** What was written in the end: an answer may have turned out to be unstorable, or lost. */
  end: AttemptEndRecord
  /** Null: not committed, or the ledger does not know the attempt. */
  ended: EndedAttempt | null
}

/**
 * Writes the ends of attempts. A storage failure is not a job failure: an answer in hand goes to disk at the first failed store and
 * is tried until it is committed; BullMQ hears nothing of it.
 */
export class Recorder {
  private readonly options: RecorderOptions
  private readonly group: GroupCommit<AttemptEndRecord, EndedAttempt | undefined>
  private readonly stopping = new AbortController()
  private readonly database = new Gate()
  private readonly budget = new ByteBudget(submittedBytes)
  private readonly largeBudget = new ByteBudget(submittedLargeBytes)

  constructor(options: RecorderOptions) {
    this.options = options
    this.group = new GroupCommit({
      commit: (ends) => this.commit(ends),
      maxRows,
      maxBytes: 8 * 1024 * 1024,
      maxWaiting: Number.POSITIVE_INFINITY, // bounded by what is in flight
      concurrency: 2,
      bytesOf: (end) => 500 + (end.response?.length ?? 0),
      identityOf: (end) => end.jobId,
      onBatch: (rows) => options.metrics.groupRows.observe({ group: 'end' }, rows),
    })
  }

  /** The database has answered somebody else: what waits tries again at once. */
  databaseAnswers(): void {
    this.database.hint()
  }

  /** Gives up what cannot be committed now. Spooled answers stay on disk; other ends are reclaimed as maybe. */
  stop(): void {
    this.stopping.abort()
    this.database.shutForGood()
  }

  /** Resolves when the end is committed, however long Postgres is away. `tenant` is for the spool record. */
  record(tenant: string, end: AttemptEndRecord): Promise<Recorded> {
    return end.action === 'answer' ? this.recordAnswer(new AnswerInHand(tenant, end)) : this.recordEnd(end)
  }

  /** As `record`, for an answer that may be on disk already. */
  async recordAnswer(answer: AnswerInHand): Promise<Recorded> {
    const { safekeeping } = this.options
    const budget = answer.size > inlineAnswerBytes ? this.largeBudget : this.budget
    const slow = setTimeout(() => safekeeping.keep(answer, 'not stored within two seconds'), spoolAfterMs)
    try {
      for (let waitMs = firstRetryMs; ; waitMs = Math.min(retryCapMs, waitMs * 2)) {
        if (!this.database.isOpen) safekeeping.keep(answer, 'Postgres is away')
        if (!(await this.database.enter())) return { committed: false, end: answer.end, ended: null }
        try {
          return await budget.with(answer.size, () => this.storeAnswer(answer))
        } catch (error) {
          safekeeping.keep(answer, errorReason(error))
          safekeeping.unload(answer)
          if (isDataError(error)) return await this.holdUnstorable(answer, error)
          // Closed: the gate paces. Open: the database takes others, or it is the disk that fails.
          if (this.database.isOpen) await this.pause(waitMs)
        }
      }
    } finally {
      clearTimeout(slow)
    }
  }

  /** An end without an answer. */
  private async recordEnd(end: AttemptEndRecord): Promise<Recorded> {
    let current = end
    for (let waitMs = firstRetryMs; ; waitMs = Math.min(retryCapMs, waitMs * 2)) {
      if (!(await this.database.enter())) return { committed: false, end: current, ended: null }
      try {
        return { committed: true, end: current, ended: (await this.submit(current)) ?? null }
      } catch (error) {
        if (isDataError(error) && current === end) current = asStorable(end)
        else if (this.database.isOpen) await this.pause(waitMs)
      }
    }
  }

  /** One attempt to store it. Rejects with what the database, or the disk that holds the bytes, says. */
  private async storeAnswer(answer: AnswerInHand): Promise<Recorded> {
    const { safekeeping } = this.options
    answer.inUse = true
    try {
      const end = await safekeeping.load(answer)
      if (end === null) return await this.settleVanished(answer)
      const ended = await (answer.size > inlineAnswerBytes ? this.submitLarge(answer, end) : this.submit(end))
      if (ended === undefined) await this.putOrphanAside(answer)
      else await safekeeping.finish(answer, ended)
      return { committed: true, end, ended: ended ?? null }
    } finally {
      answer.inUse = false
      // Without a statement, the next in line takes the turn.
      this.database.leave()
    }
  }

  private submit(end: AttemptEndRecord): Promise<EndedAttempt | undefined> {
    return this.watched(() => this.group.submit(end))
  }

  /** Not in a group: what it has to do first takes longer than others should wait. */
  private submitLarge({ pieces }: AnswerInHand, end: AttemptEndRecord): Promise<EndedAttempt | undefined> {
    const { db, uncertainTtlMs } = this.options
    const answer = end.response ?? Buffer.alloc(0)
    const inPieces = { ...end, response: null, responsePieces: pieces, responseBytes: answer.length }
    return this.watched(async () => {
      await writeAnswerPieces(db, pieces, end, answer)
      if (pauseAt !== null) await pauseAt('worker.pieces_written')
      const ended = await retryContention(() => endWithPieces(db, inPieces, Math.round(uncertainTtlMs / 1000)))
      if (ended !== undefined) this.tell([ended])
      return ended
    })
  }

  /** Runs a statement, and tells the gate how the database did. */
  private async watched(run: () => Promise<EndedAttempt | undefined>): Promise<EndedAttempt | undefined> {
    try {
      const ended = await run()
      this.database.worked()
      return ended
    } catch (error) {
      // A refusal comes from a database that is there.
      if (isUnavailable(error)) this.database.failed()
      else this.database.worked()
      throw error
    }
  }

  /**
   * The only copy was in the file, and the file is gone. Either another worker of the directory has delivered it, and then this end
   * changes nothing; or somebody has taken it away, and the attempt may have been billed for nothing.
   */
  private async settleVanished(answer: AnswerInHand): Promise<Recorded> {
    const { safekeeping, log } = this.options
    if (answer.leftover) {
      await safekeeping.settle(answer)
      return { committed: true, end: answer.end, ended: null }
    }
    const end = lostEnd(answer.end)
    const ended = await this.submit(end)
    await safekeeping.settle(answer)
    if (ended?.recorded !== true) return { committed: true, end: answer.end, ended: ended ?? null }
    log.event('answer.lost', { ...answer.fields, reason: 'its spool file is gone or damaged' })
    return { committed: true, end, ended }
  }

  private async holdUnstorable(answer: AnswerInHand, cause: unknown): Promise<Recorded> {
    const { safekeeping, log } = this.options
    // On disk first, where that can be done: the ledger will say that a person finds it there.
    await Promise.race([answer.keeping, this.pause(spoolAfterMs)])
    const recorded = await this.recordEnd(asStorable(answer.end))
    // Not committed: the next start finds the record, meets the same refusal and comes here again.
    if (!recorded.committed) return recorded
    const file = await safekeeping.finishAside(answer, 'unstorable', errorReason(cause))
    const reason = file === null ? `${errorReason(cause)}; and the spool cannot be written` : errorReason(cause)
    log.event('answer.unstorable', { ...answer.fields, file, error_code: 'answer_not_storable', reason })
    return recorded
  }

  private async putOrphanAside(answer: AnswerInHand): Promise<void> {
    const { safekeeping, log } = this.options
    const reason = 'the ledger of this database does not know the attempt'
    const file = await safekeeping.finishAside(answer, 'orphan', reason)
    log.event('spool.orphaned', { ...answer.fields, file, reason })
  }

  private async commit(ends: AttemptEndRecord[]): Promise<(EndedAttempt | undefined)[]> {
    const { db, uncertainTtlMs } = this.options
    const rows = await retryContention(() => endAttempts(db, ends, Math.round(uncertainTtlMs / 1000)))
    this.tell(rows)
    const byName = new Map(rows.map((row) => [`${row.jobId}.${row.attempt}`, row]))
    return ends.map((end) => byName.get(`${end.jobId}.${end.attempt}`))
  }

  private tell(rows: readonly EndedAttempt[]): void {
    const { db } = this.options
    const settled = rows.filter((row) => row.movedTo !== null && isSettled(row.movedTo))
    // A hint, after the commit: losing it costs latency only.
    void notify(
      db,
      settledChannel,
      settled.map((row) => row.jobId),
    ).catch(() => undefined)
  }

  private async pause(ms: number): Promise<void> {
    const { signal } = this.stopping
    await sleep(ms * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => undefined)
  }
}

/** What is left to say of an answer that is nowhere any more. Leaves alone what has ended otherwise. */
function lostEnd(end: AttemptEndRecord): AttemptEndRecord {
  return {
    ...end,
    action: 'unknown',
    outcome: 'lost',
    billing: 'maybe',
    onlyOpen: true,
    error: JSON.stringify(jobError('worker_lost')),
    errorCode: 'worker_lost',
    response: null,
    responsePieces: null,
    responseBytes: null,
    contentType: null,
    answerId: null,
    flags: [],
  }
}

/** What can be written of an end that Postgres refuses as data: an answer becomes a held job, other ends keep their code only. */
function asStorable(end: AttemptEndRecord): AttemptEndRecord {
  const answer = end.action === 'answer'
  const known = end.errorCode !== null && Object.hasOwn(errorRegistry, end.errorCode)
  const code: ErrorCode = answer ? 'answer_not_storable' : known ? (end.errorCode as ErrorCode) : 'broken_answer'
  return {
    ...end,
    ...(answer ? { action: 'unstorable' as const, outcome: 'unstorable' as const } : {}),
    error: JSON.stringify(jobError(code, undefined, end.providerStatus)),
    errorCode: code,
    providerRequestId: null,
    errorResponse: null,
    errorContentType: null,
    response: null,
    responsePieces: null,
    responseBytes: null,
    contentType: null,
    answerId: null,
    flags: [],
  }
}
