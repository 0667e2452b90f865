import type { FakeJob } from './fake-state.ts'

const noSpend = {
  calls: 0,
  billed: 0,
  maybe: 0,
  none: 0,
  open: 0,
  unpriced: 0,
  input_tokens: 0,
  output_tokens: 0,
  duplicates: 0,
  possible_duplicates: 0,
  cost_usd: 0,
  duplicate_cost_usd: 0,
  possible_duplicate_cost_usd: 0,
}

/** One day, with an amount that has more digits than a double. */
export function spendText(query: string): string {
  const day = {
    date: '2026-03-01',
    ...noSpend,
    calls: 4,
    billed: 3,
    maybe: 1,
    unpriced: 1,
    duplicates: 1,
    cost_usd: 1.5,
  }
  const rows = query.includes('group_by=model') ? [{ ...day, provider: 'openai', model: 'gpt-test' }] : [day]
  const data = query.includes('from=2020') ? [] : rows
  const summary = {
    ...day,
    from: '2026-02-01',
    to: '2026-03-02',
    duplicate_cost_usd: 0.25,
    possible_duplicates: 2,
    twice: [] as object[],
  }
  summary.twice.push({
    key: 'nightly/7',
    job_id: '0199c0de-0000-7000-8000-000000000007',
    duplicates: 1,
    possible_duplicates: 0,
    duplicate_cost_usd: 0.25,
    possible_duplicate_cost_usd: 0,
  })
  const text = JSON.stringify({ object: 'list', data, has_more: false, next_cursor: null, summary })
  return text.replaceAll('"cost_usd":1.5', '"cost_usd":1.50000000000000000001')
}

/** The ledger of a job. */
export function ledgerText(job: FakeJob): string {
  return ledgerOf(attemptsOf(job), [job])
}

/** The ledger of the jobs that a key has named, in the order of their ids; it says of each attempt whose it is. */
export function keyLedgerText(jobs: readonly FakeJob[]): string {
  const all = jobs.flatMap((job) => attemptsOf(job).map((attempt) => Object.assign({ job_id: job.id }, attempt)))
  return ledgerOf(all, jobs)
}

function attemptsOf({ paid, model }: FakeJob): object[] {
  return Array.from({ length: paid }, (_, index) => ({
    attempt: index + 1,
    generation: 1,
    outcome: 'answered',
    billing: 'billed',
    provider: 'simulated',
    model,
    worker: 'w',
    provider_status: 200,
    error_code: null,
    provider_request_id: null,
    started_at: new Date().toISOString(),
    finished_at: null,
    input_tokens: 10,
    output_tokens: 5,
    cost_usd: 0.25,
  }))
}

function ledgerOf(data: readonly object[], jobs: readonly FakeJob[]): string {
  const duplicates = jobs.reduce((sum, { paid }) => sum + Math.max(0, paid - 1), 0)
  const summary = {
    duplicate: duplicates > 0 ? 'yes' : 'no',
    ...noSpend,
    calls: data.length,
    billed: data.length,
    cost_usd: data.length / 4,
    duplicates,
    duplicate_cost_usd: duplicates / 4,
  }
  return JSON.stringify({ object: 'list', data, has_more: false, next_cursor: null, summary })
}
