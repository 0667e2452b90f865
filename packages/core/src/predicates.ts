import type { OnUncertain } from './job.ts'

/** The columns of the `jobs` row that the money predicates read. */
export interface MoneyColumns {
  /** Attempts that are open, maybe or billed. */
  paid: number
  maxPaidAttempts: number
  /** 0 until somebody consented; then the `paid` count that may be reached. */
  consentedPaid: number
  onUncertain: OnUncertain
}

/** May run without anybody accepting a possible second charge (DESIGN.md §4). */
export function mayRunUnasked(job: MoneyColumns): boolean {
  return job.paid === 0 || (job.onUncertain === 'rerun' && job.paid < job.maxPaidAttempts)
}

/** May run: unasked, or within what somebody consented to. The claim asks this, and a queued job always satisfies it. */
export function mayRun(job: MoneyColumns): boolean {
  return mayRunUnasked(job) || job.paid < job.consentedPaid
}
