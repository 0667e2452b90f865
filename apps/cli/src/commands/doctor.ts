import type { Command } from 'commander'
import { examples } from '../options.ts'

/** `askonce doctor`. */
export function addDoctor(program: Command): void {
  program
    .command('doctor')
    .summary('check everything and say what to do')
    .description(
      'Checks the machine, the configuration, database, Redis, API, providers, workers and lanes, and says what to do.\n' +
        'Changes nothing, and asks a provider for nothing that costs. Exit code 1 when there is a problem.',
    )
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      examples(['askonce doctor', 'askonce doctor --json | jq -r \'.checks[] | select(.status != "ok")\'']),
    )
    .action(async ({ json = false }: { json?: boolean }) => {
      const { runDoctor } = await import('../doctor/run.ts')
      await runDoctor(json)
    })
}
