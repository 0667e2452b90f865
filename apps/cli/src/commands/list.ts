import { jobStates, waitKinds, type WaitKind } from '@askonce/core'
import { type Command, Option } from 'commander'
import { usageError } from '../errors.ts'
import type { Job } from '../job.ts'
import { jobTable, metadataQuery, readJobs, totalsOf } from '../job-list.ts'
import { examples, integer, pair } from '../options.ts'
import { withClient } from '../server.ts'
import { print, printJson, remark } from '../terminal.ts'

interface Options {
  state?: string
  uncertain?: boolean
  key?: string
  keyPrefix?: string
  metadata?: Record<string, string>
  maybe?: boolean
  twice?: boolean
  waitingFor?: WaitKind
  limit: number
  all?: boolean
  json?: boolean
}

/** It lists what is queued, by nothing else. */
const withWaitingFor = new Set(['waitingFor', 'limit', 'all', 'json'])

/** `askonce list`. */
export function addList(program: Command): void {
  program
    .command('list')
    .summary('list jobs, newest first')
    .description('Lists the jobs of your tenant, newest first.')
    .addOption(new Option('-s, --state <state>', 'only jobs in this state').choices(jobStates))
    .option('-u, --uncertain', 'only jobs held for a decision (--state uncertain)')
    .option('-k, --key <key>', 'only the job with this key')
    .option('--key-prefix <text>', 'only jobs whose key begins with this, in the order of keys')
    .option('--metadata <name=value>', 'only jobs with this metadata; repeatable', pair)
    .option('--maybe', 'only jobs that something was called for that may have been billed')
    .option('--twice', 'only jobs that were paid for more than once, or may have been')
    .addOption(new Option('-w, --waiting-for <what>', 'only queued jobs that wait for this').choices(waitKinds))
    .option('-n, --limit <n>', 'at most so many', integer(1), 20)
    .option('-a, --all', 'all of them')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      examples([
        'askonce list --uncertain',
        'askonce list --state failed --limit 100',
        'askonce list --metadata run=7 --all',
        'askonce list --waiting-for budget',
        'askonce list --twice --key-prefix nightly/',
        "askonce list --uncertain --all --json | jq -r '.data[].id' | askonce fail -",
      ]),
    )
    .action(list)
}

async function list(options: Options): Promise<void> {
  if (options.uncertain && options.state !== undefined && options.state !== 'uncertain') {
    throw usageError('--uncertain and --state exclude each other')
  }
  if (options.maybe && options.twice) throw usageError('--maybe and --twice exclude each other')
  const { waitingFor } = options
  if (waitingFor !== undefined && Object.keys(options).some((name) => !withWaitingFor.has(name))) {
    throw usageError('--waiting-for goes with --limit, --all and --json only')
  }
  const paid = options.maybe ? 'maybe' : options.twice ? 'twice' : undefined
  const state = options.uncertain ? 'uncertain' : options.state
  const limit = options.all ? Number.POSITIVE_INFINITY : options.limit
  const { key, keyPrefix, metadata } = options
  const filter = { state, key, key_prefix: keyPrefix, paid, metadata: metadataQuery(metadata), waiting_for: waitingFor }
  await withClient(async (client) => {
    const { jobs, more } = await collect(readJobs(client, filter, limit))
    if (options.json) return printJson({ object: 'list', data: jobs, has_more: more })
    if (jobs.length === 0) return remark('No job matches.')
    print(jobTable(jobs))
    remark(`${totalsOf(jobs)}${more ? '. There are more: --limit N or --all' : ''}`)
  })
}

async function collect(reading: AsyncGenerator<Job, boolean>): Promise<{ jobs: Job[]; more: boolean }> {
  const jobs: Job[] = []
  for (;;) {
    const { value, done } = await reading.next()
    if (done === true) return { jobs, more: value }
    jobs.push(value)
  }
}
