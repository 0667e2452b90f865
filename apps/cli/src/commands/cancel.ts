import type { Command } from 'commander'
import { changeJobs } from '../change-jobs.ts'
import { examples } from '../options.ts'

/** `askonce cancel`. */
export function addCancel(program: Command): void {
  program
    .command('cancel')
    .summary('cancel jobs that have not ended')
    .description('Cancels jobs that have not ended. A call that is under way is aborted; it may still be billed.')
    .argument('<id...>', 'ids of the jobs')
    .option('--json', 'print JSON')
    .addHelpText('after', examples(['askonce cancel 0199c0de-0000-7000-8000-000000000000']))
    .action(async (ids: string[], { json = false }: { json?: boolean }) => changeJobs(ids, 'cancel', {}, json))
}
