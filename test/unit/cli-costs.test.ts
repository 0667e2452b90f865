import { describe, expect, it, vi } from 'vitest'
import { printSummary } from '../../apps/cli/src/batch/summary.ts'
import { Tally } from '../../apps/cli/src/batch/tally.ts'
import type { Job } from '../../apps/cli/src/job.ts'
import { showAttempts, spendTable, type Totals } from '../../apps/cli/src/ledger-view.ts'

function printed(show: () => void): string {
  const texts: string[] = []
  const write = (text: unknown): boolean => texts.push(String(text)) > 0
  const spies = [process.stdout, process.stderr].map((stream) => vi.spyOn(stream, 'write').mockImplementation(write))
  try {
    show()
  } finally {
    for (const spy of spies) spy.mockRestore()
  }
  return texts.join('')
}

const usage = (paid: number, maybe: number, cost: number | null) => ({
  input_tokens: 1,
  output_tokens: 1,
  cost_usd: cost,
  paid_attempts: paid,
  maybe_paid_attempts: maybe,
})
const job = (flags: string[], used: Job['usage']) => ({ flags, usage: used }) as unknown as Job

/** The line about this run, after such jobs. */
function runLine(...jobs: Job[]): string {
  const tally = new Tally(jobs.length)
  for (const one of jobs) tally.spent(one, 'new')
  const text = printed(() => printSummary({ tally, out: 'out', elapsedMs: 0, interrupted: false }))
  return /this run: +(.*)/.exec(text)?.[1] ?? ''
}

const simulated = job(['simulated'], usage(1, 0, 0))
const maybe = job([], usage(0, 1, null))

describe('what a batch has cost', () => {
  it('is neither nothing nor $0 where a call may have been billed', () => {
    expect(runLine(maybe)).toMatch(/^0 calls and 1 more that may have been billed, at an unknown price, /)
    expect(runLine(simulated, maybe)).toMatch(/^1 call and 1 more that may have been billed, at an unknown price, /)
    expect(runLine(job([], usage(1, 0, 0.25)), maybe)).toMatch(/\$0\.25 and the unknown price of 1 job, /)
  })

  it('is nothing where all answers are simulated', () => {
    expect(runLine(simulated)).toMatch(/^1 call, nothing paid: the answers are simulated, /)
  })
})

describe('what the ledger says of a price that is not known', () => {
  const totals: Totals = {
    calls: 1,
    billed: 0,
    maybe: 1,
    none: 0,
    open: 0,
    unpriced: 0,
    input_tokens: 0,
    output_tokens: 0,
    cost_usd: null,
    duplicates: 0,
    duplicate_cost_usd: 0,
    possible_duplicates: 0,
    possible_duplicate_cost_usd: 0,
  }

  const attempt = {
    attempt: 1,
    generation: 1,
    outcome: 'unknown',
    billing: 'maybe',
    provider: 'openai',
    model: 'm',
    provider_status: null,
    error_code: null,
    started_at: '2026-01-01T00:00:00Z',
    input_tokens: null,
    output_tokens: null,
    cost_usd: null,
  }

  it('names no billed calls where there are none', () => {
    expect(printed(() => showAttempts({ data: [attempt], has_more: false, summary: totals }))).toContain(
      '1 call: 1 maybe; cost: unknown price\n',
    )
    expect(spendTable([], totals, false)).toMatch(/ \? +0$/)
  })
})
