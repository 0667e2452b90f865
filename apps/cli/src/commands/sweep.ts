import type { Sweep } from '@askonce/store'
import type { Command } from 'commander'
import { withDatabase } from '../database.ts'
import { exitCodes } from '../errors.ts'
import { count } from '../format.ts'
import { examples, integer } from '../options.ts'
import { catchSignals } from '../roles/signals.ts'
import { print, printJson, remark } from '../terminal.ts'

/** `askonce sweep`. */
export function addSweep(program: Command): void {
  program
    .command('sweep')
    .summary('delete what has expired, once')
    .description(
      'Deletes expired answers, files and batches, chunks of streams that have ended, ledger rows and decisions beyond their ' +
        'retention and workers long dead, in bounded batches until nothing is left, directly in the database. The janitor does the ' +
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
    const { sweepsOf } = await import('@askonce/store')
    const sweeps = sweepsOf(db, {
      ledgerSeconds: Math.floor(limits.ledgerRetentionMs / 1000),
      batchSeconds: Math.floor(limits.batchRetentionMs / 1000),
    })
    let left = maxBatches ?? Number.POSITIVE_INFINITY
    const goesOn = (): boolean => left > 0 && !stopped.aborted
    const drain = async (kind: Sweep): Promise<number> => {
      let swept = 0
      for (; goesOn(); left -= 1) {
        const { count: gone, more, skipped } = await kind.run()
        swept += gone
        if (skipped !== null) remark(`askonce: ${skipped.id} could not be deleted: ${(skipped.error as Error).message}`)
        // What is left expired since, or is held by another sweeper.
        if (!more) break
      }
      return swept
    }
    const swept = {
      jobs: await drain(sweeps.jobs),
      stream_chunks: await drain(sweeps['stream chunks']),
      files: await drain(sweeps.files),
      batches: await drain(sweeps.batches),
      attempts: await drain(sweeps.attempts),
      decisions: await drain(sweeps.decisions),
      workers: await drain(sweeps.workers),
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
