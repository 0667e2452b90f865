import { onAbort } from './on-abort.ts'

/** Resolves after so many milliseconds; rejects with the signal's reason when it is aborted first. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (): void => {
      clearTimeout(timer)
      // What the caller gave is what the caller gets.
      // oxlint-disable-next-line typescript/prefer-promise-reject-errors
      reject(signal?.reason)
    }
    let forget: (() => void) | undefined
    const timer = setTimeout(() => {
      forget?.()
      resolve()
    }, ms)
    if (signal?.aborted === true) end()
    else if (signal !== undefined) forget = onAbort(signal, end)
  })
}
