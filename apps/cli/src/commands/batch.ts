import { uncertainPolicies } from '@askonce/core'
import { type Command, Option } from 'commander'
import type { BatchOptions } from '../batch/run.ts'
import { examples, integer, maxTtlSeconds, pair, period } from '../options.ts'

const notes = `
Input, one JSON object a line, any mixture of:
  {"key"?, "operation", "request", …options}      as POST /v1/jobs takes it
  {"custom_id", "method", "url", "body"}          a line of an OpenAI batch
  {"prompt", "model"?, "system"?, "key"?}         a chat request
A line without "key" or "custom_id" gets its key from its content: equal lines share one job and one payment.
A line may say priority, on_uncertain, max_paid_attempts, ttl_seconds, metadata … itself; the options of the command hold
for lines that do not. Metadata of both come together.
Every line is checked before the first one is sent.

Output, one JSON object a line: index (line of the input, from 0), key, custom_id, fingerprint, id, state, and response
(what the provider sent) or error. A file ends in the order of the input; while the batch runs, and with --out -,
answers stand in the order in which they come.

Run the same command again after an interruption or a failure: what has an answer is kept, the rest is asked again
where that cannot be charged twice. Exit code 1 says that some lines have no answer.
`

/** `askonce batch`. */
export function addBatch(program: Command): void {
  program
    .command('batch')
    .summary('ask a file of requests; stop and resume at any time')
    .description(
      'Asks every line of a JSON Lines file and writes the answers. Can be killed at any moment and run again.',
    )
    .argument('<file>', 'requests in JSON Lines; - reads stdin')
    .requiredOption('-o, --out <file>', 'where the answers go; - writes stdout')
    .option('-m, --model <name>', 'model of {"prompt"} lines that name none')
    .option(
      '--in-flight <n>',
      'most lines submitted and unanswered: these go on, and cost, when you stop',
      integer(1),
      1000,
    )
    .option('--patience <seconds>', 'wait so long for a server that is not there, or went away', integer(0), 600)
    .addOption(
      new Option('--on-uncertain <policy>', 'after a call that may have been billed').choices(uncertainPolicies),
    )
    .option('--max-paid-attempts <n>', 'most calls of a line that may have been billed', integer(1, 10))
    .option('--ttl <time>', 'how long the answers are kept, in seconds or as 12h, 7d', period(maxTtlSeconds))
    .option('--priority <n>', '0 first, 9 last', integer(0, 9))
    .option('--metadata <name=value>', 'a note on every job; may be repeated', pair)
    .option('-q, --quiet', 'no progress and no summary')
    .option('--json', 'print the summary as JSON (to stderr with --out -)')
    .addHelpText(
      'after',
      notes +
        examples([
          'askonce batch prompts.jsonl --out answers.jsonl',
          'askonce batch prompts.jsonl -o answers.jsonl --on-uncertain hold --priority 9 --metadata run=2026-11',
          'askonce batch questions.jsonl -m simulated/small -o answers.jsonl --json',
          "zcat big.jsonl.gz | askonce batch - -o - | jq -r '.response.choices[0].message.content'",
        ]),
    )
    .action(async (file: string, options: BatchOptions) => {
      const { runBatch } = await import('../batch/run.ts')
      await runBatch(file, options)
    })
}
