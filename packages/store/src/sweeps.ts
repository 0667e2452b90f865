import { isRowFault, isStatementTimeout } from './errors.ts'
import { nextSweptBatch, sweepBatches } from './statements/batches.ts'
import { nextSweptFile, sweepFiles } from './statements/files.ts'
import { sweepForgotten } from './statements/forget-copies.ts'
import { sweepLargeAnswers } from './statements/large-answers.ts'
import { sweepStreamChunks } from './statements/stream-chunks.ts'
import {
  nextExpired,
  sweepAttempts,
  sweepBytes,
  sweepDecisions,
  sweepExpired,
  sweepTenantUse,
  type SweepBounds,
  type SweptRows,
} from './statements/sweep.ts'
import { sweepWorkers } from './statements/workers.ts'
import type { Db } from './tables.ts'

/** Rows of one statement: some tens of milliseconds, which nobody has to wait for. */
const rows = 1_000
/** Files of one statement; what it may take of their content is bounded by bytes. */
const files = 10
/** Large answers that are looked at. */
const answers = 100
/** Content of one file or batch that a statement takes, at the least. */
const leastBytes = 1024 * 1024
/** What could not be deleted is tried again after so long. */
const skippedMs = 3_600_000
/** Nobody writes so many ids into a statement for rows that do not go. */
const maxSkipped = 1_000

/** One kind of thing that is deleted once it is old enough. */
export interface Sweep {
  /** Deletes some. */
  run(): Promise<SweepRound>
}

export interface SweepRound extends SweptRows {
  /** What could not be deleted even alone, and why. Those behind it go on without it. */
  skipped: { id: string; error: unknown } | null
}

export type Swept =
  | 'jobs'
  | 'large answers'
  | 'stream chunks'
  | 'forgotten jobs'
  | 'files'
  | 'batches'
  | 'attempts'
  | 'decisions'
  | 'tenant use'
  | 'workers'

/** Everything that is swept, in order, for the janitor's loops and for `askonce sweep`. What is kept, for how many seconds, beyond its own expiry. */
export function sweepsOf(db: Db, kept: { ledgerSeconds: number; batchSeconds: number }): Record<Swept, Sweep> {
  const { ledgerSeconds, batchSeconds } = kept
  return {
    jobs: new PacedSweep(
      rows,
      (bounds) => sweepExpired(db, bounds.rows, bounds),
      (skip) => nextExpired(db, skip),
    ),
    'large answers': new PacedSweep(answers, (bounds) => sweepLargeAnswers(db, bounds.rows, bounds.bytes)),
    'stream chunks': new PacedSweep(rows, (bounds) => sweepStreamChunks(db, bounds.rows, bounds.bytes)),
    'forgotten jobs': new PacedSweep(rows, (bounds) => sweepForgotten(db, bounds.rows)),
    files: new PacedSweep(
      files,
      (bounds) => sweepFiles(db, bounds.rows, bounds),
      (skip) => nextSweptFile(db, skip),
    ),
    batches: new PacedSweep(
      rows,
      (bounds) => sweepBatches(db, batchSeconds, bounds),
      (skip) => nextSweptBatch(db, batchSeconds, skip),
    ),
    attempts: new PacedSweep(rows, (bounds) => sweepAttempts(db, ledgerSeconds, bounds.rows)),
    decisions: new PacedSweep(rows, (bounds) => sweepDecisions(db, ledgerSeconds, bounds.rows)),
    'tenant use': new PacedSweep(rows, (bounds) => sweepTenantUse(db, bounds.rows)),
    // All of them at once: they are few.
    workers: { run: async () => ({ count: await sweepWorkers(db), more: false, skipped: null }) },
  }
}

/**
 * A sweep whose statements take as much as they can in time. One that Postgres ends for its time is tried again with half as much, and what was
 * enough grows again. A row that cannot go even alone is left out, so that it never holds up those behind it.
 */
export class PacedSweep implements Sweep {
  private readonly most: number
  private readonly statement: (bounds: SweepBounds) => Promise<SweptRows>
  private readonly next: ((skip: readonly string[]) => Promise<string | null>) | null
  private share = 1
  private readonly skipped = new Map<string, number>()

  constructor(
    most: number,
    statement: (bounds: SweepBounds) => Promise<SweptRows>,
    next: ((skip: readonly string[]) => Promise<string | null>) | null = null,
  ) {
    this.most = most
    this.statement = statement
    this.next = next
  }

  async run(): Promise<SweepRound> {
    const bounds = this.bounds()
    try {
      const found = await this.statement(bounds)
      this.share = Math.min(1, this.share * 2)
      return { ...found, skipped: null }
    } catch (error) {
      if (!isRowFault(error)) throw error
      if (bounds.rows > 1 || (isStatementTimeout(error) && bounds.bytes > leastBytes)) {
        this.share /= 2
        return { count: 0, more: true, skipped: null }
      }
      const id = (await this.next?.(bounds.skip)) ?? null
      if (id === null) throw error
      this.skipped.set(id, performance.now() + skippedMs)
      this.share = 1
      return { count: 0, more: true, skipped: { id, error } }
    }
  }

  private bounds(): SweepBounds {
    const now = performance.now()
    for (const [id, untilMs] of this.skipped) {
      if (untilMs <= now || this.skipped.size > maxSkipped) this.skipped.delete(id)
    }
    const share = (most: number): number => Math.max(1, Math.floor(most * this.share))
    return { rows: share(this.most), bytes: share(sweepBytes), skip: [...this.skipped.keys()] }
  }
}
