import type { Command } from 'commander'
import { changeJobs } from '../change-jobs.ts'
import { examples } from '../options.ts'

/** `askonce retry`. */
export function addRetry(program: Command): void {
  program
    .command('retry')
    .summary('run failed, cancelled or held jobs again')
    .description('Runs failed, cancelled or uncertain jobs again. One that may have been paid for needs your consent.')
    .argument('<id...>', 'ids of the jobs')
    .option('--accept-duplicate-charge', 'accept that the provider may charge for one more call')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      examples([
        'askonce retry 0199c0de-0000-7000-8000-000000000000',
        "askonce list --uncertain --all --json | jq -r '.data[].id' | xargs askonce retry --accept-duplicate-charge",
      ]),
    )
    .action(async (ids: string[], options: { acceptDuplicateCharge?: boolean; json?: boolean }) =>
      changeJobs(
        ids,
        'retry',
        options.acceptDuplicateCharge ? { accept_duplicate_charge: true } : {},
        options.json === true,
      ),
    )
}
