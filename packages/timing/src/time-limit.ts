import { setImmediate as nextTurn } from 'node:timers/promises'
import { awakeMs } from './awake.ts'

/**
 * Turns of the event loop in which everything that the sockets of a process hold is read: one reads up to 2 MiB of each, and the kernel
 * keeps a few more. What has to be unpacked by another thread takes a turn of its own.
 */
const turns = 4
/** Longest delay that a Node timer can hold. */
const longestTimerMs = 2 ** 31 - 1

/** Resolves when the event loop has read what the sockets held: timers fire before it looks at them. */
export async function arrivals(): Promise<void> {
  for (let turn = 0; turn < turns; turn += 1) await nextTurn()
}

/**
 * Calls `onOver` when the limit is over, unless the function that comes back is called first. What has arrived counts: only time in which
 * the event loop ran is counted (see {@link awakeMs}), and sockets are read once more before it is over.
 */
export function timeLimit(limitMs: number, onOver: () => void): () => void {
  const endsAt = awakeMs() + limitMs
  let isOpen = true
  const look = (): void => {
    const leftMs = endsAt - awakeMs()
    // Timers may fire a millisecond early.
    if (leftMs > 1) timer = wait(leftMs, look)
    else void arrivals().then(() => isOpen && onOver())
  }
  let timer = wait(limitMs, look)
  return () => {
    isOpen = false
    clearTimeout(timer)
  }
}

/** No process lives on for a limit alone. */
function wait(ms: number, then: () => void): NodeJS.Timeout {
  return setTimeout(then, Math.min(ms, longestTimerMs)).unref()
}

/** Rejects with what `late` makes when the promise takes longer; what it does later is ignored. */
export function within<T>(promise: Promise<T>, limitMs: number, late: () => Error): Promise<T> {
  // Not a race: that takes more promises, for each step of each request.
  return new Promise((resolve, reject) => {
    const cancel = timeLimit(limitMs, () => reject(late()))
    void promise.then(resolve, reject).finally(cancel)
  })
}
