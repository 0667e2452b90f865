import { exitCodes } from '../errors.ts'

/** The first Ctrl-C stops in order, the second one at once. */
export function catchInterrupt(stop: AbortController): { readonly happened: boolean; release: () => void } {
  const state = { happened: false, release: () => undefined as void }
  const onSignal = (): void => {
    if (state.happened) process.exit(exitCodes.interrupted)
    state.happened = true
    stop.abort()
  }
  process.on('SIGINT', onSignal)
  process.on('SIGTERM', onSignal)
  state.release = () => {
    process.off('SIGINT', onSignal)
    process.off('SIGTERM', onSignal)
  }
  return state
}
