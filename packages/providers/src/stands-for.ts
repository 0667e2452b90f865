import { isObject, stringMember, type JsonObject } from './json-value.ts'

/** Statuses that the names in providers' error objects stand for. */
const statuses: Readonly<Record<string, number>> = {
  invalid_request_error: 400,
  invalid_prompt: 400,
  context_length_exceeded: 400,
  invalid_argument: 400,
  failed_precondition: 400,
  badrequesterror: 400,
  authentication_error: 401,
  invalid_api_key: 401,
  unauthenticated: 401,
  billing_error: 402,
  permission_error: 403,
  permission_denied: 403,
  not_found_error: 404,
  model_not_found: 404,
  not_found: 404,
  request_too_large: 413,
  rate_limit_error: 429,
  rate_limit_exceeded: 429,
  too_many_requests: 429,
  resource_exhausted: 429,
  requests: 429,
  tokens: 429,
  slow_down: 429,
  ramp_limit_exceeded: 429,
  insufficient_quota: 429,
  credit_balance_exhausted: 429,
  organization_spend_limit_exceeded: 429,
  project_spend_limit_exceeded: 429,
  organization_usage_limit_exceeded: 429,
  enforced_spend_limit_reached: 429,
  contract_spend_limit_reached: 429,
  api_error: 500,
  server_error: 500,
  internal_error: 500,
  internal_server_error: 500,
  internal: 500,
  service_unavailable: 503,
  service_unavailable_error: 503,
  server_is_overloaded: 503,
  unavailable_error: 503,
  unavailable: 503,
  overloaded: 529,
  overloaded_error: 529,
  timeout_error: 504,
  gateway_timeout: 504,
  deadline_exceeded: 504,
}

/** Members that name an error, the most telling first: a code is finer than a type. */
const members = ['error_code', 'code', 'status', 'type', 'error_type']

/**
 * The status that an error object stands for which came with status 200; null when it names none that we know.
 * Looked for in the object itself, in its `details`, and beside it.
 */
export function statusOfError(json: unknown): number | null {
  const whole = Array.isArray(json) ? (json[0] as unknown) : json
  if (!isObject(whole)) return null
  const { error } = whole
  const places = [isObject(error) ? error['details'] : null, error, whole].filter(isObject)
  for (const place of places) {
    for (const member of members) {
      const status = statusNamed(place, member)
      if (status !== null) return status
    }
  }
  return null
}

function statusNamed(place: JsonObject, member: string): number | null {
  const value = place[member]
  const text = typeof value === 'number' ? String(value) : stringMember(place, member)
  if (text === null) return null
  if (/^[45]\d\d$/.test(text)) return Number(text)
  const name = text.toLowerCase()
  return Object.hasOwn(statuses, name) ? (statuses[name] ?? null) : null
}
