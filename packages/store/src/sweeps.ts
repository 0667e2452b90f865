import { sweepFiles } from './statements/files.ts'
import { sweepBatches } from './statements/batches.ts'
import { sweepLargeAnswers } from './statements/large-answers.ts'
import { sweepStreamChunks } from './statements/stream-chunks.ts'
import { sweepAttempts, sweepDecisions, sweepExpired } from './statements/sweep.ts'
import { sweepWorkers } from './statements/workers.ts'
import type { Db } from './tables.ts'

/** Rows of one statement: some tens of milliseconds, which nobody has to wait for. */
const rows = 1_000
/** A file may have 200 MB. */
const files = 10

/** One kind of thing that is deleted once it is old enough. */
export interface Sweep {
  /** Deletes some and says how many. */
  run(): Promise<number>
  /** So many mean that there may be more. */
  full: number
}

export type Swept =
  | 'jobs'
  | 'large answers'
  | 'stream chunks'
  | 'files'
  | 'batches'
  | 'attempts'
  | 'decisions'
  | 'workers'

/** Everything that is swept, in order, for the janitor's loops and for `askonce sweep`. What is kept, for how many seconds, beyond its own expiry. */
export function sweepsOf(db: Db, kept: { ledgerSeconds: number; batchSeconds: number }): Record<Swept, Sweep> {
  return {
    jobs: { full: rows, run: () => sweepExpired(db, rows) },
    // Whatever it finds, there may be more.
    'large answers': { full: 1, run: () => sweepLargeAnswers(db) },
    'stream chunks': { full: rows, run: () => sweepStreamChunks(db, rows) },
    files: { full: files, run: () => sweepFiles(db, files) },
    batches: { full: 1, run: () => sweepBatches(db, kept.batchSeconds) },
    attempts: { full: rows, run: () => sweepAttempts(db, kept.ledgerSeconds, rows) },
    decisions: { full: rows, run: () => sweepDecisions(db, kept.ledgerSeconds, rows) },
    // All of them at once: they are few.
    workers: { full: Number.POSITIVE_INFINITY, run: () => sweepWorkers(db) },
  }
}
