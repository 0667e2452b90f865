import type { Command } from 'commander'
import { changeJobs } from '../change-jobs.ts'
import { addDecisionOptions, type DecisionOptions } from '../job-choice.ts'
import { examples } from '../options.ts'

/** `askonce fail`. */
export function addFail(program: Command): void {
  const command = program
    .command('fail')
    .summary('decide that held jobs have failed')
    .description('Decides that uncertain jobs have failed. An answer that arrives later is stored all the same.')
  addDecisionOptions(command, 'fail')
    .addHelpText(
      'after',
      examples([
        'askonce fail 0199c0de-0000-7000-8000-000000000000',
        "askonce fail --uncertain --older-than 7d --reason 'nobody waits for them any more'",
        "askonce list --uncertain --all --json | jq -r '.data[].id' | askonce fail -",
      ]),
    )
    .action(async (named: string[], options: DecisionOptions) => changeJobs('fail', named, options))
}
