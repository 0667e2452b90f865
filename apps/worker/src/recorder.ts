import { setTimeout as sleep } from 'node:timers/promises'
import { errorRegistry, isSettled, jobError, type ErrorCode } from '@askonce/core'
import {
  endAttempts,
  GroupCommit,
  isDataError,
  notify,
  retryContention,
  dueChannel,
  settledChannel,
  type AttemptEndRecord,
  type Db,
  type EndedAttempt,
} from '@askonce/store'
import { errorReason, type Log, type Metrics } from '@askonce/telemetry'
import { SpoolError, type Spool } from './spool.ts'

const firstRetryMs = 100
const retryCapMs = 2_000

export interface RecorderOptions {
  db: Db
  log: Log
  metrics: Metrics
  spool: Spool
  /** Resolves once the database has told its identity. */
  databaseId: () => Promise<string>
  uncertainTtlMs: number
}

/** What became of an end. */
export interface Recorded {
  /** False: the process is stopping and the end is not in the database. The attempt stays this worker's until it dies. */
  committed: boolean
  /** Null: not committed, or the ledger does not know the attempt. */
  ended: EndedAttempt | null
}

const notCommitted: Recorded = { committed: false, ended: null }

/**
 * Writes the ends of attempts. A storage failure is not a job failure: an answer in hand goes to disk at the first failed store and
 * is tried until it is committed; BullMQ hears nothing of it.
 */
export class Recorder {
  private readonly options: RecorderOptions
  private readonly group: GroupCommit<AttemptEndRecord, EndedAttempt | undefined>
  private readonly stopping = new AbortController()

  constructor(options: RecorderOptions) {
    this.options = options
    this.group = new GroupCommit({
      commit: (ends) => this.commit(ends),
      maxRows: 500,
      maxBytes: 16 * 1024 * 1024,
      maxWaiting: Number.POSITIVE_INFINITY, // bounded by what is in flight
      concurrency: 2,
      bytesOf: (end) => 500 + (end.response?.length ?? 0),
      identityOf: (end) => end.jobId,
      onBatch: (rows) => options.metrics.groupRows.observe({ group: 'end' }, rows),
    })
  }

  /** Gives up what cannot be committed now. Spooled answers stay on disk; other ends are reclaimed as maybe. */
  stop(): void {
    this.stopping.abort()
  }

  /** Resolves when the end is committed, however long Postgres is away. `tenant` is for the spool record. */
  async record(tenant: string, end: AttemptEndRecord): Promise<Recorded> {
    let current = end
    let file: string | null = null
    for (let delayMs = firstRetryMs; ; delayMs = Math.min(retryCapMs, delayMs * 2)) {
      try {
        const ended = await this.group.submit(current)
        if (file !== null) await this.finishFile(file, tenant, current, ended)
        return { committed: true, ended: ended ?? null }
      } catch (error) {
        if (isDataError(error) && current === end) {
          if (end.action === 'answer') file = await this.setAside(file, tenant, end, error)
          current = asStorable(current)
          continue
        }
        if (current.action === 'answer' && file === null) file = await this.spool(tenant, current, error)
        if (this.stopping.signal.aborted) return notCommitted
        await sleep(delayMs * (0.5 + Math.random() / 2), undefined, { signal: this.stopping.signal }).catch(
          () => undefined,
        )
        if (this.stopping.signal.aborted) return notCommitted
      }
    }
  }

  private async commit(ends: AttemptEndRecord[]): Promise<(EndedAttempt | undefined)[]> {
    const { db, uncertainTtlMs } = this.options
    const rows = await retryContention(() => endAttempts(db, ends, Math.round(uncertainTtlMs / 1000)))
    const settled = rows.filter((row) => row.movedTo !== null && isSettled(row.movedTo))
    const due = rows.filter((row) => row.movedTo === 'queued')
    // Hints, after the commit: losing them costs latency only.
    void Promise.all([
      notify(
        db,
        settledChannel,
        settled.map((row) => row.jobId),
      ),
      notify(
        db,
        dueChannel,
        due.map((row) => row.jobId),
      ),
    ]).catch(() => undefined)
    const byName = new Map(rows.map((row) => [`${row.jobId}.${row.attempt}`, row]))
    return ends.map((end) => byName.get(`${end.jobId}.${end.attempt}`))
  }

  private async spool(tenant: string, end: AttemptEndRecord, cause: unknown): Promise<string | null> {
    const { spool, log, metrics, databaseId } = this.options
    const fields = { job_id: end.jobId, attempt: end.attempt, tenant }
    try {
      const file = await spool.write({ database: await databaseId(), tenant, end })
      metrics.spoolFiles.inc()
      log.event('spool.written', { ...fields, file, reason: errorReason(cause) })
      return file
    } catch (error) {
      log.event('spool.failed', { ...fields, reason: errorReason(error) })
      return null
    }
  }

  private async setAside(file: string | null, tenant: string, end: AttemptEndRecord, cause: unknown): Promise<null> {
    const { spool, log, metrics } = this.options
    const written = file ?? (await this.spool(tenant, end, cause))
    if (written !== null) {
      const path = await spool.setAside(written, 'unstorable').catch(() => written)
      metrics.spoolFiles.dec()
      log.event('answer.unstorable', {
        job_id: end.jobId,
        attempt: end.attempt,
        tenant,
        file: path,
        error_code: 'answer_not_storable',
        reason: errorReason(cause),
      })
    }
    return null
  }

  private async finishFile(
    file: string,
    tenant: string,
    end: AttemptEndRecord,
    ended: EndedAttempt | undefined,
  ): Promise<void> {
    const { spool, log, metrics } = this.options
    const fields = { job_id: end.jobId, attempt: end.attempt, tenant }
    metrics.spoolFiles.dec()
    if (ended === undefined) {
      const path = await spool.setAside(file, 'orphan').catch(() => file)
      log.event('spool.damaged', {
        ...fields,
        file: path,
        reason: 'the ledger of this database does not know the attempt',
      })
      return
    }
    await spool.remove(file).catch(() => undefined)
    const stored = ended.answerAttempt === end.attempt
    log.event('spool.delivered', { ...fields, file, outcome: stored ? 'answered' : 'surplus', state: ended.state })
  }

  /** Delivers what earlier processes left in the directory. Damaged and foreign files are left for a person. */
  async deliverSpool(): Promise<void> {
    const { spool, log, metrics, databaseId } = this.options
    const files = await spool.list()
    metrics.spoolFiles.set(files.length)
    if (files.length === 0) return
    const database = await databaseId()
    for (const file of files) {
      try {
        const record = await spool.read(file)
        if (record.database !== database) throw new SpoolError('the record belongs to another database')
        await this.deliver(file, record.tenant, record.end)
      } catch (error) {
        // Another worker of a shared directory was faster.
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue
        log.event('spool.damaged', { file, reason: error instanceof SpoolError ? error.message : errorReason(error) })
      }
      if (this.stopping.signal.aborted) return
    }
  }

  private async deliver(file: string, tenant: string, end: AttemptEndRecord): Promise<void> {
    for (let delayMs = firstRetryMs; !this.stopping.signal.aborted; delayMs = Math.min(retryCapMs, delayMs * 2)) {
      try {
        return await this.finishFile(file, tenant, end, await this.group.submit(end))
      } catch (error) {
        if (isDataError(error)) {
          await this.setAside(file, tenant, end, error)
          await this.record(tenant, asStorable(end))
          return
        }
        await sleep(delayMs, undefined, { signal: this.stopping.signal }).catch(() => undefined)
      }
    }
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
    response: null,
    contentType: null,
    flags: [],
  }
}
