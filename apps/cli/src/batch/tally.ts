import { isSimulated, type Job } from '../job.ts'

/**
 * Where the job of a line stood when this run submitted it. `kept`: its answer was in the output file; `replayed`: on the
 * server; `attached`: it was running already; `new`: this run made it run.
 */
export type Origin = 'kept' | 'replayed' | 'attached' | 'new'

/** What jobs took, as far as the server knows by now. */
export interface Usage {
  /** Attempts billed, and maybe billed. */
  paidAttempts: number
  maybePaidAttempts: number
  costUsd: number
  /** Jobs that were or may have been paid, at a price that is unknown. */
  unpriced: number
  inputTokens: number
  outputTokens: number
}

function addUsage(to: Usage, job: Job): void {
  const { paid_attempts: paid, maybe_paid_attempts: maybe, cost_usd: cost, input_tokens, output_tokens } = job.usage
  to.paidAttempts += paid
  to.maybePaidAttempts += maybe
  to.costUsd += cost ?? 0
  to.inputTokens += input_tokens ?? 0
  to.outputTokens += output_tokens ?? 0
  if (paid + maybe > 0 && cost === null && !isSimulated(job)) to.unpriced += 1
}

/** What became of the lines so far; every line that is done is counted once among kept … failed. */
export class Tally implements Usage {
  /** Lines in the input. */
  readonly total: number
  kept = 0
  replayed = 0
  attached = 0
  new = 0
  /** Lines without an answer, `uncertain` ones included. */
  failed = 0
  uncertain = 0
  /** Of the jobs that this run made run or joined; the rest was paid for earlier. */
  paidAttempts = 0
  maybePaidAttempts = 0
  costUsd = 0
  unpriced = 0
  inputTokens = 0
  outputTokens = 0
  /** Of every job that the server was asked about, whoever made it run and when. */
  readonly inAll: Usage = {
    paidAttempts: 0,
    maybePaidAttempts: 0,
    costUsd: 0,
    unpriced: 0,
    inputTokens: 0,
    outputTokens: 0,
  }
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
    addUsage(this.inAll, job)
    if (origin !== 'kept' && origin !== 'replayed') addUsage(this, job)
  }
}
