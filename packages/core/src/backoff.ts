/** Shortest and longest backoff before a rerun. */
export const backoffBaseMs = 1_000
export const backoffOverloadedBaseMs = 2_000
export const backoffCapMs = 300_000

export interface BackoffInput {
  /** Reruns with backoff since the last request to run: 0 for the first. */
  reruns: number
  /** The provider said that it is overloaded (503, 529): start slower. */
  overloaded: boolean
  /** The provider's own Retry-After, the minimum; null when it gave none. */
  retryAfterMs: number | null
  /** Uniform in [0, 1). */
  random: number
}

/**
 * Milliseconds to wait before a rerun: full jitter over a doubling, capped window, never less than the provider asked for.
 * When the provider named a time the jitter comes on top, so that a fleet does not return in one instant.
 */
export function backoffMs({ reruns, overloaded, retryAfterMs, random }: BackoffInput): number {
  const base = overloaded ? backoffOverloadedBaseMs : backoffBaseMs
  const window = Math.min(backoffCapMs, base * 2 ** Math.min(reruns, 30))
  const jittered = Math.floor(window * random)
  return retryAfterMs === null ? jittered : Math.max(jittered, retryAfterMs + Math.floor(jittered / 10))
}
