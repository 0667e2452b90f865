import { randomUUID } from 'node:crypto'
import type { AttemptEndRecord } from '@askonce/store'

/** A paid answer on its way into the database: just brought by a call, or left in the spool by another process. */
export class AnswerInHand {
  readonly tenant: string
  /** Of the answer, in bytes. */
  readonly size: number
  /** Whether another process brought it. */
  readonly leftover: boolean
  /** Its response is null while only the file holds the bytes. */
  end: AttemptEndRecord
  /** Where it is safe on disk. */
  file: string | null
  /** Under way or done: being written to disk. */
  keeping: Promise<void> | null = null
  /** Whether a statement with its bytes is under way. */
  inUse = false
  /** Of its pieces in the database, if it is large: the same whenever this process writes them. */
  readonly pieces = randomUUID() as string
  /** Aborted when the database has it, while it is being written to disk. */
  stored: AbortController | null = null

  constructor(tenant: string, end: AttemptEndRecord, leftoverFile: string | null = null) {
    this.tenant = tenant
    this.size = end.response?.length ?? 0
    this.end = end
    this.file = leftoverFile
    this.leftover = leftoverFile !== null
    if (this.leftover) this.keeping = Promise.resolve()
  }

  /** For log lines. */
  get fields(): { job_id: string; attempt: number; tenant: string } {
    return { job_id: this.end.jobId, attempt: this.end.attempt, tenant: this.tenant }
  }
}
