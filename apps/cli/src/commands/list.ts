import { jobStates } from '@askonce/core'
import { type Command, Option } from 'commander'
import { usageError } from '../errors.ts'
import { count, relative } from '../format.ts'
import type { Client } from '../http.ts'
import type { Job } from '../job.ts'
import { stateStyle } from '../job-view.ts'
import { examples, integer } from '../options.ts'
import { withClient } from '../server.ts'
import { table } from '../table.ts'
import { print, printJson, remark } from '../terminal.ts'

interface Options {
  state?: string
  uncertain?: boolean
  key?: string
  limit: number
  all?: boolean
  json?: boolean
}

interface Page {
  data: Job[]
  has_more: boolean
  next_cursor: string | null
}

const pageSize = 100

/** `askonce list`. */
export function addList(program: Command): void {
  program
    .command('list')
    .summary('list jobs, newest first')
    .description('Lists the jobs of your tenant, newest first.')
    .addOption(new Option('-s, --state <state>', 'only jobs in this state').choices(jobStates))
    .option('-u, --uncertain', 'only jobs held for a decision (--state uncertain)')
    .option('-k, --key <key>', 'only the job with this key')
    .option('-n, --limit <n>', 'at most so many', integer(1), 20)
    .option('-a, --all', 'all of them')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      examples([
        'askonce list --uncertain',
        'askonce list --state failed --limit 100',
        "askonce list --uncertain --all --json | jq -r '.data[].id' | xargs askonce fail",
      ]),
    )
    .action(list)
}

async function list(options: Options): Promise<void> {
  if (options.uncertain && options.state !== undefined && options.state !== 'uncertain') {
    throw usageError('--uncertain and --state exclude each other')
  }
  const state = options.uncertain ? 'uncertain' : options.state
  const limit = options.all ? Number.POSITIVE_INFINITY : options.limit
  await withClient(async (client) => {
    const { jobs, more } = await readPages(client, { state, key: options.key }, limit)
    if (options.json) return printJson({ object: 'list', data: jobs, has_more: more })
    if (jobs.length === 0) return remark('No job matches.')
    print(jobTable(jobs))
    remark(totals(jobs, more))
  })
}

async function readPages(
  client: Client,
  filter: Record<string, string | undefined>,
  limit: number,
): Promise<{ jobs: Job[]; more: boolean }> {
  const jobs: Job[] = []
  let cursor: string | null = null
  for (;;) {
    const query = new URLSearchParams({ limit: String(Math.min(pageSize, limit - jobs.length)) })
    for (const [name, value] of Object.entries(filter)) if (value !== undefined) query.set(name, value)
    if (cursor !== null) query.set('cursor', cursor)
    const page: Page = await client.json<Page>({ method: 'GET', path: `/v1/jobs?${query.toString()}` })
    jobs.push(...page.data)
    cursor = page.next_cursor
    if (!page.has_more || cursor === null || jobs.length >= limit) return { jobs, more: page.has_more }
  }
}

function jobTable(jobs: readonly Job[]): string {
  return table<Job>(
    [
      { title: 'ID', value: ({ id }) => id },
      { title: 'STATE', value: ({ state }) => state, style: ({ state }) => stateStyle(state) },
      { title: 'PAID', value: ({ usage }) => paidOf(usage), right: true },
      { title: 'CREATED', value: ({ created_at: created }) => relative(created) },
      { title: 'EXPIRES', value: ({ expires_at: expires }) => relative(expires) },
      { title: 'ERROR', value: ({ error }) => error?.code ?? '-' },
      { title: 'KEY', value: ({ key }) => key, shrinks: true },
    ],
    jobs,
  )
}

function paidOf({ paid_attempts: paid, maybe_paid_attempts: maybe }: Job['usage']): string {
  return maybe > 0 ? `${paid} (${maybe}?)` : String(paid)
}

function totals(jobs: readonly Job[], more: boolean): string {
  const byState = jobStates.map((state) => [state, jobs.filter((job) => job.state === state).length] as const)
  const parts = byState.filter(([, amount]) => amount > 0).map(([state, amount]) => `${amount} ${state}`)
  return `${count(jobs.length, 'job')}: ${parts.join(', ')}${more ? '. There are more: --limit N or --all' : ''}`
}
