import type {
  Billing,
  DecisionAction,
  JobError,
  JobState,
  OnUncertain,
  Operation,
  Outcome,
  RequestHeaders,
} from '@askonce/core'
import type { ColumnType, Generated, Kysely } from 'kysely'

/** Any connection that statements run on. */
export type Db = Kysely<Tables>

/** A job as readers get it: its row in `jobs` and its answer, without the request. Times are the database's. */
export interface JobRow {
  id: string
  tenant_id: string
  idempotency_key: string
  fingerprint: Buffer
  operation: Operation
  model: string
  lane: string
  metadata: Record<string, string> | null
  priority: number
  state: JobState
  generation: number
  attempt: number
  on_uncertain: OnUncertain
  max_attempts: number
  max_paid_attempts: number
  tries: number
  paid: number
  billed: number
  consented_paid: number
  run_at: Date
  deadline_at: Date
  /** The most that one call can cost, in US dollars, and use; null: nobody knows. */
  reserve_usd: number | null
  reserve_tokens: number | null
  /** The provider's bytes; null unless succeeded, and where they stand in pieces. */
  response: Buffer | null
  /** An answer that stands in pieces, and its length. */
  response_pieces: string | null
  response_bytes: number | null
  response_status: number | null
  response_content_type: string | null
  flags: string[]
  answer_attempt: number | null
  /** The one batch that alone wants this job; null: somebody else wants it too. */
  owner_batch: string | null
  /** Whether the answer is a stream of events. */
  streamed: boolean
  /** The provider's own id of the answer. */
  answer_id: string | null
  /** The provider's own error body, where the job's error has one. */
  error_response: Buffer | null
  error_content_type: string | null
  provider_request_id: string | null
  error: JobError | null
  input_tokens: number | null
  output_tokens: number | null
  cost_usd: number | null
  created_at: Date
  started_at: Date | null
  uncertain_since: Date | null
  completed_at: Date | null
  expires_at: Date | null
}

/** A row of the ledger. */
export interface AttemptRow {
  job_id: string
  attempt: number
  generation: number
  tenant_id: string
  idempotency_key: string
  operation: Operation
  lane: string
  model: string
  worker_id: string
  started_at: Date
  finished_at: Date | null
  outcome: Outcome | null
  billing: Billing | null
  provider_status: number | null
  error_code: string | null
  provider_request_id: string | null
  input_tokens: number | null
  output_tokens: number | null
  cost_usd: number | null
}

/** Who decided what about a job. `attempt`, `generation` and `paid` are the job's as the decision found it. */
export interface DecisionRow {
  id: number
  at: Date
  tenant_id: string
  job_id: string
  idempotency_key: string
  action: DecisionAction
  accept_duplicate_charge: boolean
  from_state: JobState
  /** `deleted`: there is no job any more. */
  to_state: JobState | 'deleted'
  attempt: number
  generation: number
  paid: number
  api_key_id: string
  api_key_name: string
  reason: string | null
}

/** A file; times are the database's. */
export interface FileRow {
  id: string
  tenant_id: string
  purpose: string
  filename: string
  status: 'uploading' | 'writing' | 'processed' | 'internal'
  bytes: number
  /** Null: an output, or not whole yet. */
  sha256: Buffer | null
  created_at: Date
  expires_at: Date | null
}

export type BatchStatus =
  | 'validating'
  | 'failed'
  | 'in_progress'
  | 'finalizing'
  | 'completed'
  | 'expired'
  | 'cancelling'
  | 'cancelled'

/** A fault of an input file, as the OpenAI SDK shows it. `line` counts from 1. */
export interface BatchFault {
  code: string
  message: string
  param: string | null
  line: number | null
}

export interface BatchRow {
  id: string
  tenant_id: string
  kind: 'openai' | 'anthropic'
  operation: Operation
  endpoint: string
  api_key_id: string
  input_file_id: string
  output_file_id: string
  error_file_id: string
  output_bytes: number
  error_bytes: number
  output_ttl_seconds: number | null
  metadata: Record<string, string> | null
  /** Go to the provider with every line. */
  request_headers: RequestHeaders | null
  key_prefix: string
  completion_window: string
  window_seconds: number
  status: BatchStatus
  ending: 'completed' | 'expired' | 'cancelled' | null
  errors: BatchFault[]
  scan_bytes: number
  scan_lines: number
  total: number
  submitted: number
  done: number
  succeeded: number
  failed: number
  cancelled: number
  expired: number
  replayed: number
  input_tokens: number
  output_tokens: number
  cost_usd: number
  created_at: Date
  expires_at: Date
  in_progress_at: Date | null
  finalizing_at: Date | null
  cancelling_at: Date | null
  ended_at: Date | null
}

export type LaneState = 'open' | 'paused' | 'breaker' | 'stopped'

export interface LaneRow {
  name: string
  /** Empty: the whole lane. */
  model: string
  state: LaneState
  reason: string | null
  code: string | null
  until: Date | null
  /** Overloads or rate limits in a row, without an answer between them. */
  failures: number
  changed_at: Date
  turn_at: Date | null
}

/** A lane as a reader gets it: the wait that is left by the database clock, which other clocks cannot compute. */
export interface LaneReading extends LaneRow {
  remaining_ms: number
}

export interface WorkerRow {
  id: string
  host: string
  pid: number
  version: string
  beat: number
  beat_at: Date
  started_at: Date
  dead: boolean
  died_at: Date | null
  session: number | null
}

interface TenantsTable {
  id: string
  created_at: Generated<Date>
  derive_keys: Generated<boolean>
  on_uncertain: OnUncertain | null
  max_attempts: number | null
  max_paid_attempts: number | null
  ttl_seconds: number | null
  timeout_seconds: number | null
  weight: Generated<number>
  max_running: number | null
  max_queued: number | null
  submissions_per_second: number | null
  calls_per_minute: number | null
  tokens_per_minute: number | null
  budget_day_usd: number | null
  budget_month_usd: number | null
}

export type Scope = 'submit' | 'read' | 'admin' | 'operator'

interface ApiKeysTable {
  id: Generated<string>
  tenant_id: string
  name: string
  key_hash: Buffer
  hint: string
  scopes: ColumnType<Scope[], Scope[], Scope[]>
  created_at: Generated<Date>
  revoked_at: Date | null
}

/** What Kysely's builder knows. Statements that are the design itself are written with its `sql` template. */
export interface Tables {
  jobs: JobRow & {
    reruns: number
    timeout_ms: number
    ttl_seconds: number
    deadline_seconds: number
  }
  requests: { job_id: string; request: Buffer; request_headers: RequestHeaders | null }
  attempts: AttemptRow & { fingerprint: Buffer }
  decisions: DecisionRow
  lanes: LaneRow
  workers: WorkerRow
  tenants: TenantsTable
  api_keys: ApiKeysTable
  settings: { only_row: Generated<boolean>; database_id: Generated<string> }
}
