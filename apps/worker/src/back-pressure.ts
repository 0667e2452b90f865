import type { Log, Metrics } from '@askonce/telemetry'

/**
 * Answers that wait for the database before a worker stops making more. A worker that cannot beat stops much earlier; this is for a database
 * that takes beats and refuses answers. Calls under way still end, so there may be as many more.
 */
const mostAnswers = 200
const mostBytes = 128 * 1024 * 1024

export interface Burden {
  /** Answers that could not be stored so far, and their size. */
  answers: number
  bytes: number
  /** How many of them could not be written to disk either. */
  unsafe: number
}

/** Keeps a worker from paying for answers that it cannot put anywhere. */
export class BackPressure {
  private readonly log: Log
  private readonly metrics: Metrics
  private readonly onChange: () => void
  private reason: string | null = null
  private since = 0

  constructor(log: Log, metrics: Metrics, onChange: () => void) {
    this.log = log
    this.metrics = metrics
    this.onChange = onChange
    metrics.claimsHeldBack.set(0)
  }

  /** Why no claims are made; null: they are. */
  get heldBack(): string | null {
    return this.reason
  }

  /** To be called at every change. It lets go at half of what it stops at, or it would flap. */
  update({ answers, bytes, unsafe }: Burden): void {
    const share = this.reason === null ? 1 : 0.5
    const found =
      unsafe > 0
        ? `${unsafe} paid answers are in memory only: neither Postgres nor the spool takes them`
        : answers >= mostAnswers * share || bytes >= mostBytes * share
          ? `${answers} paid answers wait for Postgres`
          : null
    const before = this.reason
    this.reason = found
    if ((before === null) === (found === null)) return
    this.metrics.claimsHeldBack.set(found === null ? 0 : 1)
    if (found === null) {
      this.log.event('worker.resumed', { duration_ms: Math.round(performance.now() - this.since) })
    } else {
      this.since = performance.now()
      this.log.event('worker.held_back', { count: answers, reason: found })
    }
    this.onChange()
  }
}
