import { errorReason, type Log } from '@askonce/telemetry'

export interface Outage {
  failed: (error: unknown) => void
  recovered: () => void
}

/** Says once that a server went away and once that it is back, whatever the number of clients that notice. */
export function outage(log: Log, what: 'store' | 'queue'): Outage {
  let since: number | null = null
  return {
    failed(error) {
      if (since !== null) return
      since = performance.now()
      log.event(`${what}.unavailable`, { reason: errorReason(error) })
    },
    recovered() {
      if (since === null) return
      log.event(`${what}.recovered`, { duration_ms: Math.round(performance.now() - since) })
      since = null
    },
  }
}
