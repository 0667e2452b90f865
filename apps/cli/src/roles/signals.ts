import type { Log } from '@askonce/telemetry'
import { exitCodes } from '../errors.ts'
import { remark } from '../terminal.ts'

/** What a process does about SIGINT, SIGTERM and SIGHUP. */
export interface Signals {
  /** Aborted by the first signal. */
  readonly first: AbortSignal
  /** Aborted by the second. */
  readonly second: AbortSignal
  /** Name of the first signal. */
  name(): string
}

/** From now on signals are ours. A third one ends the process on the spot. */
export function catchSignals(): Signals {
  const first = new AbortController()
  const second = new AbortController()
  let name = ''
  const onSignal = (signal: NodeJS.Signals): void => {
    if (!first.signal.aborted) {
      name = signal
      first.abort()
    } else if (!second.signal.aborted) second.abort()
    else process.exit(1)
  }
  process.on('SIGINT', onSignal)
  process.on('SIGTERM', onSignal)
  // The terminal was closed.
  process.on('SIGHUP', onSignal)
  return { first: first.signal, second: second.signal, name: () => name }
}

/** Resolves when the signal is aborted. */
export function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

/** How long closing may take beside the drain, last writes included. A supervisor's kill delay is 20 s above the drain. */
const closingMs = 15_000

export interface LastResort {
  /** Names what a stop waits for. */
  during<T>(what: string, step: Promise<T>): Promise<T>
}

/**
 * From the first signal on the process has its drain and {@link closingMs}, from the second {@link closingMs} alone. Then it says what it
 * was still waiting for and ends with exit code 1: a library that waits for a server which does not answer must not keep it.
 */
export function openLastResort({ first, second }: Signals, drainMs: number, log: Log): LastResort {
  const underWay = new Set<string>()
  const end = (sinceMs: number): void => {
    const open = [...new Set(process.getActiveResourcesInfo())].join(', ')
    const reason = `still under way: ${[...underWay].join(', ') || 'starting'}; still open: ${open}`
    const duration = Math.round(performance.now() - sinceMs)
    log.event('process.stopped_late', { duration_ms: duration, reason })
    remark(`askonce: stopping took longer than it may (${Math.round(duration / 1000)} s); ${reason}`)
    process.exit(exitCodes.failed)
  }
  const watch = async (): Promise<void> => {
    await untilAborted(first)
    const sinceMs = performance.now()
    const timer = setTimeout(end, drainMs + closingMs, sinceMs).unref()
    await untilAborted(second)
    clearTimeout(timer)
    setTimeout(end, closingMs, sinceMs).unref()
  }
  void watch()
  return {
    async during(what, step) {
      underWay.add(what)
      return step.finally(() => underWay.delete(what))
    },
  }
}
