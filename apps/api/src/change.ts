import { isTerminal, jobError, type JobState } from '@askonce/core'
import { cancelJobs, failJobs, retryContention, retryJobs, type ChangeOutcome, type Db } from '@askonce/store'
import type { ItemOutcome } from './bulk-outcomes.ts'
import type { Parts } from './context.ts'
import { jobJson } from './job-view.ts'
import { patiently } from './patience.ts'
import { Problem } from './problem.ts'
import { isJobId } from './route.ts'

interface ChangeContext {
  tenantId: string
  uncertainTtlSeconds: number
  /** Whether one more payment is accepted. */
  consent: boolean
}

/** One thing that a person can ask of jobs that exist. */
export interface Change {
  name: 'retry' | 'cancel' | 'fail'
  /** States in which it can be asked. */
  from: readonly JobState[]
  /** What has happened to a job that was changed, for those who wait for such news. */
  news: 'settled' | 'due'
  run: (db: Db, ids: readonly string[], context: ChangeContext) => Promise<ChangeOutcome[]>
}

const decidedError = JSON.stringify(jobError('failed_on_request'))

export const changes = {
  retry: {
    name: 'retry',
    from: ['failed', 'cancelled', 'uncertain'],
    news: 'due',
    run: (db, ids, { tenantId, consent }) => retryJobs(db, tenantId, ids, consent),
  },
  cancel: {
    name: 'cancel',
    from: ['queued', 'running', 'uncertain'],
    news: 'settled',
    run: (db, ids, { tenantId, uncertainTtlSeconds }) => cancelJobs(db, tenantId, ids, uncertainTtlSeconds),
  },
  fail: {
    name: 'fail',
    from: ['uncertain'],
    news: 'settled',
    run: (db, ids, { tenantId, uncertainTtlSeconds }) => failJobs(db, tenantId, ids, decidedError, uncertainTtlSeconds),
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
  { tenantId, consent }: Pick<ChangeContext, 'tenantId' | 'consent'>,
): Promise<ItemOutcome[]> {
  const uncertainTtlSeconds = Math.floor(parts.config.limits.uncertainTtlMs / 1000)
  const possible = [...new Set(ids.filter(isJobId))]
  const run = (): Promise<ChangeOutcome[]> => change.run(parts.db, possible, { tenantId, consent, uncertainTtlSeconds })
  const found = possible.length === 0 ? [] : await patiently(retryContention(run))
  const changed = found.flatMap((outcome) => (outcome.changed === null ? [] : [outcome.id]))
  if (changed.length > 0) parts.announce(change.news, changed)
  const outcomes = new Map(found.map((outcome) => [outcome.id, toItem(parts, change, outcome)]))
  return ids.map((id) => outcomes.get(id) ?? refused(noSuchJob()))
}

function refused(problem: Problem): ItemOutcome {
  return { status: problem.status, problem }
}

function toItem(parts: Parts, change: Change, { was, changed, consentRequired }: ChangeOutcome): ItemOutcome {
  if (changed !== null) {
    return { status: isTerminal(changed.state) ? 200 : 202, job: jobJson(changed, parts.lanes) }
  }
  if (change.name === 'retry' && consentRequired && change.from.includes(was)) {
    const detail =
      'An earlier attempt was billed, or may have been. Send {"accept_duplicate_charge": true} to run the job again all the same.'
    return refused(new Problem('consent_required', detail, { param: '/accept_duplicate_charge', state: was }))
  }
  const detail = `The job is ${was}; ${change.name} is for jobs that are ${change.from.join(' or ')}.`
  return refused(new Problem('state_conflict', detail, { state: was }))
}
