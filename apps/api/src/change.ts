import { isTerminal, jobError, type DecisionAction, type JobState } from '@askonce/core'
import {
  cancelJobs,
  failJobs,
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
}

/** One thing that a person can ask of jobs that exist. */
export interface Change {
  name: DecisionAction
  /** States in which it can be asked. */
  from: readonly JobState[]
  /** What has happened to a job that was changed, for those who wait for such news. */
  news: 'settled' | 'due'
  run: (db: Db, request: DecisionRequest, consent: boolean, uncertainTtlSeconds: number) => Promise<ChangeOutcome[]>
}

const decidedError = JSON.stringify(jobError('failed_on_request'))

export const changes = {
  retry: {
    name: 'retry',
    from: ['failed', 'cancelled', 'uncertain'],
    news: 'due',
    run: (db, request, consent) => retryJobs(db, request, consent),
  },
  cancel: {
    name: 'cancel',
    from: ['queued', 'running', 'uncertain'],
    news: 'settled',
    run: (db, request, _consent, uncertainTtlSeconds) => cancelJobs(db, request, uncertainTtlSeconds),
  },
  fail: {
    name: 'fail',
    from: ['uncertain'],
    news: 'settled',
    run: (db, request, _consent, uncertainTtlSeconds) => failJobs(db, request, decidedError, uncertainTtlSeconds),
  },
} as const satisfies Record<string, Change>

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
  const { caller, consent, reason, generation } = asked
  const uncertainTtlSeconds = Math.floor(parts.config.limits.uncertainTtlMs / 1000)
  const possible = [...new Set(ids.filter(isJobId))]
  const request = { tenantId: caller.tenantId, ids: possible, by: caller.key, reason, generation }
  const run = (): Promise<ChangeOutcome[]> => change.run(parts.db, request, consent, uncertainTtlSeconds)
  const found = possible.length === 0 ? [] : await patiently(retryContention(run))
  announce(
    parts,
    change,
    found.filter(({ changed }) => changed !== null),
  )
  const outcomes = new Map(found.map((outcome) => [outcome.id, toItem(parts, change, outcome, generation)]))
  return ids.map((id) => outcomes.get(id) ?? refused(noSuchJob()))
}

function announce(parts: Parts, { news }: Change, changed: readonly ChangeOutcome[]): void {
  const ids = changed.map(({ id }) => id)
  const interrupted = changed.filter(({ was }) => was === 'running').map(({ id }) => id)
  if (ids.length > 0) parts.announce(news, ids)
  if (interrupted.length > 0) parts.announce('interrupted', interrupted)
}

function refused(problem: Problem): ItemOutcome {
  return { status: problem.status, problem }
}

function toItem(
  parts: Parts,
  change: Change,
  { was, generation, changed, consentRequired }: ChangeOutcome,
  wanted: number | null,
): ItemOutcome {
  if (changed !== null) {
    return { status: isTerminal(changed.state) ? 200 : 202, job: jobJson(changed, parts.lanes) }
  }
  if (wanted !== null && wanted !== generation) {
    const detail = `The job is ${was} in generation ${generation}, not ${wanted}: it was made to run since.`
    return refused(new Problem('state_conflict', detail, { param: '/generation', state: was }))
  }
  if (change.name === 'retry' && consentRequired && change.from.includes(was)) {
    const detail =
      'An earlier attempt was billed, or may have been. Send {"accept_duplicate_charge": true} to run the job again all the same.'
    return refused(new Problem('consent_required', detail, { param: '/accept_duplicate_charge', state: was }))
  }
  const detail = `The job is ${was}; ${change.name} is for jobs that are ${change.from.join(' or ')}.`
  return refused(new Problem('state_conflict', detail, { state: was }))
}
