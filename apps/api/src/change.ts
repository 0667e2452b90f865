import { isTerminal, jobError, terminalStates, type DecisionAction, type JobState } from '@askonce/core'
import {
  cancelJobs,
  deleteJobs,
  failJobs,
  forgetCopies,
  retryContention,
  retryJobs,
  type ChangeOutcome,
  type Db,
  type DecisionRequest,
} from '@askonce/store'
import type { ItemOutcome } from './bulk-outcomes.ts'
import type { Parts } from './context.ts'
import { jobJson } from './job-view.ts'
import { patiently } from './patience.ts'
import { Problem } from './problem.ts'
import { isJobId, type Caller } from './route.ts'

/** What came with the request, for all of its jobs. */
export interface Asked {
  caller: Pick<Caller, 'tenantId' | 'key'>
  /** Whether one more payment is accepted. */
  consent: boolean
  /** Why, for whoever reads the decision later. */
  reason: string | null
  /** Only if the job is still in this generation. */
  generation: number | null
  /** Says what would become of the jobs, and changes nothing; only for deletions. */
  rehearsal?: boolean
}

/** One thing that a person can ask of jobs that exist. */
export interface Change {
  name: DecisionAction
  /** States in which it can be asked. */
  from: readonly JobState[]
  /** Jobs of one statement. */
  atOnce: number
  /** What has happened to a job that was changed, for those who wait for such news. */
  news: 'settled' | 'due'
  run: (db: Db, request: DecisionRequest, how: How) => Promise<Outcome[]>
}

/** How a change is made. */
interface How {
  consent: boolean
  uncertainTtlSeconds: number
  /** Nothing is changed; only for deletions. */
  rehearsal: boolean
}

interface Outcome extends Omit<ChangeOutcome, 'changed'> {
  changed: ChangeOutcome['changed'] | 'deleted' | 'would be deleted'
}

const decidedError = JSON.stringify(jobError('failed_on_request'))

const manyAtOnce = 500

export const changes = {
  retry: {
    name: 'retry',
    from: ['failed', 'cancelled', 'uncertain'],
    atOnce: manyAtOnce,
    news: 'due',
    run: (db, request, { consent }) => retryJobs(db, request, consent),
  },
  cancel: {
    name: 'cancel',
    from: ['queued', 'running', 'uncertain'],
    atOnce: manyAtOnce,
    news: 'settled',
    run: (db, request, { uncertainTtlSeconds }) => cancelJobs(db, request, uncertainTtlSeconds),
  },
  fail: {
    name: 'fail',
    from: ['uncertain'],
    atOnce: manyAtOnce,
    news: 'settled',
    run: (db, request, { uncertainTtlSeconds }) => failJobs(db, request, decidedError, uncertainTtlSeconds),
  },
  delete: {
    name: 'delete',
    from: terminalStates,
    // With their bodies: of ten megabytes each, five hundred take longer than a statement may.
    atOnce: 50,
    news: 'settled',
    run: async (db, request, { consent, rehearsal }) => {
      const outcomes = await deleteJobs(db, request, consent, rehearsal)
      const changed = rehearsal ? ('would be deleted' as const) : ('deleted' as const)
      return outcomes.map(({ allowed, ...rest }) => Object.assign(rest, { changed: allowed ? changed : null }))
    },
  },
} as const satisfies Record<string, Change>

const consentDetails = {
  retry:
    'An earlier attempt was billed, or may have been. Send {"accept_duplicate_charge": true} to run the job again all the same.',
  delete:
    'The job was billed, or may have been, and has no answer: once it is deleted its key can be paid for again. Send accept_duplicate_charge=true to delete it all the same.',
}

/** Unknown, expired, deleted and other tenants' jobs all look like this. */
export function noSuchJob(): Problem {
  return new Problem('not_found', 'There is no job with this id, or it has expired.', { param: 'id' })
}

/** Changes jobs by id; one outcome for each, in order. Ids that are not ours are `not_found`, like unknown ones. */
export async function changeJobs(
  parts: Parts,
  change: Change,
  ids: readonly string[],
  asked: Asked,
): Promise<ItemOutcome[]> {
  const { caller, consent, reason, generation, rehearsal = false } = asked
  const uncertainTtlSeconds = Math.floor(parts.config.limits.uncertainTtlMs / 1000)
  const possible = [...new Set(ids.filter(isJobId))]
  const request = { tenantId: caller.tenantId, ids: possible, by: caller.key, reason, generation }
  const how = { consent, uncertainTtlSeconds, rehearsal }
  const run = (): Promise<Outcome[]> => change.run(parts.db, request, how)
  const found = possible.length === 0 ? [] : await patiently(retryContention(run))
  const changed = found.filter((outcome) => outcome.changed !== null && !rehearsal)
  if (change.name === 'delete') await forget(parts, changed)
  announce(parts, change, changed)
  const items = await Promise.all(
    found.map(async (outcome) => [outcome.id, await toItem(parts, change, outcome, generation)] as const),
  )
  const outcomes = new Map(items)
  return ids.map((id) => outcomes.get(id) ?? refused(noSuchJob()))
}

/** Removes what was copied of answers into results of batches. When it cannot be done now, the janitor does it. */
async function forget(parts: Parts, deleted: readonly Outcome[]): Promise<void> {
  const ids = deleted.map(({ id }) => id)
  if (ids.length > 0) await patiently(forgetCopies(parts.db, ids)).catch(() => undefined)
}

function announce(parts: Parts, { news }: Change, changed: readonly Outcome[]): void {
  const ids = changed.map(({ id }) => id)
  const lanes = changed.flatMap((outcome) =>
    typeof outcome.changed === 'object' && outcome.changed !== null ? [outcome.changed.lane] : [],
  )
  const interrupted = changed.filter(({ was }) => was === 'running').map(({ id }) => id)
  if (news === 'due') parts.wake([...new Set(lanes)])
  else if (ids.length > 0) parts.announce(news, ids)
  if (interrupted.length > 0) parts.announce('interrupted', interrupted)
}

function refused(problem: Problem): ItemOutcome {
  return { status: problem.status, problem }
}

async function toItem(
  parts: Parts,
  change: Change,
  { id, was, generation, changed, consentRequired }: Outcome,
  wanted: number | null,
): Promise<ItemOutcome> {
  if (typeof changed === 'string') {
    return { status: 200, job: JSON.stringify({ id, object: 'job', deleted: changed === 'deleted' }) }
  }
  if (changed !== null) {
    return { status: isTerminal(changed.state) ? 200 : 202, job: jobJson(changed, await parts.waiting.of(changed)) }
  }
  if (wanted !== null && wanted !== generation) {
    const detail = `The job is ${was} in generation ${generation}, not ${wanted}: it was made to run since.`
    return refused(new Problem('state_conflict', detail, { param: '/generation', state: was }))
  }
  if ((change.name === 'retry' || change.name === 'delete') && consentRequired && change.from.includes(was)) {
    const detail = consentDetails[change.name]
    return refused(new Problem('consent_required', detail, { param: '/accept_duplicate_charge', state: was }))
  }
  const detail = `The job is ${was}; ${change.name} is for jobs that are ${change.from.join(' or ')}.`
  return refused(new Problem('state_conflict', detail, { state: was }))
}
