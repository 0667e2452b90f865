import { isTerminal } from '@askonce/core'
import {
  cancelOwnedJobs,
  disownJobs,
  readForgotten,
  readLinesWithJobs,
  reopenLines,
  withBatch,
  writeResults,
} from '@askonce/store'
import type { Db, LineResult, LineWithJob } from '@askonce/store'
import { uuidv7 } from 'uuidv7'
import { lineErrors, resultOf, withoutAnswer } from './result-lines.ts'

/** Lines and bytes of answers in one transaction. */
const chunkLines = 500
const chunkBytes = 8 * 1024 * 1024

/**
 * Writes the results of those lines whose jobs have ended: into the file, marked and counted in one transaction. Anybody may do it for any
 * batch at any time; writers take turns at the row of the batch, and the second finds the lines done. A job that expired before it was
 * read is asked for again; one that somebody deleted is not, and its line ends.
 */
export async function collect(db: Db, batchId: string, lines: readonly number[]): Promise<void> {
  let left = [...lines].toSorted((a, b) => a - b)
  while (left.length > 0) {
    const chunk = left.slice(0, chunkLines)
    const last = await withBatch(db, batchId, async (transaction, batch) => {
      if (batch === null) return null
      const rows = await readLinesWithJobs(transaction, batchId, chunk, chunkBytes)
      const open = rows.filter(({ state }) => state === 'open')
      const ended = open.filter(({ job_state: state }) => state !== null && isTerminal(state))
      const missing = open.filter(({ job_state: state }) => state === null)
      const ids = missing.map(({ job_id: id }) => id)
      const forgotten = new Set(ids.length === 0 ? [] : await readForgotten(transaction, ids))
      await writeResults(transaction, batch, [
        ...ended.map((row) => resultOf(batch.kind, row)),
        ...missing
          .filter(({ job_id: id }) => forgotten.has(id))
          .map((row) => withoutAnswer(batch.kind, row, 'failed', lineErrors.forgotten)),
      ])
      const gone = missing.filter(({ job_id: id }) => !forgotten.has(id))
      if (gone.length > 0) {
        const again = gone.map(({ line }) => ({ line, jobId: uuidv7() }))
        await reopenLines(transaction, batchId, again)
      }
      // Fewer rows than asked for: the others are done, or did not fit.
      return rows.at(-1)?.line ?? chunk.at(-1) ?? null
    })
    if (last === null) return
    left = left.filter((line) => line > last)
  }
}

export interface Ending {
  how: 'cancelled' | 'expired'
  /** Whether jobs that run are waited for: their answers still go into the results. */
  waits: boolean
  uncertainTtlSeconds: number
}

/**
 * Ends lines whatever becomes of their jobs. Jobs that are queued and that nobody else wants are cancelled; the batch lets go of the
 * others, which run on under their keys. Returns the ids of the cancelled jobs.
 *
 * Three can want a queued job at the same time: this, a submission that attaches ({@link disownJobs}) and a claim. All lock its row
 * first and look at it again there. Was the submission first, the job has no owner and stays; was the claim first, it runs,
 * and is waited for or let go; was this first, the submission finds it cancelled with its batch and runs it again.
 */
export async function endLines(db: Db, batchId: string, lines: readonly number[], ending: Ending): Promise<string[]> {
  const { how, waits, uncertainTtlSeconds } = ending
  return withBatch(db, batchId, async (transaction, batch) => {
    if (batch === null) return []
    const before = await readLinesWithJobs(transaction, batchId, lines, chunkBytes)
    const unfinished = before.filter(({ job_state: state }) => state !== null && !isTerminal(state))
    const cancelled = await cancelOwnedJobs(
      transaction,
      batchId,
      unfinished.map(({ job_id: id }) => id),
      uncertainTtlSeconds,
    )
    const mine = new Set(cancelled)
    // What the jobs are now: one may have ended, or been claimed, before the statement above came to it.
    const rows = await readLinesWithJobs(transaction, batchId, lines, chunkBytes)
    const released: string[] = []
    const results: LineResult[] = []
    for (const row of rows) {
      const { job_state: state, job_id: jobId } = row
      if (state !== null && isTerminal(state) && !mine.has(jobId)) results.push(resultOf(batch.kind, row))
      else if (!isAwaited(row, batchId, waits)) {
        if (row.owner_batch === batchId && !mine.has(jobId)) released.push(jobId)
        results.push(withoutAnswer(batch.kind, row, how, lineErrors[how]))
      }
    }
    if (released.length > 0) await disownJobs(transaction, released)
    await writeResults(transaction, batch, results)
    return cancelled
  })
}

/** A call is under way and its answer wanted; or it came back to the queue just now, and is cancelled in the next round. */
function isAwaited({ job_state: state, owner_batch: owner }: LineWithJob, batchId: string, waits: boolean): boolean {
  return waits && (state === 'running' || (state === 'queued' && owner === batchId))
}
