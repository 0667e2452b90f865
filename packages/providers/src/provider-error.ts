import { isObject, parseBody, stringMember, type JsonObject } from './json-value.ts'

/** The provider's own error object: proof that the provider itself spoke, and not a proxy in its place. */
export interface ProviderError {
  message: string
  /** Machine-readable names that it gives: `type`, `code`, and those in `details`. */
  names: string[]
  /** Anthropic repeats the request id in the body. */
  requestId: string | null
}

/**
 * Reads the error object of a body, or null when it holds none (an HTML page, an empty body, another shape).
 * The shapes, the first two being the providers' own and the rest those of compatible servers:
 * `{"error":{"message","type","code"}}`, `{"type":"error","error":{"type","message"}}`, one such object in an array,
 * `{"object":"error","message","type","code"}`, `{"error":"text"}`.
 */
export function parseProviderError(body: Buffer): ProviderError | null {
  return findProviderError(parseBody(body))
}

/** The same for a body that is parsed already. */
export function findProviderError(json: unknown): ProviderError | null {
  const whole = Array.isArray(json) && json.length === 1 ? (json[0] as unknown) : json
  if (!isObject(whole)) return null
  const requestId = stringMember(whole, 'request_id')
  const { error } = whole
  if (typeof error === 'string' && error !== '') return { message: error, names: names(whole), requestId }
  if (isObject(error) && typeof error['message'] === 'string') {
    return { message: error['message'], names: names(error), requestId }
  }
  if (whole['object'] === 'error' && typeof whole['message'] === 'string') {
    return { message: whole['message'], names: names(whole), requestId }
  }
  return null
}

function names(error: JsonObject): string[] {
  const { details } = error
  const places = isObject(details) ? [error, details] : [error]
  return places
    .flatMap((place) => ['type', 'code', 'error_type', 'error_code'].map((name) => stringMember(place, name)))
    .filter((name) => name !== null)
}

/** What somebody else than the provider said, as far as it can be shown: `detail` or `message` of JSON, or short plain text. */
export function foreignText(body: Buffer, contentType: string): string | null {
  const json = parseBody(body)
  if (isObject(json)) return stringMember(json, 'detail') ?? stringMember(json, 'message')
  const text = contentType.startsWith('text/plain') ? body.subarray(0, 200).toString().trim() : ''
  return text === '' ? null : text
}
