/** One entry of the registry: what a code means to a client. */
export interface ErrorDefinition {
  /** HTTP status when the code is the answer to a request; null: it only appears inside a job. */
  status: number | null
  /** Whether the same request may succeed later without anybody changing anything. */
  retryable: boolean
  title: string
}

const api = (status: number, retryable: boolean, title: string) => ({ status, retryable, title })
const job = (retryable: boolean, title: string) => ({ status: null, retryable, title })

/** Every error code that a client can meet. docs/errors.md is tested against it in both directions. */
export const errorRegistry = {
  // Answers to requests.
  idempotency_key_missing: api(400, false, 'The Idempotency-Key header is missing'),
  idempotency_key_invalid: api(400, false, 'The idempotency key is malformed'),
  invalid_request: api(400, false, 'The request is invalid'),
  consent_required: api(400, false, 'Running this job again may be charged twice and needs consent'),
  no_price: api(400, false, 'A budget needs the price of the call, which is not known'),
  unauthorized: api(401, false, 'The API key is missing or unknown'),
  forbidden: api(403, false, 'The API key lacks the scope'),
  not_found: api(404, false, 'Not found'),
  method_not_allowed: api(405, false, 'The method is not allowed here'),
  state_conflict: api(409, false, 'The job is in a state that forbids this'),
  already_exists: api(409, false, 'There is one of this name already'),
  stream_interrupted: api(409, false, 'What was shown of this stream is not of the answer that is stored'),
  payload_too_large: api(413, false, 'The body is too large'),
  unsupported_media_type: api(415, false, 'The content type is not supported'),
  range_not_satisfiable: api(416, false, 'The file has none of these bytes'),
  idempotency_key_reused: api(422, false, 'The key was used for a different request'),
  job_uncertain: api(422, false, 'The job is held for a decision: a call may have been billed'),
  job_cancelled: api(422, false, 'The job was cancelled'),
  rate_limited: api(429, true, 'Too many requests from this tenant'),
  backlog_full: api(429, true, 'As many jobs of this tenant are queued as may be'),
  internal_error: api(500, true, 'Unexpected error'),
  upstream_failed: api(502, false, 'The job failed, and the provider has not said more'),
  unavailable: api(503, true, 'A part that this request needs is unavailable'),
  overloaded: api(503, true, 'Too much is waiting; nothing was accepted'),
  wait_limit: api(504, true, 'The job is still under way; the same key continues'),

  // Reasons inside a job.
  provider_rejected: job(false, 'The provider refused the request'),
  provider_forbidden: job(false, 'The provider forbids this request to this account'),
  provider_auth: job(false, 'The provider refused the credentials; the lane is stopped'),
  provider_quota: job(false, 'The provider account has reached a spend limit; the lane is stopped'),
  provider_rate_limited: job(true, 'The provider asked to wait'),
  provider_unavailable: job(true, 'The provider is overloaded or unavailable'),
  provider_error: job(true, 'The provider failed and said so'),
  connection_failed: job(true, 'No connection to the provider; nothing was sent'),
  connection_lost: job(true, 'The connection broke after the request was sent; it may have been billed'),
  timeout: job(true, 'No complete answer within timeout_seconds; it may have been billed'),
  broken_answer: job(true, 'The answer broke off or is not what the provider promises; it may have been billed'),
  gateway_error: job(true, 'A proxy answered in the provider’s place; the call may have been billed'),
  worker_lost: job(true, 'The worker died with the call in hand; it may have been billed'),
  worker_drained: job(true, 'The worker stopped before the answer came; the call may have been billed'),
  not_sent: job(true, 'The call was claimed but never sent'),
  look_up_failed: job(true, 'The provider could not be asked for the answer of an earlier call; nothing was sent'),
  answer_not_storable: job(false, 'The answer was paid for but the database refuses it as data'),
  deadline_exceeded: job(false, 'The deadline passed before the job could finish'),
  uncertain_expired: job(false, 'The job was held for a decision longer than uncertain_ttl'),
  failed_on_request: job(false, 'Somebody decided that this uncertain job has failed'),
} as const satisfies Record<string, ErrorDefinition>

export type ErrorCode = keyof typeof errorRegistry

/** Why a job is where it is; the `error` member of a job. */
export interface JobError {
  code: ErrorCode
  message: string
  retryable: boolean
  provider_status: number | null
}

/** A {@link JobError} whose `retryable` comes from the registry. */
export function jobError(code: ErrorCode, message?: string, providerStatus: number | null = null): JobError {
  const { retryable, title } = errorRegistry[code]
  return { code, message: message ?? title, retryable, provider_status: providerStatus }
}
