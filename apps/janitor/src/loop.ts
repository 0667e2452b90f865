import { setTimeout as sleep } from 'node:timers/promises'
import { errorReason, type Log, type Metrics } from '@askonce/telemetry'

export interface LoopOptions {
  name: string
  /** From the end of a round to the next one; a function: as the last round left it. */
  everyMs: number | (() => number)
  /** One bounded round. True: there is more to do, go on without waiting. */
  round: () => Promise<boolean>
  log: Log
  metrics: Metrics
}

export interface Loop {
  /** Runs the next round now, or right after the one that is under way. */
  wake(): void
  stop(): Promise<void>
}

/** A failed round waits at most this long, however often it fails. */
const failureCapMs = 5_000

/**
 * Runs rounds for ever: re-armed in every branch, so that an outage ends when the outage ends. A failure that repeats is logged once
 * a minute.
 */
export function startLoop({ name, everyMs, round, log, metrics }: LoopOptions): Loop {
  const stopping = new AbortController()
  let waiting: AbortController | null = null
  let failures = 0
  let loggedAt = -Infinity
  let woken = false
  const pace = (): number => (typeof everyMs === 'number' ? everyMs : everyMs())

  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      let waitMs = 0
      woken = false
      try {
        if (!(await round()) && !woken) waitMs = pace()
        failures = 0
      } catch (error) {
        failures += 1
        waitMs = Math.min(failureCapMs, Math.max(pace(), 100 * 2 ** Math.min(failures, 10)))
        metrics.loopFailures.inc({ loop: name })
        if (performance.now() - loggedAt > 60_000) {
          loggedAt = performance.now()
          log.event('loop.failed', { loop: name, count: failures, reason: errorReason(error) })
        }
      }
      if (waitMs > 0 && !stopping.signal.aborted) {
        waiting = new AbortController()
        await sleep(waitMs, undefined, { signal: waiting.signal }).catch(() => undefined)
        waiting = null
      }
    }
  }
  const done = run()

  return {
    wake() {
      woken = true
      waiting?.abort()
    },
    async stop() {
      stopping.abort()
      waiting?.abort()
      await done
    },
  }
}
