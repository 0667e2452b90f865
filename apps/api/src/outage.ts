import { errorReason, type EventName, type Log } from '@askonce/telemetry'

/** Writes one line when a service goes away and one when it is back, however many calls fail meanwhile. */
export class Outage {
  private readonly log: Log
  private readonly away: EventName
  private readonly back: EventName
  private sinceMs: number | null = null

  constructor(log: Log, away: EventName, back: EventName) {
    this.log = log
    this.away = away
    this.back = back
  }

  failed(error: unknown): void {
    if (this.sinceMs !== null) return
    this.sinceMs = performance.now()
    this.log.event(this.away, { reason: errorReason(error) })
  }

  worked(): void {
    if (this.sinceMs === null) return
    this.log.event(this.back, { duration_ms: Math.round(performance.now() - this.sinceMs) })
    this.sinceMs = null
  }
}
