import { isSimulated, type Job } from '../job.ts'

/**
 * Where the job of a line stood when this run submitted it. `kept`: its answer was in the output file; `replayed`: on the
 * server; `attached`: it was running already; `new`: this run made it run.
 */
export type Origin = 'kept' | 'replayed' | 'attached' | 'new'

/** What became of the lines so far; every line that is done is counted once among kept … failed. */
export class Tally {
  /** Lines in the input. */
  readonly total: number
  kept = 0
  replayed = 0
  attached = 0
  new = 0
  /** Lines without an answer, `uncertain` ones included. */
  failed = 0
  uncertain = 0
  /** Attempts billed, and maybe billed, of the jobs that this run made run or joined; the rest was paid for earlier. */
  paidAttempts = 0
  maybePaidAttempts = 0
  costUsd = 0
  /** Paid jobs whose price is unknown. */
  unpriced = 0
  inputTokens = 0
  outputTokens = 0
  simulated = 0
  /** Up to three lines without an answer by error code, and how many have that code. */
  readonly reasons = new Map<string, { lines: number[]; count: number; message: string }>()

  constructor(total: number) {
    this.total = total
  }

  get done(): number {
    return this.kept + this.replayed + this.attached + this.new + this.failed
  }

  /** Lines whose question this run did not make run. */
  get unpaid(): number {
    return this.kept + this.replayed + this.attached
  }

  answered(origin: Origin, lines: number): void {
    this[origin] += lines
  }

  /** `lines` are line numbers from 1. */
  refused(lines: readonly number[], code: string, message: string): void {
    this.failed += lines.length
    const reason = this.reasons.get(code) ?? { lines: [], count: 0, message }
    reason.count += lines.length
    reason.lines.push(...lines.slice(0, 3 - reason.lines.length))
    this.reasons.set(code, reason)
  }

  /** Counts what a job cost, unless it was done before this run. */
  spent(job: Job, origin: Origin): void {
    if (isSimulated(job)) this.simulated += 1
    if (origin === 'kept' || origin === 'replayed') return
    const {
      paid_attempts: paid,
      maybe_paid_attempts: maybe,
      cost_usd: cost,
      input_tokens: input,
      output_tokens: output,
    } = job.usage
    this.paidAttempts += paid
    this.maybePaidAttempts += maybe
    this.costUsd += cost ?? 0
    this.inputTokens += input ?? 0
    this.outputTokens += output ?? 0
    if (paid > 0 && cost === null && !isSimulated(job)) this.unpriced += 1
  }
}
