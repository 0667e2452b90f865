import type { Command } from 'commander'
import { changeJobs } from '../change-jobs.ts'
import { addDecisionOptions, type DecisionOptions } from '../job-choice.ts'
import { examples } from '../options.ts'

/** `askonce cancel`. */
export function addCancel(program: Command): void {
  const command = program
    .command('cancel')
    .summary('cancel jobs that have not ended')
    .description('Cancels jobs that have not ended. A call that is under way is aborted; it may still be billed.')
  addDecisionOptions(command, 'cancel')
    .addHelpText(
      'after',
      examples([
        'askonce cancel tour/mars',
        "askonce cancel --state queued --metadata run=7 --reason 'wrong prompt'",
        'askonce cancel --older-than 12h --dry-run',
      ]),
    )
    .action(async (named: string[], options: DecisionOptions) => changeJobs('cancel', named, options))
}
