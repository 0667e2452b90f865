import { isSettled, JsonError, operations, parseJson, parseKeyText, uncertainPolicies } from '@askonce/core'
import { type Command, Option } from 'commander'
import { awaitJob, maxWaitSeconds, parseShown } from '../await-job.ts'
import { usageError } from '../errors.ts'
import { concludeJob, showJob } from '../job-view.ts'
import { examples, integer, maxTimeoutSeconds, maxTtlSeconds, pair, period } from '../options.ts'
import { readText } from '../read-text.ts'
import { withClient } from '../server.ts'

interface Options {
  operation: string
  request?: string
  model?: string
  prompt?: string
  system?: string
  wait: number
  priority?: number
  ttl?: number
  onUncertain?: string
  maxPaidAttempts?: number
  timeout?: number
  metadata?: Record<string, string>
  json?: boolean
}

/** `askonce submit`. */
export function addSubmit(program: Command): void {
  program
    .command('submit')
    .summary('submit one request under a key')
    .description(
      'Submits one request under a key. The same key again gets the stored answer, or joins the running job.',
    )
    .argument('<key>', 'names the one answer you want')
    .addOption(
      new Option('-o, --operation <name>', 'provider operation').choices(operations).default('chat.completions'),
    )
    .option('-r, --request <file>', "the provider's own request body: a file, - for stdin, or the JSON itself")
    .option('-m, --model <name>', 'with --prompt: the model, for instance simulated/small')
    .option('-p, --prompt <text>', 'shorthand for a chat request with one user message; - reads it from stdin')
    .option('-s, --system <text>', 'with --prompt: the system message')
    .option('-w, --wait <seconds>', 'wait for the answer so long', integer(0), 0)
    .option('--priority <n>', '0 first, 9 last', integer(0, 9))
    .option('--ttl <time>', 'how long the answer is kept, in seconds or as 12h, 7d', period(maxTtlSeconds))
    .addOption(
      new Option('--on-uncertain <policy>', 'after a call that may have been billed').choices(uncertainPolicies),
    )
    .option('--max-paid-attempts <n>', 'most calls that may have been billed', integer(1, 10))
    .option('--timeout <time>', 'how long one call may take, in seconds or as 90s, 15m', period(maxTimeoutSeconds))
    .option('--metadata <name=value>', 'a note on the job; may be repeated', pair)
    .option('--json', 'print the job as JSON')
    .addHelpText(
      'after',
      examples([
        "askonce submit tour/mars -m simulated/small -p 'Why is the sunset blue on Mars?' --wait 30",
        'askonce submit invoice/17 --request request.json --on-uncertain hold',
        'askonce submit faq/1 -o embeddings -r \'{"model":"simulated/small","input":"Where is my parcel?"}\'',
      ]),
    )
    .action(submit)
}

async function submit(key: string, options: Options): Promise<void> {
  const parsed = parseKeyText(key)
  if (!parsed.ok) throw usageError(parsed.detail)
  const body = bodyOf(await requestText(options), options)
  await withClient(async (client) => {
    const wait = Math.min(options.wait, maxWaitSeconds)
    const { bytes } = await client.send({
      method: 'POST',
      path: '/v1/jobs',
      body,
      headers: { 'idempotency-key': key, ...(wait > 0 ? { prefer: `wait=${wait}` } : {}) },
      waitSeconds: wait,
    })
    const first = parseShown(bytes)
    const left = options.wait - wait
    const shown = isSettled(first.job.state) || left === 0 ? first : await awaitJob(client, first.job.id, left)
    showJob(shown, shown.text, options.json === true)
    process.exitCode = concludeJob({ ...shown.job, replayed: first.job.replayed === true }, options.wait > 0)
  })
}

/** The request as JSON text, sent as it was written: numbers keep their digits. */
async function requestText({ request, prompt, model, system }: Options): Promise<string> {
  if ((request === undefined) === (prompt === undefined)) {
    throw usageError('give the request either as --prompt with --model, or as --request')
  }
  if (request === undefined) {
    if (model === undefined) {
      throw usageError('--prompt needs --model', 'For a try without any provider: --model simulated/small')
    }
    const content = prompt === '-' ? await readText('-') : prompt
    const messages = [...(system === undefined ? [] : [{ role: 'system', content: system }]), { role: 'user', content }]
    return JSON.stringify({ model, messages })
  }
  if (model !== undefined || system !== undefined)
    throw usageError('--model and --system go with --prompt, not --request')
  const inline = request.trimStart().startsWith('{')
  const text = inline ? request : await readText(request)
  try {
    parseJson(text)
  } catch (error) {
    if (!(error instanceof JsonError)) throw error
    const where = inline ? 'the request' : request === '-' ? 'stdin' : request
    throw usageError(
      `${where} is not JSON that can be sent: ${error.message}${error.pointer && `, at ${error.pointer}`}`,
    )
  }
  return text
}

function bodyOf(request: string, options: Options): string {
  const rest = JSON.stringify({
    operation: options.operation,
    priority: options.priority,
    ttl_seconds: options.ttl,
    timeout_seconds: options.timeout,
    on_uncertain: options.onUncertain,
    max_paid_attempts: options.maxPaidAttempts,
    metadata: options.metadata,
  })
  return `${rest.slice(0, -1)},"request":${request}}`
}
