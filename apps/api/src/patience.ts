import { StoreUnavailableError } from '@askonce/store'
import { within } from '@askonce/timing'

/** How long a request waits for one step of the database. Longer, and clients give up first and learn nothing. */
const patienceMs = 5_500

/**
 * Rejects with {@link StoreUnavailableError} when the step takes longer. The step itself goes on: what it does later is
 * the outcome unknown that a 503 stands for. `onGiveUp` may keep it from starting at all.
 */
export function patiently<T>(step: Promise<T>, onGiveUp?: () => void, limitMs = patienceMs): Promise<T> {
  return within(step, limitMs, () => {
    onGiveUp?.()
    return new StoreUnavailableError(`no reply within ${limitMs} ms`)
  })
}

/** Waits at most so long for something whose failure does not matter. */
export async function atMost(limitMs: number, step: Promise<unknown>): Promise<void> {
  await patiently(step, undefined, limitMs).catch(() => undefined)
}
