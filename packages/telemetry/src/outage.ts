import type { Log } from './log.ts'
import { errorReason } from './reason.ts'

/**
 * While a server comes back, some connections work and some still fail. It is back when nothing has failed for this long, or the
 * log would tell of an outage for each straggler.
 */
const quietMs = 1_000

/** Writes one line when a server goes away and one when it is back, however many clients notice. */
export class Outage {
  private readonly log: Log
  private readonly what: 'store' | 'queue' | 'spool'
  private since: number | null = null
  private lastFailure = -Infinity

  constructor(log: Log, what: 'store' | 'queue' | 'spool') {
    this.log = log
    this.what = what
  }

  failed(error: unknown): void {
    this.lastFailure = performance.now()
    if (this.since !== null) return
    this.since = this.lastFailure
    this.log.event(`${this.what}.unavailable`, { reason: errorReason(error) })
  }

  worked(): void {
    if (this.since === null || performance.now() - this.lastFailure < quietMs) return
    this.log.event(`${this.what}.recovered`, { duration_ms: Math.round(performance.now() - this.since) })
    this.since = null
  }
}
