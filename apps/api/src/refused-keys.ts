import type { Log, LogFields } from '@askonce/telemetry'

const windowMs = 60_000
/** Addresses that are remembered, and so lines a minute: whoever changes its address with each request does not fill the disk. */
const maxClients = 1_000

/** Requests without a key that lets them in: a line for each client address, and the next of the same one after a minute, with the count of those between. */
export class RefusedKeys {
  /** The client's line before, oldest first. */
  private readonly lines = new Map<string, { atMs: number; since: number }>()
  private readonly log: Log

  constructor(log: Log) {
    this.log = log
  }

  note(client: string, fields: LogFields): void {
    const now = performance.now()
    const before = this.lines.get(client)
    if (before !== undefined && now - before.atMs < windowMs) {
      before.since += 1
      return
    }
    this.lines.delete(client)
    if (this.lines.size >= maxClients && !this.forgetOldest(now)) return
    this.lines.set(client, { atMs: now, since: 0 })
    this.log.event('api.key_refused', { ...fields, client, count: 1 + (before?.since ?? 0) })
  }

  /** False: even the oldest line is of the last minute. */
  private forgetOldest(now: number): boolean {
    for (const [client, { atMs }] of this.lines) return now - atMs >= windowMs && this.lines.delete(client)
    return true
  }
}
