import type { Operation } from '@askonce/core'
import { errorRegistry } from '@askonce/core'
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
  overloaded: 'overloaded_error',
  wait_limit: 'timeout_error',
}

/** An error as Anthropic writes it, with our code and param beside its own members. */
export function anthropicError(problem: Problem, requestId: string) {
  const { code, message, extras } = problem
  const type = anthropicTypes[code] ?? (errorRegistry[code].status >= 500 ? 'api_error' : 'invalid_request_error')
  return { type: 'error', error: { type, message, code, param: extras.param ?? null }, request_id: requestId }
}

/** An error in the middle of a stream, as a server-sent event. SDKs take a stream that simply ends for a complete one. */
export function errorEvent(dialect: Dialect, problem: Problem, requestId: string, sequence: number): string {
  switch (dialect) {
    case 'anthropic':
      return event('error', anthropicError(problem, requestId))
    case 'openai':
      return event(null, { error: errorMember(problem) })
    case 'openai-responses': {
      const { code, message, param } = errorMember(problem)
      // Its SDK throws on `error`; other readers know the event of the API.
      return event('error', {
        type: 'error',
        code,
        message,
        param,
        sequence_number: sequence,
        error: errorMember(problem),
      })
    }
    case 'native':
      return event('error', { ...errorMember(problem), retryable: errorRegistry[problem.code].retryable })
  }
}

function event(name: string | null, data: object): string {
  return `${name === null ? '' : `event: ${name}\n`}data: ${JSON.stringify(data)}\n\n`
}
