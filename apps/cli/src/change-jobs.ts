import type { DecisionAction } from '@askonce/core'
import { ApiError, exitCodes } from './errors.ts'
import { count } from './format.ts'
import type { Client } from './http.ts'
import type { Job } from './job.ts'
import { decidable, readChoice, type DecisionOptions, type JobFilter, type JobName } from './job-choice.ts'
import { findByKey, jobTable, metadataQuery, readJobs } from './job-list.ts'
import { stateStyle } from './job-view.ts'
import { withClient } from './server.ts'
import { oneLine, paint, print, printJson, remark } from './terminal.ts'

export type Outcome =
  | { id: string; state: Job['state'] | 'deleted' | 'would be deleted' }
  | { id: string; error: { code: string; message: string } }

/** Most ids of one request; with a filter the server hands out as many outcomes at most, and a cursor. */
const batchSize = 10_000
/** Ten thousand jobs in batches of hundreds, each with its own commit. */
const bulkWaitSeconds = 120

/**
 * Decides about jobs, each with its own outcome: one that refuses does not keep the others from it. Exit code 1 when one did.
 * `extra` goes into the body of the request.
 */
export async function changeJobs(
  action: Exclude<DecisionAction, 'delete'>,
  named: readonly string[],
  options: DecisionOptions,
  extra: object = {},
): Promise<void> {
  const choice = await readChoice(named, options, action)
  await withClient(async (client) => {
    const chosen = await resolved(client, choice)
    if (options.dryRun) return await showChosen(client, action, chosen, options.json === true)
    const body = { ...extra, ...(options.reason === undefined ? {} : { reason: options.reason }) }
    const outcomes: Outcome[] = []
    for await (const outcome of ask(client, action, chosen, body)) {
      outcomes.push(outcome)
      if (!options.json) report(outcome)
    }
    if (options.json) printJson({ object: 'list', data: outcomes })
    else conclude(outcomes)
    if (outcomes.some((outcome) => 'error' in outcome)) process.exitCode = exitCodes.failed
  })
}

interface Answer {
  data: Item[]
  next_cursor: string | null
}

interface Item {
  id: string
  status: number
  job?: Job | { id: string; deleted: boolean }
  error?: { code: string; message: string; state?: string }
}

/** Jobs by id, or what a filter finds. */
export type Chosen = { ids: string[]; missing: Outcome[] } | { filter: JobFilter }

/** Keys that are looked up at the same time. */
const atOnce = 8

/** The ids of jobs that are named by key; a key that no job has becomes an outcome of its own. */
export async function resolved(client: Client, choice: { names: JobName[] } | { filter: JobFilter }): Promise<Chosen> {
  if ('filter' in choice) return choice
  const { names } = choice
  const found: (string | null)[] = []
  let next = 0
  const lookUp = async (): Promise<void> => {
    for (let at = next++; at < names.length; at = next++) {
      const name = names[at] as JobName
      found[at] = 'id' in name ? name.id : await findByKey(client, name.key)
    }
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, names.length) }, lookUp))
  const missing = names.flatMap((name, at): Outcome[] => {
    if (found[at] !== null || 'id' in name) return []
    return [{ id: name.key, error: { code: 'not_found', message: 'no job has this key' } }]
  })
  return { ids: [...new Set(found.filter((id) => id !== null))], missing }
}

export async function* ask(
  client: Client,
  action: DecisionAction,
  choice: Chosen,
  body: object,
): AsyncGenerator<Outcome> {
  const post = (which: object): Promise<Answer> =>
    client.json<Answer>({
      method: 'POST',
      path: `/v1/jobs/bulk/${action}`,
      body: JSON.stringify({ ...which, ...body }),
      waitSeconds: bulkWaitSeconds,
      // A second retry would find the jobs queued by the first and be refused: the answer would be misleading.
      repeatable: false,
    })
  if ('ids' in choice) {
    yield* choice.missing
    for (let start = 0; start < choice.ids.length; start += batchSize) {
      const { data } = await post({ ids: choice.ids.slice(start, start + batchSize) })
      yield* data.map(toOutcome)
    }
    return
  }
  for (let cursor: string | null = null; ;) {
    const answer: Answer = await post(cursor === null ? choice : { ...choice, cursor })
    yield* answer.data.map(toOutcome)
    cursor = answer.next_cursor
    if (cursor === null) return
  }
}

function toOutcome({ id, status, job, error }: Item): Outcome {
  if (job !== undefined) return { id, state: 'state' in job ? job.state : job.deleted ? 'deleted' : 'would be deleted' }
  const { code, message } = error ?? { code: 'unknown', message: 'refused without a reason' }
  const refusal = new ApiError(status, code, message)
  return { id, error: { code, message: `${refusal.message}${refusal.hint === null ? '' : `. ${refusal.hint}`}` } }
}

export function report(outcome: Outcome): void {
  if ('error' in outcome) return remark(`${oneLine(outcome.id)}: ${outcome.error.message}`)
  const style = outcome.state === 'deleted' || outcome.state === 'would be deleted' ? null : stateStyle(outcome.state)
  print(`${outcome.id} ${style === null ? outcome.state : paint(process.stdout, style, outcome.state)}`)
}

function conclude(outcomes: readonly Outcome[]): void {
  if (outcomes.length === 0) return remark('No job matches.')
  if (outcomes.length === 1) return
  const refused = outcomes.filter((outcome) => 'error' in outcome).length
  remark(`${count(outcomes.length - refused, 'job')} changed${refused > 0 ? `, ${refused} not` : ''}`)
}

/** What the same command without --dry-run would ask about. Whether a retry needs consent shows only when it is asked. */
async function showChosen(client: Client, action: DecisionAction, choice: Chosen, asJson: boolean): Promise<void> {
  const states = decidable(action)
  const jobs: Job[] = []
  for (const one of 'ids' in choice ? choice.missing : []) if ('error' in one) refuse(one.id, one.error.message)
  for await (const job of 'ids' in choice ? byId(client, choice.ids) : matching(client, states, choice.filter)) {
    if (states.includes(job.state)) jobs.push(job)
    else refuse(job.id, `the job is ${job.state}; ${action} is for jobs that are ${states.join(' or ')}`)
  }
  if (asJson) return printJson({ object: 'list', data: jobs, dry_run: true })
  if (jobs.length > 0) print(jobTable(jobs))
  remark(`${action} would be asked of ${count(jobs.length, 'job')}. Nothing was changed.`)
}

function refuse(id: string, why: string): void {
  remark(`${oneLine(id)}: ${why}`)
  process.exitCode = exitCodes.failed
}

async function* byId(client: Client, ids: readonly string[]): AsyncGenerator<Job> {
  for (const id of ids) {
    try {
      yield await client.json<Job>({ method: 'GET', path: `/v1/jobs/${encodeURIComponent(id)}` })
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 404) throw error
      refuse(id, error.message)
    }
  }
}

/** The server's filter over its list, state by state as the server goes through them. */
async function* matching(client: Client, states: readonly Job['state'][], filter: JobFilter): AsyncGenerator<Job> {
  const { state: only, created_before: before, metadata, key_prefix: prefix } = filter
  const query = { metadata: metadataQuery(metadata), key_prefix: prefix }
  for (const state of only === undefined ? states : [only]) {
    for await (const job of readJobs(client, { ...query, state })) {
      const young = before !== undefined && Date.parse(job.created_at) >= Date.parse(before)
      if (!young) yield job
    }
  }
}
