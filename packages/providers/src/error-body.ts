import { isUtf8 } from 'node:buffer'
import type { FailureVerdict } from '@askonce/core'
import { contentType as contentTypeOf, type Response } from './exchange.ts'
import { parseBody, textOf } from './json-value.ts'
import type { Scrub } from './scrub.ts'

/** An error has a few hundred bytes, one that repeats the request some hundred thousand. The CHECK of `jobs.error_response` allows as much. */
const maxErrorBytes = 256 * 1024
/** A key that the cut goes through would not be recognised, so as much is left out before it. */
const longestSecret = 512

/**
 * The body of a refusal as it may be shown: the provider's bytes in whatever shape, the API key redacted in them. Of one with more
 * than 256 KiB the beginning, as text. Where redacting breaks its JSON, or escapes in it (`\u0073k-…`) hide a key from the
 * redaction, `message` stands in its place; so it does where JSON nests too deep for that to be known.
 */
export function shownErrorBody(
  { headers, body }: Response,
  redact: Scrub,
  message: string,
): NonNullable<FailureVerdict['body']> {
  const contentType = contentTypeOf(headers)
  if (body.length > maxErrorBytes) {
    const begun = redacted(body.subarray(0, maxErrorBytes), redact)
    return { bytes: begun.subarray(0, maxErrorBytes - longestSecret), contentType: 'text/plain; charset=utf-8' }
  }
  const bytes = redacted(body, redact)
  const json = parseBody(body)
  if (json === undefined) return { bytes, contentType: contentType ?? 'text/plain; charset=utf-8' }
  const shown = parseBody(bytes)
  const plain = shown === undefined ? null : textOf(shown)
  const isSafe = plain !== null && redact(plain) === plain
  if (isSafe && bytes.length <= maxErrorBytes) return { bytes, contentType: contentType ?? 'application/json' }
  return { bytes: Buffer.from(JSON.stringify({ error: { message } })), contentType: 'application/json' }
}

/** Of bytes that are no UTF-8 each is a character, so that none of the others changes. */
function redacted(body: Buffer, redact: Scrub): Buffer {
  const encoding = isUtf8(body) ? 'utf8' : 'latin1'
  const text = body.toString(encoding)
  const clean = redact(text)
  return clean === text ? body : Buffer.from(clean, encoding)
}
