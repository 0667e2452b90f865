/** The bodies of answers, all kinds in one, so that a test can look at what it expects: what is not there is undefined. */
export interface Body {
  // A job.
  id: string
  object: string
  key: string
  operation: string
  model: string
  state: string
  generation: number
  attempts: number
  replayed: boolean
  response: unknown
  waiting_for: unknown
  usage: Record<string, number | null>
  metadata: Record<string, string>
  created_at: string
  run_at: string
  deadline_at: string
  expires_at: string | null
  // An error, of an answer or inside a job or an item.
  title: string
  detail: string
  instance: string
  code: string
  retryable: boolean
  pointers: string[]
  error: { code: string; message: string; type: string; param: string | null; retryable: boolean; state: string }
  // A list, and an item of a bulk answer.
  data: Item[]
  summary: Record<string, number | string>
  has_more: boolean
  next_cursor: string | null
  // The state of the server.
  status: number | string
  checks: Record<'database' | 'schema' | 'queue', { ok: boolean; reason: string | null }>
  lanes: Item[]
}

export interface Item extends Body {
  // A decision.
  at: string
  action: string
  reason: string | null
  by: { key_id: string; key_name: string }
  from_state: string
  to_state: string
  accept_duplicate_charge: boolean
  // An attempt.
  job_id: string
  attempt: number
  // Spend.
  date: string
  provider: string
  calls: number
  cost_usd: number
  index: number
  status: number
  job: Body | undefined
  name: string
  until: string
}
