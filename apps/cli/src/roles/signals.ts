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
