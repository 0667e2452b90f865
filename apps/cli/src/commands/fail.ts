import type { Command } from 'commander'
import { changeJobs } from '../change-jobs.ts'
import { examples } from '../options.ts'

/** `askonce fail`. */
export function addFail(program: Command): void {
  program
    .command('fail')
    .summary('decide that held jobs have failed')
    .description('Decides that uncertain jobs have failed. An answer that arrives later is stored all the same.')
    .argument('<id...>', 'ids of the jobs')
    .option('--json', 'print JSON')
    .addHelpText('after', examples(['askonce fail 0199c0de-0000-7000-8000-000000000000']))
    .action(async (ids: string[], { json = false }: { json?: boolean }) => changeJobs(ids, 'fail', {}, json))
}
