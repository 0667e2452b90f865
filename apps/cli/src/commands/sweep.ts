import type { Command } from 'commander'
import { withDatabase } from '../database.ts'
import { count } from '../format.ts'
import { examples, integer } from '../options.ts'
import { print, printJson } from '../terminal.ts'

/** Rows of one batch: a transaction of some tens of milliseconds, which nobody has to wait for. */
const batchRows = 1000

/** `askonce sweep`. */
export function addSweep(program: Command): void {
  program
    .command('sweep')
    .summary('delete what has expired, once')
    .description(
      'Deletes expired answers, ledger rows and decisions beyond their retention and workers long dead, in bounded batches until\n' +
        'nothing is left, directly in the database. The janitor does the same all the time; this is for cron instead.',
    )
    .option('--max-batches <n>', 'stop after so many batches', integer(1))
    .option('--json', 'print JSON')
    .addHelpText('after', examples(['askonce sweep', '*/10 * * * *  askonce sweep --max-batches 200']))
    .action(sweep)
}

async function sweep({ maxBatches, json }: { maxBatches?: number; json?: boolean }): Promise<void> {
  await withDatabase(async ({ db }, { limits }) => {
    const { sweepAttempts, sweepDecisions, sweepExpired, sweepWorkers } = await import('@askonce/store')
    let left = maxBatches ?? Number.POSITIVE_INFINITY
    const drain = async (batch: () => Promise<number>): Promise<number> => {
      let swept = 0
      for (; left > 0; left -= 1) {
        const rows = await batch()
        swept += rows
        // Short of a full batch: what is left expired since, or is held by another sweeper.
        if (rows < batchRows) break
      }
      return swept
    }
    const jobs = await drain(() => sweepExpired(db, batchRows))
    const retentionSeconds = Math.floor(limits.ledgerRetentionMs / 1000)
    const attempts = await drain(() => sweepAttempts(db, retentionSeconds, batchRows))
    const decisions = await drain(() => sweepDecisions(db, retentionSeconds, batchRows))
    const workers = left > 0 ? await sweepWorkers(db) : 0
    const done = left > 0
    if (json) return printJson({ jobs, attempts, decisions, workers, done })
    const rest = done ? '' : '; there is more (--max-batches reached)'
    const rows = [count(jobs, 'job'), count(attempts, 'ledger row'), count(decisions, 'decision')]
    print(`swept ${rows.join(', ')}, ${count(workers, 'dead worker')}${rest}`)
  })
}
