import type { Command } from 'commander'
import { withDatabase } from '../database.ts'
import { exitCodes } from '../errors.ts'
import { count } from '../format.ts'
import { examples, integer } from '../options.ts'
import { catchSignals } from '../roles/signals.ts'
import { print, printJson } from '../terminal.ts'

/** Rows of one batch: a transaction of some tens of milliseconds, which nobody has to wait for. */
const batchRows = 1000

/** A file may have 200 MB. */
const batchFiles = 10

/** `askonce sweep`. */
export function addSweep(program: Command): void {
  program
    .command('sweep')
    .summary('delete what has expired, once')
    .description(
      'Deletes expired answers, files and batches, chunks of streams that have ended, ledger rows and decisions beyond their\n' +
        'retention and workers long dead, in bounded batches until nothing is left, directly in the database. The janitor does the\n' +
        'same all the time; this is for cron. The first signal ends it after the batch that is under way.',
    )
    .option('--max-batches <n>', 'stop after so many batches', integer(1))
    .option('--json', 'print JSON')
    .addHelpText('after', examples(['askonce sweep', '*/10 * * * *  askonce sweep --max-batches 200']))
    .action(sweep)
}

async function sweep({ maxBatches, json }: { maxBatches?: number; json?: boolean }): Promise<void> {
  // Heard as the first process of a container, too, where a signal that nobody listens to does nothing.
  const { first: stopped } = catchSignals()
  await withDatabase(async ({ db }, { limits }) => {
    const store = await import('@askonce/store')
    let left = maxBatches ?? Number.POSITIVE_INFINITY
    const goesOn = (): boolean => left > 0 && !stopped.aborted
    const drain = async (full: number, batch: () => Promise<number>): Promise<number> => {
      let swept = 0
      for (; goesOn(); left -= 1) {
        const rows = await batch()
        swept += rows
        // Short of a full batch: what is left expired since, or is held by another sweeper.
        if (rows < full) break
      }
      return swept
    }
    const retentionSeconds = Math.floor(limits.ledgerRetentionMs / 1000)
    const batchSeconds = Math.floor(limits.batchRetentionMs / 1000)
    const swept = {
      jobs: await drain(batchRows, () => store.sweepExpired(db, batchRows)),
      stream_chunks: await drain(batchRows, () => store.sweepStreamChunks(db, batchRows)),
      files: await drain(batchFiles, () => store.sweepFiles(db, batchFiles)),
      batches: await drain(1, () => store.sweepBatches(db, batchSeconds)),
      attempts: await drain(batchRows, () => store.sweepAttempts(db, retentionSeconds, batchRows)),
      decisions: await drain(batchRows, () => store.sweepDecisions(db, retentionSeconds, batchRows)),
      workers: goesOn() ? await store.sweepWorkers(db) : 0,
    }
    const done = goesOn()
    if (stopped.aborted) process.exitCode = exitCodes.interrupted
    if (json) return printJson({ ...swept, done })
    const rows = [
      count(swept.jobs, 'job'),
      count(swept.stream_chunks, 'stream chunk'),
      count(swept.files, 'file'),
      count(swept.batches, 'batch', 'batches'),
      count(swept.attempts, 'ledger row'),
      count(swept.decisions, 'decision'),
      count(swept.workers, 'dead worker'),
    ]
    const why = stopped.aborted ? 'stopped' : '--max-batches reached'
    print(`swept ${rows.join(', ')}${done ? '' : `; there may be more (${why})`}`)
  })
}
