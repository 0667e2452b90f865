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
  const patterns = [/\bsk-[\w*.…-]{6,}/g, /[^\s'"`=:*\\]{0,100}\*{3,}[^\s'"`,;)\\]*/g, /\bBearer\s+[^\s'"`,;)\\]+/gi]
  if (apiKey !== null && apiKey.length >= minSecretLength) {
    patterns.unshift(new RegExp(`${escape(apiKey.slice(0, minSecretLength))}[^\\s'"\`,;)\\\\]*`, 'g'))
  }
  return (text) => patterns.reduce((current, pattern) => current.replaceAll(pattern, redacted), text)
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
