import type { ErrorCode, FailureVerdict } from '@askonce/core'
import type { ProviderError } from './provider-error.ts'

/** What an answer that is no success means. */
export interface Refusal {
  kind: FailureVerdict['kind']
  billing: FailureVerdict['billing']
  code: ErrorCode
  overloaded?: boolean
  /** A pause of the whole lane: the answer speaks of the account, not of the model that was asked. */
  wholeLane?: boolean
}

/** What a rule looks at besides the status. */
interface Said {
  /** The provider's own error object; null: the body holds none. */
  error: ProviderError | null
  /** The model that was asked. */
  model: string
}

interface Rule extends Refusal {
  statuses: (status: number) => boolean
  /** What has to hold as well; absent: the status alone decides. */
  when?: (said: Said) => boolean
}

const is =
  (...statuses: number[]) =>
  (status: number): boolean =>
    statuses.includes(status)
const from =
  (first: number, last: number) =>
  (status: number): boolean =>
    status >= first && status <= last

const hasObject = ({ error }: Said): boolean => error !== null

const rejected = { kind: 'stop', billing: 'none', code: 'provider_rejected' } as const
const forbidden = { kind: 'stop', billing: 'none', code: 'provider_forbidden' } as const
const quota = { kind: 'alarm', billing: 'none', code: 'provider_quota' } as const
const paused = { kind: 'pause', billing: 'none', code: 'provider_rate_limited' } as const
const failed = { kind: 'rerun', billing: 'none', code: 'provider_error' } as const
const unavailable = { kind: 'rerun', billing: 'none', code: 'provider_unavailable', overloaded: true } as const
const unknown = { kind: 'unknown', billing: 'maybe', code: 'gateway_error' } as const

/**
 * The table of docs/errors.md line by line, first match wins.
 *
 * A 4xx is a refusal whoever writes it, and in whatever shape: a request that a proxy has refused was not passed on. The
 * exceptions are statuses that a proxy also uses for a call that it stopped waiting for (408, 409, 425, 499). A 5xx needs the
 * provider's own error object as proof that nothing was billed; without it the call may still be running behind the proxy.
 * 504, 520 and 524 are never proof: they are the words of a gateway about a server that it stopped waiting for.
 */
const rules: readonly Rule[] = [
  { statuses: from(300, 399), ...rejected },

  { statuses: is(400, 429), when: ({ error }) => error !== null && isSpendLimit(error), ...quota },
  { statuses: is(402), when: ({ error }) => error !== null && isSizeOfRequest(error), ...rejected },
  { statuses: is(402), ...quota },
  { statuses: is(401), when: isAboutModel, ...forbidden },
  { statuses: is(401), kind: 'alarm', billing: 'none', code: 'provider_auth' },
  { statuses: is(403), ...forbidden },

  { statuses: is(498), ...failed, code: 'provider_rate_limited' },
  { statuses: is(429), when: isWantOfCapacity, ...failed, code: 'provider_rate_limited' },
  { statuses: is(429), when: isAboutAccount, ...paused, wholeLane: true },
  { statuses: is(429), ...paused },

  { statuses: is(408, 409), when: hasObject, ...failed },
  { statuses: is(425, 499), when: hasObject, ...rejected },
  { statuses: is(408, 409, 425, 499), ...unknown },
  { statuses: from(400, 499), ...rejected },

  { statuses: is(521, 522, 523, 525, 526), ...unavailable },
  { statuses: is(500, 502), when: hasObject, ...failed },
  { statuses: is(503, 529), when: hasObject, ...unavailable },
  { statuses: from(500, 599), ...unknown, overloaded: true },
]

/** The line of the table for a status outside 2xx. */
export function refusalOf(status: number, error: ProviderError | null, model: string): Refusal {
  const {
    statuses: _statuses,
    when: _when,
    ...refusal
  } = rules.find(({ statuses, when }) => statuses(status) && (when === undefined || when({ error, model }))) ??
  otherwise
  return refusal
}

/** A status that HTTP does not have. */
const otherwise: Rule = { statuses: () => true, ...unknown }

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

/** OpenRouter's 402 for a request whose `max_tokens` the balance does not cover: a smaller one is answered. */
function isSizeOfRequest({ message }: ProviderError): boolean {
  return /\bcan only afford [1-9]/.test(message)
}

const modelNames = /model|permission|scope/i
const modelPhrases =
  /\b(insufficient permissions|missing scopes?|(access|permission|entitled|authorized) (to|for|on) (use |call )?(this |the )?model)\b/i

/**
 * Whether a refusal of credentials is about one model, or a permission of it: the key is right, and other models go on. A caller
 * chooses the name of the model, so the worst that it can do by it is to have its own job fail.
 */
function isAboutModel({ error, model }: Said): boolean {
  if (error === null) return false
  return (
    error.names.some((name) => modelNames.test(name)) ||
    modelPhrases.test(error.message) ||
    namesModel(error.message, model)
  )
}

/** Longer than any first sentence. */
const openingLength = 300

/**
 * The account is named, and the model that was asked is not: every model would be refused. Only what was refused is looked at, which
 * is how the message begins. Advice follows it: to pay, and where the account is looked after, as OpenAI writes below the limit of any model.
 */
function isAboutAccount({ error, model }: Said): boolean {
  if (error === null) return false
  const { message, names } = error
  const [opening = ''] = message.slice(0, openingLength).split(/[.:;!?](?:\s|$)/)
  const refused = opening.replaceAll(/\S*\/\S*/g, ' ')
  return names.some((name) => /account/i.test(name)) || (/\baccount\b/i.test(refused) && !namesModel(refused, model))
}

/** A cheap tier has no room at the moment; requests of other tiers are served. */
function isWantOfCapacity({ error }: Said): boolean {
  if (error === null) return false
  const { message, names } = error
  return names.some((name) => /^(resource_unavailable|capacity_exceeded)$/.test(name)) || /\bflex\b/i.test(message)
}

/** As a whole word: `gpt-4` is not named by `gpt-4o`. Names of one or two letters are in any sentence. */
function namesModel(message: string, model: string): boolean {
  if (model.length < 3) return false
  const at = message.indexOf(model)
  if (at === -1) return false
  const around = `${message[at - 1] ?? ' '}${message[at + model.length] ?? ' '}`
  return !/[\w-]/.test(around)
}
