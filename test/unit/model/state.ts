import {
  decideEnd,
  mayRun,
  mayRunUnasked,
  type AttemptEnd,
  type Billing,
  type Decision,
  type DecisionColumns,
  type EndAction,
  type JobState,
  type OnUncertain,
} from '@askonce/core'

/**
 * Where an attempt is, outside the database.
 * `claimed`: its worker has the reply of the claim. `reply_lost`: it has not, and never will. `sent`: the request has left.
 * `answered` … `not_asked`: the worker has an end in hand that may not be committed yet. `spooled`: the worker is gone, the answer
 * is on disk. `over`: nobody has it any more.
 */
export type Phase =
  | 'claimed'
  | 'reply_lost'
  | 'sent'
  | 'answered'
  | 'unstorable'
  | 'refused'
  | 'rejected'
  | 'broken'
  | 'unsent'
  | 'not_asked'
  | 'spooled'
  | 'over'

export interface Attempt {
  phase: Phase
  generation: number
  /** The ledger row; `absent` is what must never be seen. */
  ledger: 'absent' | 'open' | Billing
  /** Its worker's row is marked dead, rightly or not. */
  ownerDead: boolean
  /** The provider may bill it: it was sent, and was not refused. */
  charged: boolean
  /** Its end gave the try back. */
  uncounted: boolean
}

export interface Job {
  state: JobState
  attempt: number
  generation: number
  tries: number
  paid: number
  consentedPaid: number
  answer: number
  overdue: boolean
  expired: boolean
  /** Cancelled because the one batch that wanted it has ended, not by a person. */
  withBatch: boolean
}

/** One key: its row, its attempts in order, and how often somebody consented. */
export interface World {
  job: Job | null
  attempts: readonly Attempt[]
  consents: number
}

export interface Settings {
  onUncertain: OnUncertain
  maxPaidAttempts: number
  maxAttempts: number
  /** Bounds of the exploration: runs on request, and attempts in all. */
  generations: number
  attempts: number
}

/** The rules under test. The product's own where they are code; the twins of statements where they are SQL. */
export interface Rules {
  decideEnd: (job: DecisionColumns, end: AttemptEnd) => Decision
  mayRun: typeof mayRun
  mayRunUnasked: typeof mayRunUnasked
  /** end-attempts.ts, `recorded`: whether an end may change the ledger row. */
  recordable: (ledger: Attempt['ledger'], billing: Billing, onlyOpen: boolean) => boolean
  /** claim-jobs.ts, `opened`: the attempt row is committed with the claim. */
  claimOpensLedger: boolean
  /** claims.ts: an attempt whose claim got no reply is not sent. */
  sendNeedsReply: boolean
  /** end-attempts.ts, `reclaimAttempts`: null takes the reclaim away. */
  reclaimBilling: Billing | null
  /** run-again.ts, `retryJobs`: what one consent allows. */
  consentedPaid: (paid: number) => number
  /** run-again.ts, `retryJobs`: whether a retry without consent runs. */
  retryUnasked: (job: DecisionColumns) => boolean
  /** run-again.ts, `rerunFailed`: whether a failed key that is submitted again runs. */
  resubmitRuns: (job: DecisionColumns) => boolean
  /** run-again.ts, `rerunFailed`: which jobs it asks that of. */
  resubmittable: (job: Job) => boolean
  /** run-again.ts, `cancelJobs`. */
  cancellable: readonly JobState[]
  /** stored-answers.ts: an answer that the provider has kept is taken for that of the attempt which it names. */
  lookUpFinds: (attempt: Attempt) => boolean
  /** Whether somebody may decide about held jobs: fail, cancel, retry with consent. */
  heldCanBeDecided: boolean
}

export const productRules: Rules = {
  decideEnd,
  mayRun,
  mayRunUnasked,
  recordable: (ledger, billing, onlyOpen) =>
    ledger === 'open' || (ledger === 'maybe' && billing !== 'maybe' && !onlyOpen),
  claimOpensLedger: true,
  sendNeedsReply: true,
  reclaimBilling: 'maybe',
  consentedPaid: (paid) => paid + 1,
  retryUnasked: mayRunUnasked,
  resubmitRuns: mayRunUnasked,
  resubmittable: ({ state, withBatch }) => state === 'failed' || (state === 'cancelled' && withBatch),
  cancellable: ['queued', 'running', 'uncertain'],
  lookUpFinds: ({ charged }) => charged,
  heldCanBeDecided: true,
}

/** The columns that the product's predicates read. */
export function columnsOf(job: Job, settings: Settings): DecisionColumns {
  return {
    state: job.state,
    attempt: job.attempt,
    generation: job.generation,
    tries: job.tries,
    paid: job.paid,
    consentedPaid: job.consentedPaid,
    maxAttempts: settings.maxAttempts,
    maxPaidAttempts: settings.maxPaidAttempts,
    onUncertain: settings.onUncertain,
    expired: job.expired,
    overdue: job.overdue,
  }
}

/** What each kind of end in hand asks for, as end-record.ts makes it. */
export const ends: Partial<Record<Phase, { action: EndAction; billing: Billing; uncounted: boolean }>> = {
  answered: { action: 'answer', billing: 'billed', uncounted: false },
  spooled: { action: 'answer', billing: 'billed', uncounted: false },
  unstorable: { action: 'unstorable', billing: 'billed', uncounted: false },
  refused: { action: 'rerun', billing: 'none', uncounted: false },
  rejected: { action: 'stop', billing: 'none', uncounted: false },
  broken: { action: 'unknown', billing: 'maybe', uncounted: false },
  unsent: { action: 'rerun', billing: 'none', uncounted: true },
  not_asked: { action: 'unknown', billing: 'none', uncounted: false },
}
