/** The states of a job (DESIGN.md §2). `expired` is a predicate over `expires_at`, never a state. */
export const jobStates = ['queued', 'running', 'succeeded', 'failed', 'uncertain', 'cancelled'] as const
export type JobState = (typeof jobStates)[number]

/** States from which only a request to run, expiry or (for failed) a late success leads on. */
export const terminalStates = ['succeeded', 'failed', 'cancelled'] as const satisfies readonly JobState[]

/** Whether a job in this state has a `completed_at` and an `expires_at`. */
export function isTerminal(state: JobState): boolean {
  return (terminalStates as readonly JobState[]).includes(state)
}

/** A wait ends here: nothing more happens to the job unless somebody asks for it. */
export function isSettled(state: JobState): boolean {
  return isTerminal(state) || state === 'uncertain'
}

/** What happens after an attempt whose billing is unknown. */
export const uncertainPolicies = ['rerun', 'hold', 'fail'] as const
export type OnUncertain = (typeof uncertainPolicies)[number]

/** What somebody can ask of a job that exists. Each such change is kept as a decision. */
export const decisionActions = ['retry', 'fail', 'cancel', 'delete'] as const
export type DecisionAction = (typeof decisionActions)[number]

/** Provider operations that a job can name. */
export const operations = ['chat.completions', 'responses', 'embeddings', 'messages'] as const
export type Operation = (typeof operations)[number]

/** What an ended attempt cost: `none` needs proof, `maybe` is unknown, `billed` is final. An open attempt has none yet. */
export const billings = ['none', 'maybe', 'billed'] as const
export type Billing = (typeof billings)[number]

/** What became of an attempt; the ledger's word. */
export const outcomes = [
  'answered', // success, stored as the job's answer
  'surplus', // success, but the job had an answer, was cancelled, expired or gone: duplicate spend
  'unstorable', // success that Postgres refuses as data
  'rejected', // the provider refused the request; asking again cannot help
  'failed', // the provider failed or could not be reached; nothing was billed
  'paused', // rate limited; not a try
  'alarmed', // money or credentials; the lane stopped; not a try
  'unknown', // sent, and no usable answer came back
  'lost', // the worker died with the call in hand
  'cancelled', // aborted because the job was cancelled or answered by another attempt
  'drained', // aborted because the worker's grace period ended
  'unsent', // claimed, never sent; not a try
] as const
export type Outcome = (typeof outcomes)[number]

/** Attempt ends that are not counted in `tries`: nothing was sent, or the provider asked us to wait. */
const uncountedOutcomes = ['paused', 'alarmed', 'unsent'] as const satisfies readonly Outcome[]

/** Whether an attempt that ended so gives its try back. */
export function isUncounted(outcome: Outcome, sent: boolean): boolean {
  return !sent || (uncountedOutcomes as readonly Outcome[]).includes(outcome)
}
