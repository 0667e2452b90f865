import type { Command } from 'commander'
import { changeJobs } from '../change-jobs.ts'
import { addDecisionOptions, type DecisionOptions } from '../job-choice.ts'
import { examples } from '../options.ts'

type Options = DecisionOptions & { acceptDuplicateCharge?: boolean }

/** `askonce retry`. */
export function addRetry(program: Command): void {
  const command = program
    .command('retry')
    .summary('run failed, cancelled or held jobs again')
    .description('Runs failed, cancelled or uncertain jobs again. One that may have been paid for needs your consent.')
    .option('--accept-duplicate-charge', 'accept that the provider may charge for one more call')
  addDecisionOptions(command, 'retry')
    .addHelpText(
      'after',
      examples([
        'askonce retry tour/mars',
        "askonce retry --uncertain --accept-duplicate-charge --reason 'not on the invoice'",
        'askonce retry --state failed --metadata run=7',
      ]),
    )
    .action(async (named: string[], { acceptDuplicateCharge, ...options }: Options) =>
      changeJobs('retry', named, options, acceptDuplicateCharge ? { accept_duplicate_charge: true } : {}),
    )
}
