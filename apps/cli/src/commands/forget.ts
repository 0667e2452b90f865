import type { Command } from 'commander'
import { ask, report, resolved, type Outcome } from '../change-jobs.ts'
import { exitCodes } from '../errors.ts'
import { count } from '../format.ts'
import type { Client } from '../http.ts'
import { addDecisionOptions, readChoice, type DecisionOptions, type JobChoice } from '../job-choice.ts'
import { examples } from '../options.ts'
import { withClient } from '../server.ts'
import { printJson, remark } from '../terminal.ts'

interface Options extends DecisionOptions {
  acceptDuplicateCharge?: boolean
  ledger?: boolean
}

/** Jobs whose rows of the ledger are erased by one request. */
const idsAtOnce = 10_000
/** A filter may have to look through a whole ledger. */
const eraseWaitSeconds = 120

/** `askonce forget`. */
export function addForget(program: Command): void {
  const command = program
    .command('forget')
    .summary('delete jobs that have ended, with their answers')
    .description(
      'Deletes jobs that have ended: their requests and answers, also in the results of batches. Their keys are free then.\n' +
        'The ledger stays, without prompts and answers; --ledger takes keys and metadata out of it, too.',
    )
    .option(
      '--accept-duplicate-charge',
      'also jobs without an answer that may have been paid: their keys can be paid again',
    )
    .option('--ledger', 'also erase keys, metadata and reasons from the ledger and the decisions; sums stay')
  addDecisionOptions(command, 'delete')
    .addHelpText(
      'after',
      examples([
        'askonce forget --metadata customer=17 --dry-run',
        "askonce forget --metadata customer=17 --ledger --reason 'asked on 3 March'",
        'askonce forget --key-prefix nightly/2026-03-01/',
        'askonce forget tour/mars',
      ]),
    )
    .action(forget)
}

async function forget(named: string[], options: Options): Promise<void> {
  const { acceptDuplicateCharge: consent = false, ledger = false, dryRun = false, reason, json = false } = options
  const choice = await readChoice(named, options, 'delete')
  await withClient(async (client) => {
    const chosen = await resolved(client, choice)
    const body = { accept_duplicate_charge: consent, dry_run: dryRun, ...(reason === undefined ? {} : { reason }) }
    const outcomes: Outcome[] = []
    for await (const outcome of ask(client, 'delete', chosen, body)) {
      outcomes.push(outcome)
      if (!json && !(dryRun && 'state' in outcome)) report(outcome)
    }
    const good = outcomes.filter((outcome) => 'state' in outcome)
    const refused = outcomes.length - good.length
    const erased =
      ledger && !dryRun
        ? await erase(
            client,
            choice,
            good.map(({ id }) => id),
          )
        : null
    if (refused > 0) process.exitCode = exitCodes.failed
    if (json) {
      const rows = erased === null ? {} : { erased }
      return printJson({ object: 'list', data: outcomes, ...(dryRun ? { dry_run: true } : {}), ...rows })
    }
    const not = refused === 0 ? '' : `, ${refused} not`
    remark(`${count(good.length, 'job')} ${dryRun ? 'would be forgotten' : 'forgotten'}${not}`)
    if (erased !== null) remark(`${count(erased, 'row')} of the ledger erased`)
    if (dryRun) remark('Nothing was changed.')
  })
}

/** By the ids that were forgotten now, and by what was named, or the filter: what those find may have been gone for long. */
async function erase(client: Client, choice: JobChoice, forgotten: readonly string[]): Promise<number> {
  const names = 'names' in choice ? choice.names : forgotten.map((id) => ({ id }))
  const ids = [...new Set(names.flatMap((name) => ('id' in name ? [name.id] : [])))]
  const keys = new Set(names.flatMap((name) => ('key' in name ? [name.key] : [])))
  let erased = 0
  for (const key of keys) erased += await eraseAll(client, { filter: { key } })
  for (let start = 0; start < ids.length; start += idsAtOnce) {
    erased += await eraseAll(client, { ids: ids.slice(start, start + idsAtOnce) })
  }
  if ('names' in choice) return erased
  const { state: _state, ...filter } = choice.filter
  // A state says nothing of what is gone: with nothing else, all of the ledger would be meant.
  return Object.keys(filter).length === 0 ? erased : erased + (await eraseAll(client, { filter }))
}

async function eraseAll(client: Client, which: object): Promise<number> {
  for (let erased = 0; ;) {
    const answer = await client.json<{ erased: number; has_more: boolean }>({
      method: 'POST',
      path: '/v1/attempts/erase',
      body: JSON.stringify(which),
      waitSeconds: eraseWaitSeconds,
      repeatable: true,
    })
    erased += answer.erased
    if (!answer.has_more) return erased
  }
}
