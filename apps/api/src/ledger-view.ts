import type { AttemptRow, DecisionRow, LedgerTotals } from '@askonce/store'

/** A row of the ledger as a reader gets it. */
export function attemptView(row: AttemptRow) {
  return {
    attempt: row.attempt,
    generation: row.generation,
    outcome: row.outcome,
    billing: row.billing,
    provider: row.lane,
    model: row.model,
    worker: row.worker_id,
    provider_status: row.provider_status,
    error_code: row.error_code,
    provider_request_id: row.provider_request_id,
    started_at: row.started_at,
    finished_at: row.finished_at,
    input_tokens: row.input_tokens,
    output_tokens: row.output_tokens,
    cost_usd: row.cost_usd,
  }
}

/** A decision as a reader gets it. */
export function decisionView(row: DecisionRow) {
  return {
    id: row.id,
    at: row.at,
    action: row.action,
    accept_duplicate_charge: row.accept_duplicate_charge,
    reason: row.reason,
    by: { key_id: row.api_key_id, key_name: row.api_key_name },
    from_state: row.from_state,
    to_state: row.to_state,
    attempts: row.attempt,
    generation: row.generation,
    paid_attempts: row.paid,
  }
}

/** Whether anything was paid for twice. */
export function duplicateWord({ duplicates, possible_duplicates: possible }: LedgerTotals): 'no' | 'maybe' | 'yes' {
  return duplicates > 0 ? 'yes' : possible > 0 ? 'maybe' : 'no'
}

/** JSON of an object with totals. Dollars are written with the digits of the database: as doubles they could lose some. */
export function withTotals(head: object, totals: LedgerTotals): string {
  const { cost_usd, duplicate_cost_usd, possible_duplicate_cost_usd, ...rest } = totals
  const { calls, billed, maybe, none, open, unpriced, input_tokens, output_tokens, duplicates, possible_duplicates } =
    rest
  const counts = { calls, billed, maybe, none, open, unpriced, input_tokens, output_tokens }
  const start = JSON.stringify({ ...head, ...counts, duplicates, possible_duplicates }).slice(0, -1)
  return `${start},"cost_usd":${cost_usd},"duplicate_cost_usd":${duplicate_cost_usd},"possible_duplicate_cost_usd":${possible_duplicate_cost_usd}}`
}

/** A list with a summary beside it, from the JSON of its items. Without a cursor it is whole. */
export function summarisedList(items: readonly string[], summary: string, next: string | null = null): Buffer {
  const page = `"has_more":${next !== null},"next_cursor":${JSON.stringify(next)}`
  return Buffer.from(`{"object":"list","data":[${items.join(',')}],${page},"summary":${summary}}`)
}
