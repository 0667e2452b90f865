import type { Billing, JobState, OnUncertain } from './job.ts'
import { mayRun, mayRunUnasked, type MoneyColumns } from './predicates.ts'

/** What the end of an attempt asks of its job. `ERRORS.md` maps a provider's answer to it. */
export const endActions = ['answer', 'unstorable', 'stop', 'rerun', 'unknown'] as const
export type EndAction = (typeof endActions)[number]

/** The columns of a job that decide what the end of one of its attempts does. */
export interface DecisionColumns extends MoneyColumns {
  state: JobState
  /** Number of the newest attempt: the fence. */
  attempt: number
  tries: number
  maxAttempts: number
  generation: number
  expired: boolean
  overdue: boolean
}

export interface AttemptEnd {
  attempt: number
  /** Generation in which the attempt was claimed. */
  generation: number
  action: EndAction
  billing: Billing
  /** Pauses, alarms and unsent attempts give their try back. */
  uncounted: boolean
}

export interface Decision {
  /** State that the job moves to; null: only the ledger and the counts change. */
  next: JobState | null
  owned: boolean
  paid: number
  tries: number
  /** A rerun that the deadline forbids fails with `deadline_exceeded`. */
  deadlineExceeded: boolean
}

/**
 * What the end of an attempt does to its job. The twin of the `decided` step of the statement in
 * `packages/store/src/statements/end-attempts.ts`; a test compares the two over every combination of columns.
 * Expects an attempt that is open or `maybe`: the ends of others change nothing.
 */
export function decideEnd(job: DecisionColumns, end: AttemptEnd): Decision {
  const owned = job.state === 'running' && job.attempt === end.attempt
  const paid = job.paid - (end.billing === 'none' ? 1 : 0)
  const tries = job.tries - (end.uncounted && end.generation === job.generation ? 1 : 0)
  const after = { ...job, paid, tries }
  const decision = (next: JobState | null, deadlineExceeded = false): Decision => ({
    next,
    owned,
    paid,
    tries,
    deadlineExceeded,
  })

  if (end.action === 'answer') {
    const adoptable = job.state !== 'succeeded' && job.state !== 'cancelled' && !job.expired
    return decision(adoptable ? 'succeeded' : null)
  }
  if (!owned) {
    const released = job.state === 'uncertain' && end.billing === 'none' && !job.overdue
    return decision(released && mayRunUnasked(after) && tries < job.maxAttempts ? 'queued' : null)
  }
  switch (end.action) {
    case 'unstorable':
      return decision('uncertain')
    case 'stop':
      return decision('failed')
    case 'rerun':
      if (job.overdue) return decision('failed', true)
      if (tries >= job.maxAttempts) return decision('failed')
      return decision(mayRun(after) ? 'queued' : 'uncertain')
    case 'unknown':
      return decision(afterUnknown(after, job.onUncertain))
  }
}

function afterUnknown(after: DecisionColumns, policy: OnUncertain): JobState {
  if (policy === 'fail') return 'failed'
  const again = policy === 'rerun' && !after.overdue && after.tries < after.maxAttempts && mayRun(after)
  return again ? 'queued' : 'uncertain'
}
