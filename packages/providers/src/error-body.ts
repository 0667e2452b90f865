import type { FailureVerdict } from '@askonce/core'
import { headerValue, type Response } from './exchange.ts'
import { parseBody } from './json-value.ts'
import type { Scrub } from './scrub.ts'

/** Error bodies are a few hundred bytes; a larger one is not kept with each failed job. */
const maxBytes = 64 * 1024

/**
 * The body of a refusal as it may be shown: the provider's bytes, the API key redacted in them. Null when it has more than
 * 64 KiB, when redacting breaks its JSON, or when escapes in it (`\u0073k-…`) hide a key from the redaction.
 */
export function shownErrorBody({ headers, body }: Response, redact: Scrub): FailureVerdict['body'] {
  if (body.length > maxBytes) return null
  const text = body.toString()
  const clean = redact(text)
  const bytes = clean === text ? body : Buffer.from(clean)
  const json = parseBody(bytes)
  if (json === undefined) return null
  const plain = JSON.stringify(json)
  if (redact(plain) !== plain) return null
  return { bytes, contentType: headerValue(headers, 'content-type') ?? 'application/json' }
}
