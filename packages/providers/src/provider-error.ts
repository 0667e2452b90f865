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
 * `{"object":"error","message","type","code"}`, where the message may be an object, `{"error":"text"}`.
 */
export function parseProviderError(body: Buffer): ProviderError | null {
  return findProviderError(parseBody(body))
}

/** The same for a body that is parsed already. */
export function findProviderError(json: unknown): ProviderError | null {
  const whole = Array.isArray(json) && json.length === 1 ? (json[0] as unknown) : json
  if (!isObject(whole)) return null
  const requestId = idIn(whole)
  const { error } = whole
  if (typeof error === 'string' && error !== '') return { message: error, names: names(whole), requestId }
  if (isObject(error) && typeof error['message'] === 'string') {
    return { message: error['message'], names: names(error), requestId }
  }
  if (whole['object'] === 'error' && whole['message'] !== undefined) {
    return { message: reasonIn(whole['message']) ?? '', names: names(whole), requestId }
  }
  return null
}

/** One that a header of ours can hold. */
function idIn(whole: JsonObject): string | null {
  const id = stringMember(whole, 'request_id')
  return id !== null && /^[\x20-\x7e]{1,200}$/.test(id) ? id : null
}

function names(error: JsonObject): string[] {
  const { details } = error
  const places = isObject(details) ? [error, details] : [error]
  return places
    .flatMap((place) => ['type', 'code', 'error_type', 'error_code'].map((name) => stringMember(place, name)))
    .filter((name) => name !== null)
}

/** Why it was refused, in a body of a shape that nobody promised: JSON of any kind, or short plain text. */
export function foreignText(body: Buffer, contentType: string): string | null {
  const json = parseBody(body)
  if (json !== undefined) return reasonIn(json)
  const text = contentType.startsWith('text/plain') ? body.subarray(0, 200).toString().trim() : ''
  return text === '' ? null : text
}

/** Where servers say why: FastAPI's `detail` and `msg`, the `errors` of Cloudflare and of JSON:API, RFC 9457. */
const reasonMembers = ['message', 'msg', 'detail', 'details', 'error_description', 'error', 'errors', 'reason', 'title']
const maxReasons = 5
const maxDepth = 5

/** The first member that says why, as deep as it stands; of a list what its first entries say. */
function reasonIn(json: unknown, depth = 0): string | null {
  if (typeof json === 'string') return json.trim() === '' ? null : json
  if (depth === maxDepth) return null
  if (Array.isArray(json)) {
    const found = json.slice(0, maxReasons).map((entry) => reasonIn(entry, depth + 1))
    return found.filter((reason) => reason !== null).join('; ') || null
  }
  if (!isObject(json)) return null
  for (const name of reasonMembers) {
    const reason = reasonIn(json[name], depth + 1)
    if (reason !== null) return at(json['loc']) + reason
  }
  return null
}

/** FastAPI says which member of the request it means. */
function at(place: unknown): string {
  return Array.isArray(place) && place.length > 0 && place.length < 20 ? `${place.map(String).join('.')}: ` : ''
}
