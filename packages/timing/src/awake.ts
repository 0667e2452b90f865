const tickMs = 250
/** A turn of the event loop that takes longer than this counts as this long. */
const longestTurnMs = 500

let countedMs = 0
let tickedAt = performance.now()

/**
 * A monotonic clock that stands still while the event loop does: the process was stopped, the laptop slept, something computed for
 * seconds. Whoever waits by it does not take the own absence for the silence of another. It is no clock for what others decide by their
 * own: a lease goes on while its holder is frozen.
 */
export function awakeMs(): number {
  return countedMs + Math.min(performance.now() - tickedAt, longestTurnMs)
}

setInterval(() => {
  countedMs = awakeMs()
  tickedAt = performance.now()
}, tickMs).unref()
