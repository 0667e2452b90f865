import {
  backoffMs,
  isUncounted,
  jobError,
  type AnswerVerdict,
  type EndAction,
  type ErrorCode,
  type FailureVerdict,
  type Outcome,
  type Verdict,
} from '@askonce/core'
import type { AttemptEndRecord, Claim } from '@askonce/store'
import type { AbortReason } from './held.ts'

type Claimed = Pick<Claim, 'id' | 'attempt' | 'reruns'>

const nothing = {
  providerStatus: null,
  providerRequestId: null,
  inputTokens: null,
  outputTokens: null,
  costUsd: null,
  response: null,
  responsePieces: null,
  responseBytes: null,
  contentType: null,
  answerId: null,
  errorResponse: null,
  errorContentType: null,
  flags: [],
  delayMs: 0,
  backoff: false,
  onlyOpen: false,
}

/** The end of a claimed attempt that was never sent: not a try, nothing billed. */
export function unsentEnd({ id, attempt }: Pick<Claim, 'id' | 'attempt'>, onlyOpen: boolean): AttemptEndRecord {
  return {
    ...nothing,
    jobId: id,
    attempt,
    action: 'rerun',
    outcome: 'unsent',
    billing: 'none',
    uncounted: true,
    onlyOpen,
    error: JSON.stringify(jobError('not_sent')),
    errorCode: 'not_sent',
  }
}

/** Turns what a call brought into the end that is written. Pure; `random` is uniform in [0, 1). */
export function endRecord(
  claim: Claimed,
  verdict: Verdict,
  aborted: AbortReason | null,
  random: number,
): AttemptEndRecord {
  if (verdict.kind === 'answer') return answerEnd(claim, verdict)
  if (!verdict.sent && aborted !== null) return unsentEnd(claim, false)
  return failureEnd(claim, verdict, aborted, random)
}

// One literal: copying the members of another object into it took 6 % of a busy worker's time.
function answerEnd({ id, attempt }: Claimed, verdict: AnswerVerdict): AttemptEndRecord {
  return {
    jobId: id,
    attempt,
    action: 'answer',
    outcome: 'answered',
    billing: 'billed',
    uncounted: false,
    error: null,
    errorCode: null,
    providerStatus: verdict.status,
    providerRequestId: verdict.providerRequestId,
    inputTokens: verdict.usage.inputTokens,
    outputTokens: verdict.usage.outputTokens,
    costUsd: verdict.usage.costUsd,
    response: verdict.body,
    responsePieces: null,
    responseBytes: null,
    contentType: verdict.contentType,
    answerId: verdict.answerId,
    errorResponse: null,
    errorContentType: null,
    flags: verdict.flags,
    delayMs: 0,
    backoff: false,
    onlyOpen: false,
  }
}

const actions: Record<FailureVerdict['kind'], EndAction> = {
  stop: 'stop',
  rerun: 'rerun',
  pause: 'rerun',
  alarm: 'rerun',
  unknown: 'unknown',
  unstorable: 'unstorable',
}

const outcomes: Record<FailureVerdict['kind'], Outcome> = {
  stop: 'rejected',
  rerun: 'failed',
  pause: 'paused',
  alarm: 'alarmed',
  unknown: 'unknown',
  unstorable: 'unstorable',
}

function failureEnd(
  { id, attempt, reruns }: Claimed,
  verdict: FailureVerdict,
  aborted: AbortReason | null,
  random: number,
): AttemptEndRecord {
  const { kind, sent, overloaded, retryAfterMs, providerStatus, atOnce = false } = verdict
  const wasAborted = aborted !== null && kind === 'unknown'
  const outcome: Outcome = wasAborted ? aborted : outcomes[kind]
  const code: ErrorCode = wasAborted && aborted === 'drained' ? 'worker_drained' : verdict.code
  // An alarm has no wait of its own: the lane is stopped. What was aborted is no word of the provider's.
  const waits = !atOnce && !wasAborted && (kind === 'rerun' || kind === 'pause' || kind === 'unknown')
  return {
    ...nothing,
    jobId: id,
    attempt,
    action: actions[kind],
    outcome,
    billing: verdict.billing,
    uncounted: atOnce || isUncounted(outcome, sent),
    delayMs: waits ? backoffMs({ reruns, overloaded, retryAfterMs, random }) : 0,
    backoff: waits && kind !== 'pause',
    error: JSON.stringify(jobError(code, wasAborted ? undefined : clean(verdict.message), providerStatus)),
    errorCode: code,
    providerStatus,
    providerRequestId: verdict.providerRequestId,
    inputTokens: verdict.usage?.inputTokens ?? null,
    outputTokens: verdict.usage?.outputTokens ?? null,
    costUsd: verdict.usage?.costUsd ?? null,
    errorResponse: verdict.body?.bytes ?? null,
    errorContentType: verdict.body?.contentType ?? null,
  }
}

/** What jsonb can hold: no NUL, no lone surrogates. */
function clean(text: string): string {
  return text.replaceAll('\u0000', '').toWellFormed()
}
