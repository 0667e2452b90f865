import type { Command } from 'commander'
import { awaitJob, type ShownJob } from '../await-job.ts'
import { CliError, exitCodes, usageError } from '../errors.ts'
import { dollars, relative } from '../format.ts'
import type { Client } from '../http.ts'
import type { Job } from '../job.ts'
import { concludeJob, showJob } from '../job-view.ts'
import { examples, integer } from '../options.ts'
import { withClient } from '../server.ts'
import { table } from '../table.ts'
import { print, printJson } from '../terminal.ts'

interface Options {
  key?: string
  wait: number
  response?: boolean
  attempts?: boolean
  json?: boolean
}

interface Attempt {
  attempt: number
  generation: number
  outcome: string | null
  billing: string | null
  provider: string
  model: string
  provider_status: number | null
  error_code: string | null
  started_at: string
  input_tokens: number | null
  output_tokens: number | null
  cost_usd: number | null
}

/** `askonce get`. */
export function addGet(program: Command): void {
  program
    .command('get')
    .summary('show a job, its answer, or its ledger')
    .description('Shows one job with its answer, named by its id or by its key.')
    .argument('[id]', 'id of the job')
    .option('-k, --key <key>', 'find it by its key instead')
    .option('-w, --wait <seconds>', 'wait for the answer so long', integer(0), 0)
    .option('--response', "print the provider's answer alone, byte for byte", false)
    .option('--attempts', 'print the ledger: every call that was or may have been paid')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      examples([
        'askonce get --key tour/mars',
        'askonce get 0199c0de-0000-7000-8000-000000000000 --wait 60 --json',
        'askonce get --key tour/mars --response > answer.json',
      ]),
    )
    .action(get)
}

async function get(id: string | undefined, options: Options): Promise<void> {
  if ((id === undefined) === (options.key === undefined)) throw usageError('name the job by its id or by --key')
  if (options.response && options.attempts) throw usageError('--response and --attempts exclude each other')
  await withClient(async (client) => {
    const found = id ?? (await idOf(client, options.key ?? ''))
    const path = `/v1/jobs/${encodeURIComponent(found)}`
    if (options.attempts)
      return showAttempts(await client.json({ method: 'GET', path: `${path}/attempts` }), options.json === true)
    const shown = await awaitJob(client, found, options.wait)
    if (options.response) return await printResponse(client, path, shown)
    showJob(shown, shown.text, options.json === true)
    process.exitCode = concludeJob(shown.job, options.wait > 0)
  })
}

async function idOf(client: Client, key: string): Promise<string> {
  const path = `/v1/jobs?key=${encodeURIComponent(key)}`
  const { data } = await client.json<{ data: Pick<Job, 'id'>[] }>({ method: 'GET', path })
  if (data[0] === undefined) throw new CliError(exitCodes.failed, `no job has the key ${key}`)
  return data[0].id
}

async function printResponse(client: Client, path: string, { job }: ShownJob): Promise<void> {
  if (job.state !== 'succeeded') {
    throw new CliError(
      exitCodes.failed,
      `there is no answer: the job is ${job.state}`,
      `askonce get ${job.id} says more.`,
    )
  }
  const { bytes } = await client.send({ method: 'GET', path: `${path}/response` })
  process.stdout.write(bytes)
}

function showAttempts(list: { data: Attempt[] }, asJson: boolean): void {
  if (asJson) return printJson(list)
  if (list.data.length === 0) return print('No attempt yet.')
  print(
    table<Attempt>(
      [
        { title: '#', value: ({ attempt }) => String(attempt), right: true },
        { title: 'RUN', value: ({ generation }) => String(generation), right: true },
        { title: 'OUTCOME', value: ({ outcome }) => outcome ?? 'open' },
        { title: 'BILLING', value: ({ billing }) => billing ?? 'open', style: billingStyle },
        { title: 'PROVIDER', value: ({ provider }) => provider },
        { title: 'STATUS', value: ({ provider_status: status }) => String(status ?? '-'), right: true },
        { title: 'TOKENS', value: ({ input_tokens: i, output_tokens: o }) => `${i ?? '-'}/${o ?? '-'}`, right: true },
        { title: 'COST', value: ({ cost_usd: cost }) => (cost === null ? '-' : dollars(cost)), right: true },
        { title: 'STARTED', value: ({ started_at: started }) => relative(started) },
        { title: 'ERROR', value: ({ error_code: code }) => code ?? '-', shrinks: true },
      ],
      list.data,
    ),
  )
}

function billingStyle({ billing }: Attempt): 'yellow' | null {
  return billing === 'maybe' ? 'yellow' : null
}
