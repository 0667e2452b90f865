import { errorRegistry, type JsonObject, type Operation } from '@askonce/core'
import { errorMember, type Problem, type ProblemCode } from '../problem.ts'

/** Whose words a surface speaks where it speaks for itself: errors, and what is put into streams. */
export type Dialect = 'native' | 'openai' | 'openai-responses' | 'anthropic'

/** Of the surface on which a stock SDK makes this call. */
export const dialectOf: Record<Operation, Dialect> = {
  'chat.completions': 'openai',
  responses: 'openai-responses',
  embeddings: 'openai',
  messages: 'anthropic',
}

const anthropicTypes: Partial<Record<ProblemCode, string>> = {
  unauthorized: 'authentication_error',
  forbidden: 'permission_error',
  not_found: 'not_found_error',
  payload_too_large: 'request_too_large',
  rate_limited: 'rate_limit_error',
  backlog_full: 'rate_limit_error',
  overloaded: 'overloaded_error',
  wait_limit: 'timeout_error',
}

/** An error as Anthropic writes it, with our code and param beside its own members. */
export function anthropicError(problem: Problem, requestId: string) {
  const { code, message, extras } = problem
  const type = anthropicTypes[code] ?? (errorRegistry[code].status >= 500 ? 'api_error' : 'invalid_request_error')
  return { type: 'error', error: { type, message, code, param: extras.param ?? null }, request_id: requestId }
}

/**
 * An error in the middle of a stream, as a server-sent event. SDKs take a stream that simply ends for a complete one.
 * A refusal of the provider keeps its own words, as it would have with a status of its own; one that has no error object is told in ours.
 */
export function errorEvent(
  dialect: Dialect,
  problem: Problem,
  refusal: Buffer | null,
  requestId: string,
  sequence: number,
): string {
  const refused = refusal === null ? null : errorIn(refusal)
  switch (dialect) {
    case 'anthropic':
      return event('error', refused?.body ?? anthropicError(problem, requestId))
    case 'openai':
      return event(null, { error: refused?.error ?? errorMember(problem) })
    case 'openai-responses': {
      const error = refused?.error ?? errorMember(problem)
      const { code = null, message = null, param = null } = error as Partial<ReturnType<typeof errorMember>>
      // Its SDK throws on `error`; other readers know the event of the API.
      return event('error', { type: 'error', code, message, param, sequence_number: sequence, error })
    }
    case 'native':
      return event('error', { ...errorMember(problem), retryable: errorRegistry[problem.code].retryable })
  }
}

/** The object that a provider's refusal is in, and its `error`; null: it is none of the two providers' form. */
function errorIn(refusal: Buffer): { body: object; error: object } | null {
  try {
    const body: unknown = JSON.parse(refusal.toString())
    if (!isJsonObject(body) || !isJsonObject(body['error'])) return null
    return { body, error: body['error'] }
  } catch {
    return null
  }
}

const isJsonObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

function event(name: string | null, data: object): string {
  return `${name === null ? '' : `event: ${name}\n`}data: ${JSON.stringify(data)}\n\n`
}
