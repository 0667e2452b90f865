import type { ErrorCode } from './errors.ts'
import type { Billing } from './job.ts'

/** What a provider's successful answer carries besides its bytes. */
export interface Usage {
  inputTokens: number | null
  outputTokens: number | null
  /** US dollars; null when the model's price is unknown. */
  costUsd: number | null
}

/** A success: billed, stored byte for byte. */
export interface AnswerVerdict {
  kind: 'answer'
  status: number
  contentType: string
  body: Buffer
  providerRequestId: string | null
  /** The provider's own id of the answer, at most 200 printable characters; null when it gives none (embeddings). */
  answerId: string | null
  /** `truncated`, `refused`, … */
  flags: string[]
  usage: Usage
}

/**
 * Anything else. `kind` is the action of docs/errors.md:
 * stop: the job fails; rerun: again after backoff; pause: the model that was asked waits, or the whole lane; alarm: the lane stops until a person resumes it;
 * unknown: possibly billed, `on_uncertain` decides; unstorable: an answer that cannot be kept, a person decides.
 */
export interface FailureVerdict {
  kind: 'stop' | 'rerun' | 'pause' | 'alarm' | 'unknown' | 'unstorable'
  billing: Billing
  /** What the provider says that the failed call used; absent: it says nothing. */
  usage?: Usage
  /** Whether any byte of the request may have left. An unsent attempt is not a try. */
  sent: boolean
  code: ErrorCode
  message: string
  providerStatus: number | null
  providerRequestId: string | null
  /** The provider's own wait, in milliseconds; null when it named none. */
  retryAfterMs: number | null
  /**
   * The provider's own error body in whatever shape, the API key redacted in it, so that it can be shown to who asks as the
   * provider sent it. Null where a proxy may have spoken about a call whose fate it does not know, and where nothing came.
   */
  body: { bytes: Buffer; contentType: string } | null
  /** 503, 529, and any 5xx of a proxy: counts towards the lane's breaker and starts the backoff slower. */
  overloaded: boolean
  /** A pause of the whole lane: the answer speaks of the account. Otherwise it is of the model that was asked. */
  wholeLane?: boolean
  /** A rerun that will send something else: no wait, and not a try. */
  atOnce?: boolean
}

export type Verdict = AnswerVerdict | FailureVerdict
