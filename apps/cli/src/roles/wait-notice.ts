import type { Log } from '@askonce/telemetry'
import { remark } from '../terminal.ts'

const everyMs = 30_000

/** Says what a process waits for at its start: at once, when the words change, and every half minute. */
export class WaitNotice {
  private readonly log: Log
  private since: number | null = null
  private saidAt = 0
  private said = ''

  constructor(log: Log) {
    this.log = log
  }

  /** `todo`: for a person at a terminal. */
  say(reason: string, todo: string | null): void {
    const now = performance.now()
    if (reason === this.said && now - this.saidAt < everyMs) return
    const isNew = reason !== this.said
    if (this.since === null) this.log.event('store.unavailable', { reason })
    else this.log.event('store.waiting', { reason, duration_ms: Math.round(now - this.since) })
    if (isNew && process.stderr.isTTY) remark(`Waiting for Postgres: ${reason}.${todo === null ? '' : ` ${todo}`}`)
    this.since ??= now
    this.saidAt = now
    this.said = reason
  }

  /** What was waited for is there. */
  over(): void {
    if (this.since === null) return
    this.log.event('store.recovered', { duration_ms: Math.round(performance.now() - this.since) })
  }
}
