import type { Command } from 'commander'
import { answerText } from '../answer-text.ts'
import { awaitJob, type ShownJob } from '../await-job.ts'
import { CliError, exitCodes, usageError } from '../errors.ts'
import type { Client } from '../http.ts'
import { jobNamed } from '../job-choice.ts'
import { findByKey } from '../job-list.ts'
import { concludeJob, printText, showJob } from '../job-view.ts'
import { showAttempts, showDecisions, type Ledger } from '../ledger-view.ts'
import { examples, integer } from '../options.ts'
import { withClient } from '../server.ts'
import { streamText } from '../stream-text.ts'
import { print, printable } from '../terminal.ts'

interface Options {
  key?: string
  wait: number
  response?: boolean
  attempts?: boolean
  decisions?: boolean
  json?: boolean
}

/** `askonce get`. */
export function addGet(program: Command): void {
  program
    .command('get')
    .summary('show a job, its answer, its ledger, or who decided about it')
    .description('Shows one job with its answer, named by its id or by its key.')
    .argument('[job]', 'id of the job, or its key')
    .option('-k, --key <key>', 'its key, also where that looks like an id')
    .option('-w, --wait <seconds>', 'wait for the answer so long', integer(0), 0)
    .option('--response', "print the provider's answer alone, byte for byte; of a stream its events", false)
    .option(
      '--attempts',
      'print the ledger: every call that was or may have been paid, and what they cost; by key also of jobs that are gone',
    )
    .option('--decisions', 'print who retried, failed or cancelled it, when and why')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      examples([
        'askonce get tour/mars',
        'askonce get tour/mars --attempts',
        'askonce get 0199c0de-0000-7000-8000-000000000000 --wait 60 --json',
        'askonce get tour/mars --response > answer.json',
      ]),
    )
    .action(get)
}

async function get(named: string | undefined, options: Options): Promise<void> {
  if ((named === undefined) === (options.key === undefined))
    throw usageError('name one job: by its id or its key, or by --key')
  const wanted = (['response', 'attempts', 'decisions'] as const).filter((name) => options[name])
  if (wanted.length > 1) throw usageError(`${wanted.map((name) => `--${name}`).join(' and ')} exclude each other`)
  const name = options.key === undefined ? jobNamed(named ?? '') : { key: options.key }
  await withClient(async (client) => {
    if ('key' in name && options.attempts) return await showKeyLedger(client, name.key, options.json)
    const found = 'id' in name ? name.id : await idOf(client, name.key)
    const path = `/v1/jobs/${encodeURIComponent(found)}`
    if (options.attempts) return await showList(client, `${path}/attempts`, options.json, showAttempts)
    if (options.decisions) return await showList(client, `${path}/decisions`, options.json, showDecisions)
    const shown = await awaitJob(client, found, options.wait)
    if (options.response) return await printResponse(client, path, shown)
    showJob(shown, shown.text, options.json === true)
    if (!options.json) await showStream(client, path, shown)
    process.exitCode = concludeJob(shown.job, options.wait > 0)
  })
}

async function showList(
  client: Client,
  path: string,
  asJson: boolean | undefined,
  show: (list: never) => void,
): Promise<void> {
  const { bytes } = await client.send({ method: 'GET', path })
  printList(bytes.toString('utf8'), asJson, show)
}

function printList(text: string, asJson: boolean | undefined, show: (list: never) => void): void {
  // As it came: its dollars may have more digits than a double holds.
  if (asJson) print(text)
  else show(JSON.parse(text) as never)
}

/** The ledger outlives the job, so a key is asked about by itself: a job that has it now is only the last of those that had it. */
async function showKeyLedger(client: Client, key: string, asJson: boolean | undefined): Promise<void> {
  const path = `/v1/attempts?key=${encodeURIComponent(key)}&limit=200`
  const { bytes } = await client.send({ method: 'GET', path })
  const text = bytes.toString('utf8')
  // Without attempts there may be no such job at all, and that is said.
  if ((JSON.parse(text) as Ledger).data.length === 0) await idOf(client, key)
  printList(text, asJson, showAttempts)
}

async function idOf(client: Client, key: string): Promise<string> {
  const id = await findByKey(client, key)
  if (id === null) throw new CliError(exitCodes.failed, `no job has the key ${key}`)
  return id
}

/** The answer of a streamed job is no JSON, so it is not in the job: what it says, below the job, as of other answers. */
async function showStream(client: Client, path: string, { job, response }: ShownJob): Promise<void> {
  if (job.state !== 'succeeded' || response !== null) return
  const { bytes, headers } = await client.send({ method: 'GET', path: `${path}/response` })
  const isStream = String(headers['content-type']).includes('event-stream')
  printText(printable(isStream ? streamText(bytes) : answerText(bytes.toString('utf8'))))
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
