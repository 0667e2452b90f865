import { headerValue, type Headers } from './exchange.ts'

/** The longest wait that is kept without anybody looking: after it, one call asks again. */
const maxWaitMs = 3_600_000
/** A reset further away is a point in time that some servers send in place of a duration. */
const maxResetMs = 86_400_000

const unitMs: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** Milliseconds of a duration such as `6m0s`, `1.5s` or `20ms`, or of plain seconds; null for anything else. */
export function parseDurationMs(text: string): number | null {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1_000
  if (!/^(\d+(\.\d+)?(ms|[dhms]))+$/.test(text)) return null
  let total = 0
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|[dhms])/g))
    total += Number(amount) * (unitMs[unit ?? ''] ?? 0)
  return total
}

/**
 * The wait that the headers ask for, in whole milliseconds up to an hour; null when they name none. Zero, and a time that has
 * passed, are none: who asks again at once meets the same refusal.
 * `retry-after-ms` first, then `retry-after` (seconds or an HTTP date). Times of day are read against the `date` header of
 * the same response where there is one, so that our clock may be off.
 */
export function retryAfterMs(headers: Headers, nowMs: number): number | null {
  const precise = headerValue(headers, 'retry-after-ms')
  if (precise !== null && /^\d+(\.\d+)?$/.test(precise) && Number(precise) > 0) return waitOf(Number(precise))
  const after = headerValue(headers, 'retry-after')
  if (after === null) return null
  if (/^\d+(\.\d+)?$/.test(after)) return waitOf(Number(after) * 1_000)
  return waitOf(untilMs(after, headers, nowMs))
}

/** Headers of one limit: how much is left, and when it is full again. */
const limits: readonly { remaining: string; reset: string }[] = [
  ...['requests', 'tokens'].map((unit) => ({
    remaining: `x-ratelimit-remaining-${unit}`,
    reset: `x-ratelimit-reset-${unit}`,
  })),
  ...['requests', 'tokens', 'input-tokens', 'output-tokens'].map((unit) => ({
    remaining: `anthropic-ratelimit-${unit}-remaining`,
    reset: `anthropic-ratelimit-${unit}-reset`,
  })),
]

/**
 * The wait until the exhausted limit is full again, for a 429 without Retry-After: the longest among the limits with
 * nothing left, or among all when none says so (a request may ask for more than is left). OpenAI's resets are durations
 * (some compatible servers send plain seconds), Anthropic's are RFC 3339 times. Null when there is none within a day.
 */
export function resetMs(headers: Headers, nowMs: number): number | null {
  const known = limits.flatMap(({ remaining, reset }) => {
    const text = headerValue(headers, reset)
    const waitMs = text === null ? null : (parseDurationMs(text) ?? untilMs(text, headers, nowMs))
    if (waitMs === null || waitMs > maxResetMs) return []
    return [{ waitMs, exhausted: headerValue(headers, remaining) === '0' }]
  })
  if (known.length === 0) return null
  const exhausted = known.filter((limit) => limit.exhausted)
  return waitOf(Math.max(...(exhausted.length > 0 ? exhausted : known).map((limit) => limit.waitMs)))
}

function untilMs(time: string, headers: Headers, nowMs: number): number | null {
  // Both forms of a time have a colon; without this check "5 seconds" is a day in May 2001.
  const at = /\d:\d/.test(time) ? Date.parse(time) : Number.NaN
  if (Number.isNaN(at)) return null
  const sentAt = Date.parse(headerValue(headers, 'date') ?? '')
  return at - (Number.isNaN(sentAt) ? nowMs : sentAt)
}

function waitOf(ms: number | null): number | null {
  return ms === null || ms <= 0 ? null : Math.ceil(Math.min(ms, maxWaitMs))
}
