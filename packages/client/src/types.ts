/** Shapes of the native API, as they come: members are snake_case, times RFC 3339 UTC. */

export type Operation = 'chat.completions' | 'responses' | 'embeddings' | 'messages'

export type JobState = 'queued' | 'running' | 'succeeded' | 'failed' | 'uncertain' | 'cancelled'

/** What happens after a call that may have been billed without an answer. */
export type OnUncertain = 'rerun' | 'hold' | 'fail'

export type KnownErrorCode =
  | 'idempotency_key_missing'
  | 'idempotency_key_invalid'
  | 'invalid_request'
  | 'consent_required'
  | 'unauthorized'
  | 'forbidden'
  | 'not_found'
  | 'method_not_allowed'
  | 'state_conflict'
  | 'stream_interrupted'
  | 'payload_too_large'
  | 'range_not_satisfiable'
  | 'unsupported_media_type'
  | 'idempotency_key_reused'
  | 'job_uncertain'
  | 'job_cancelled'
  | 'rate_limited'
  | 'backlog_full'
  | 'no_price'
  | 'already_exists'
  | 'internal_error'
  | 'upstream_failed'
  | 'unavailable'
  | 'overloaded'
  | 'wait_limit'
  | 'provider_rejected'
  | 'provider_forbidden'
  | 'provider_auth'
  | 'provider_quota'
  | 'provider_rate_limited'
  | 'provider_unavailable'
  | 'provider_error'
  | 'connection_failed'
  | 'connection_lost'
  | 'timeout'
  | 'broken_answer'
  | 'gateway_error'
  | 'worker_lost'
  | 'worker_drained'
  | 'not_sent'
  | 'look_up_failed'
  | 'answer_not_storable'
  | 'deadline_exceeded'
  | 'uncertain_expired'
  | 'failed_on_request'
  /** From this client: an answer that is not Askonce's, of a proxy for instance. */
  | 'unexpected_answer'

/** Codes are stable; a newer server may have more. */
export type ErrorCode = KnownErrorCode | (string & {})

/** Why a job is where it is. */
export interface JobError {
  code: ErrorCode
  message: string
  retryable: boolean
  provider_status: number | null
}

export type WaitKind = 'lane' | 'tenant_limit' | 'budget' | 'schedule'

/** Why a queued job does not run yet. */
export interface WaitingFor {
  kind: WaitKind
  /** The lane, the limit, or `day` or `month` of a budget. */
  name: string
  /** In words; of a rerun the code of the error that it comes after. */
  reason: string
  /** When it may go by itself; null: nobody knows, or somebody has to do something. */
  until: string | null
}

export interface JobUsage {
  input_tokens: number | null
  output_tokens: number | null
  /** US dollars; null while unknown. */
  cost_usd: number | null
  paid_attempts: number
  maybe_paid_attempts: number
}

export interface Job {
  id: string
  object: 'job'
  key: string
  operation: Operation
  model: string
  state: JobState
  /** How often it was made to run on request. */
  generation: number
  attempts: number
  /** True where this submission started nothing. */
  replayed: boolean
  /** Whether its answer is a stream of events: `stream()` follows it. */
  streamed: boolean
  /** The provider's JSON, or null; always null of a stream, and in lists, unless they ask for one key. */
  response: unknown
  /** Where the answer is, if it is too large for the list that this job came in: read the job alone, or `response()`. */
  response_url?: string | undefined
  error: JobError | null
  /** `truncated`, `refused`, … */
  flags: string[]
  /** Why a queued job does not run; null: it waits for a free place. */
  waiting_for: WaitingFor | null
  usage: JobUsage
  metadata: Record<string, string>
  created_at: string
  run_at: string
  started_at: string | null
  completed_at: string | null
  deadline_at: string
  expires_at: string | null
}

export type AttemptOutcome =
  | 'answered'
  | 'surplus'
  | 'unstorable'
  | 'rejected'
  | 'failed'
  | 'paused'
  | 'alarmed'
  | 'unknown'
  | 'lost'
  | 'cancelled'
  | 'drained'
  | 'unsent'

/** One line of the ledger: at most one request to a provider. */
export interface Attempt {
  attempt: number
  generation: number
  /** Null while it runs. */
  outcome: AttemptOutcome | null
  billing: 'none' | 'maybe' | 'billed' | null
  /** The lane that was asked. */
  provider: string
  model: string
  worker: string
  provider_status: number | null
  error_code: string | null
  provider_request_id: string | null
  started_at: string
  finished_at: string | null
  input_tokens: number | null
  output_tokens: number | null
  cost_usd: number | null
}

/** What the attempts of a job come to. */
export interface LedgerSummary {
  /** Whether anything was paid for twice; maybe: nobody knows. */
  duplicate: 'no' | 'maybe' | 'yes'
  calls: number
  billed: number
  maybe: number
  none: number
  open: number
  unpriced: number
  input_tokens: number
  output_tokens: number
  duplicates: number
  possible_duplicates: number
  /** Null: something was billed, and no price is known. */
  cost_usd: number | null
  duplicate_cost_usd: number | null
  possible_duplicate_cost_usd: number | null
}

export interface Page<Item> {
  object: 'list'
  data: Item[]
  has_more: boolean
  next_cursor: string | null
}

export interface AttemptList extends Page<Attempt> {
  summary: LedgerSummary
}

export interface DeletedJob {
  id: string
  object: 'job'
  deleted: true
}

/** A submission without its key: what to ask, and how it is to be delivered. */
export interface Submission {
  operation: Operation
  /** The provider's own body, sent as it is. */
  request: object
  /** 0 goes first, 9 last; default 5. */
  priority?: number
  /** Not before this time (RFC 3339). Not together with `delay_seconds`. */
  run_at?: string
  delay_seconds?: number
  /** How long the finished job is kept. */
  ttl_seconds?: number
  /** Fails if still queued so long after it was due. */
  deadline_seconds?: number
  /** How long one call may take. */
  timeout_seconds?: number
  max_attempts?: number
  /** Most calls that may have been billed, unless somebody consents to more; default 2. */
  max_paid_attempts?: number
  on_uncertain?: OnUncertain
  /** Up to 16 texts of your own, shown in the job. */
  metadata?: Record<string, string>
  /** To follow the answer with `stream()` while it is made. Part of the request: one key is either a stream or not. */
  stream?: boolean
}

export interface KeyedSubmission extends Submission {
  /** Names this answer: 1 to 255 printable ASCII characters. */
  key: string
}

export interface JobQuery {
  key?: string
  /** Jobs whose key begins with this, in the order of keys. */
  key_prefix?: string
  state?: JobState
  /** `name=value`; all of several must fit. */
  metadata?: string | readonly string[]
  /** `maybe`: something was called that may have been billed; `twice`: more than one call was, or may have been. */
  paid?: 'maybe' | 'twice'
  /** Queued jobs that wait for this; goes with `created_after` only. Pages may be short, or empty, while there are more. */
  waiting_for?: WaitKind
  /** Later than this, RFC 3339. */
  created_after?: string
  /** Jobs per page, 1 to 200; default 50. */
  limit?: number
}

/** What goes with a decision about a job. */
export interface Decision {
  /** Why, for whoever reads the decisions later. */
  reason?: string
  /** Only if the job is still in this generation. */
  generation?: number
}

export interface RetryDecision extends Decision {
  /** Accepts that the provider may charge once more for what it may have charged already. */
  accept_duplicate_charge?: boolean
}
