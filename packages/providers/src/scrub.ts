/** Longest message kept in a job. */
const maxLength = 500
/** More than enough of the original to fill it after redaction. */
const readLength = 4_000
/** Shorter keys are placeholders ("EMPTY", "ollama") and ordinary words. */
const minSecretLength = 8
const redacted = '[redacted]'

/** Makes a text fit to be kept in a job. */
export type Scrub = (text: string) => string

/**
 * Redacts the configured key in a text, also when it is cut short, and whatever looks like a key of these providers or like
 * a masked one. Stops at quotes and backslashes, so that JSON stays JSON.
 */
export function createRedactor(apiKey: string | null): Scrub {
  const patterns = [/\bsk-[\w*.…-]{6,}/g, /\bBearer\s+[^\s'"`,;)\\]+/gi]
  if (apiKey !== null && apiKey.length >= minSecretLength) {
    patterns.unshift(new RegExp(`${escape(apiKey.slice(0, minSecretLength))}[^\\s'"\`,;)\\\\]*`, 'g'))
  }
  return (text) => withoutMasked(patterns.reduce((current, pattern) => current.replaceAll(pattern, redacted), text))
}

const masks = /\*{3,}[^\s'"`,;)\\]*/g
const beforeMask = /[^\s'"`=:*\\]/
const maxBeforeMask = 100

/** Looks for the stars first and for their beginning then: the other way round takes a second for a long text. */
function withoutMasked(text: string): string {
  let clean = ''
  let from = 0
  for (const { index, 0: mask } of text.matchAll(masks)) {
    let start = index
    while (start > from && index - start < maxBeforeMask && beforeMask.test(text.charAt(start - 1))) start -= 1
    clean += text.slice(from, start) + redacted
    from = index + mask.length
  }
  return clean + text.slice(from)
}

/**
 * Messages come from providers and may echo the key ("Incorrect API key provided: sk-ab…"), which is redacted. Control
 * characters become spaces (Postgres refuses NUL in text), and the result has at most 500 characters.
 */
export function createScrubber(apiKey: string | null): Scrub {
  const redact = createRedactor(apiKey)
  return (text) => {
    const clean = redact(text.slice(0, readLength).replaceAll(/\p{Cc}+/gu, ' ')).trim()
    return (clean.length > maxLength ? `${clean.slice(0, maxLength - 1)}…` : clean).toWellFormed()
  }
}

function escape(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)
}
