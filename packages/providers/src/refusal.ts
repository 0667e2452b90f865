import type { ErrorCode, FailureVerdict } from '@askonce/core'
import type { ProviderError } from './provider-error.ts'

/** What ERRORS.md says about an answer that is no success. */
export interface Refusal {
  kind: FailureVerdict['kind']
  billing: FailureVerdict['billing']
  code: ErrorCode
  overloaded?: boolean
}

interface Rule extends Refusal {
  statuses: (status: number) => boolean
  /** Whether the provider's own error object has to be there; absent: the status alone decides. */
  needsObject?: boolean
  /** Holds when the error object names one of them. */
  spendLimit?: boolean
}

const is =
  (...statuses: number[]) =>
  (status: number): boolean =>
    statuses.includes(status)

/**
 * ERRORS.md line by line, first match wins.
 *
 * The status alone decides where a proxy that answers in the provider's place has not passed the request on: 400, 401,
 * 402, 403, 404, 413, 422 and 429. Every other status needs the provider's own error object as proof that nothing was
 * billed; without it the call may still be running behind the proxy. 504 is never proof: it is the word of a gateway
 * about a server that it stopped waiting for. 5xx that the table does not name, and 1xx and 3xx, are taken as unknown.
 */
const rules: readonly Rule[] = [
  { statuses: is(400, 429), spendLimit: true, kind: 'alarm', billing: 'none', code: 'provider_quota' },
  { statuses: is(402), kind: 'alarm', billing: 'none', code: 'provider_quota' },
  { statuses: is(401), kind: 'alarm', billing: 'none', code: 'provider_auth' },
  { statuses: is(403), kind: 'stop', billing: 'none', code: 'provider_forbidden' },
  { statuses: is(429), kind: 'pause', billing: 'none', code: 'provider_rate_limited' },
  { statuses: is(400, 404, 413, 422), kind: 'stop', billing: 'none', code: 'provider_rejected' },
  { statuses: is(408, 409), needsObject: true, kind: 'rerun', billing: 'none', code: 'provider_error' },
  { statuses: is(500, 502), needsObject: true, kind: 'rerun', billing: 'none', code: 'provider_error' },
  {
    statuses: is(503, 529),
    needsObject: true,
    kind: 'rerun',
    billing: 'none',
    code: 'provider_unavailable',
    overloaded: true,
  },
  {
    statuses: (status) => status >= 400 && status <= 499 && !is(408, 409)(status),
    needsObject: true,
    kind: 'stop',
    billing: 'none',
    code: 'provider_rejected',
  },
]

const otherwise: Refusal = { kind: 'unknown', billing: 'maybe', code: 'gateway_error' }

/** The line of the table for a status outside 2xx. */
export function refusalOf(status: number, error: ProviderError | null): Refusal {
  const rule = rules.find(
    ({ statuses, needsObject, spendLimit }) =>
      statuses(status) && (!needsObject || error !== null) && (!spendLimit || (error !== null && isSpendLimit(error))),
  )
  return rule ?? otherwise
}

const spendLimitNames: ReadonlySet<string> = new Set([
  'insufficient_quota',
  'credit_balance_exhausted',
  'organization_spend_limit_exceeded',
  'project_spend_limit_exceeded',
  'organization_usage_limit_exceeded',
  'enforced_spend_limit_reached',
  'contract_spend_limit_reached',
  'billing_error',
])

/**
 * Anthropic gives spend limits that the customer set, and an empty balance, no name of their own: they are 400
 * `invalid_request_error`, told apart by how the message begins. Only the beginning is looked at, which no request can
 * put words into.
 */
const spendLimitOpenings = /^(You have reached your specified (\w+ )?API usage limits|Your credit balance is too low)/

function isSpendLimit({ message, names }: ProviderError): boolean {
  return names.some((name) => spendLimitNames.has(name)) || spendLimitOpenings.test(message)
}
