import { STATUS_CODES } from 'node:http'
import { errorRegistry, type ErrorCode } from '@askonce/core'
import { IntakeError } from '@askonce/intake'
import {
  isContention,
  isDataError,
  isUnavailable,
  OverloadedError,
  StoreUnavailableError,
  SubmissionRefusedError,
} from '@askonce/store'
import { isSdkPath } from './paths.ts'

/** Codes that answer a request; the others of the registry only appear inside a job. */
export type ProblemCode = {
  [Code in ErrorCode]: (typeof errorRegistry)[Code]['status'] extends number ? Code : never
}[ErrorCode]

export interface ProblemExtras {
  /** Where the fault is: a JSON pointer into the body, or the name of a header or of a query parameter. */
  param?: string | undefined
  /** JSON pointers to the members in which two requests differ. */
  pointers?: readonly string[] | undefined
  /** State that the job is in. */
  state?: string | undefined
  headers?: Readonly<Record<string, string>> | undefined
  cause?: unknown
}

/** An answer that is an error. The message is the `detail` that the client reads. */
export class Problem extends Error {
  readonly code: ProblemCode
  readonly extras: ProblemExtras

  constructor(code: ProblemCode, detail: string, extras: ProblemExtras = {}) {
    super(detail, { cause: extras.cause })
    this.code = code
    this.extras = extras
  }

  get status(): number {
    return errorRegistry[this.code].status
  }
}

/**
 * What sending the same again cannot cure. Native clients are told so by 422; to the stock SDKs it is 400, because several libraries
 * around them send a 409 or 422 again, and none that we know a 400.
 */
const finalForSdks: ReadonlySet<ProblemCode> = new Set(['idempotency_key_reused', 'job_uncertain', 'job_cancelled'])

/** The status with which a request gets this problem. */
export function statusFor(problem: Problem, request: { url: string }): number {
  return isSdkPath(request.url) && finalForSdks.has(problem.code) ? 400 : problem.status
}

/** Where the OpenAI SDK looks for the kind of an error. */
const types: Partial<Record<ProblemCode, string>> = {
  unauthorized: 'authentication_error',
  forbidden: 'permission_error',
  not_found: 'not_found_error',
  rate_limited: 'rate_limit_error',
  backlog_full: 'rate_limit_error',
  idempotency_key_reused: 'idempotency_error',
  internal_error: 'server_error',
  upstream_failed: 'server_error',
  wait_limit: 'server_error',
  unavailable: 'server_error',
  overloaded: 'server_error',
}

/** Seconds that a client should wait before it sends a retryable request again. */
const retryAfterSeconds: Partial<Record<ProblemCode, number>> = { unavailable: 2, backlog_full: 5 }

/** The `error` member of a problem document, of an item of a bulk answer, and of an event in a stream. */
export function errorMember({ code, message, extras }: Problem) {
  return { message, type: types[code] ?? 'invalid_request_error', param: extras.param ?? null, code }
}

/** The `error` of one item of a bulk answer. */
export function itemError(problem: Problem) {
  const { code, extras } = problem
  return {
    ...errorMember(problem),
    retryable: errorRegistry[code].retryable,
    ...(extras.pointers === undefined ? {} : { pointers: extras.pointers }),
    ...(extras.state === undefined ? {} : { state: extras.state }),
  }
}

/** The body of an `application/problem+json` answer. */
export function problemDocument(problem: Problem, request: { id: string; url: string }) {
  const { code, message, extras } = problem
  const { title, retryable } = errorRegistry[code]
  return {
    type: `urn:askonce:error:${code}`,
    title,
    status: statusFor(problem, request),
    detail: message,
    instance: `urn:askonce:request:${request.id}`,
    code,
    retryable,
    ...(extras.pointers === undefined ? {} : { pointers: extras.pointers }),
    ...(extras.state === undefined ? {} : { state: extras.state }),
    error: errorMember(problem),
  }
}

/** Headers of an error answer besides its id. SDKs read `x-should-retry` before they look at the status. */
export function problemHeaders({ code, extras }: Problem): Record<string, string> {
  const retry = errorRegistry[code].retryable
    ? { 'retry-after': String(retryAfterSeconds[code] ?? 1) }
    : { 'x-should-retry': 'false' }
  return {
    'content-type': 'application/problem+json; charset=utf-8',
    'cache-control': 'no-store',
    ...retry,
    ...extras.headers,
  }
}

const unavailable = (cause: unknown): Problem =>
  new Problem('unavailable', 'The database does not answer. Send the same request with the same key again.', { cause })

/** What a thrown value means to the client. Nothing of an unexpected error is shown: its text may hold anything. */
export function toProblem(error: unknown): Problem {
  if (error instanceof Problem) return error
  if (error instanceof IntakeError) return new Problem(error.code, error.message, { param: error.param })
  if (error instanceof SubmissionRefusedError) return new Problem(error.code, error.message)
  if (error instanceof OverloadedError) {
    return new Problem('overloaded', 'Too many submissions wait for the database; this one was not accepted.', {
      cause: error,
    })
  }
  if (error instanceof StoreUnavailableError || isUnavailable(error) || isContention(error)) return unavailable(error)
  if (isDataError(error)) {
    return new Problem('invalid_request', 'The database refuses a value of this request.', { cause: error })
  }
  return (
    fromFramework(error) ?? new Problem('internal_error', 'Unexpected error; the log has its place.', { cause: error })
  )
}

/** What Fastify and its plugins throw. Their texts are their own and hold nothing of ours. */
function fromFramework(error: unknown): Problem | null {
  const { code, statusCode, message } = error as { code?: unknown; statusCode?: unknown; message?: unknown }
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE')
    return new Problem('payload_too_large', 'The body is larger than this server accepts.')
  if (code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') {
    return new Problem('unsupported_media_type', 'Send the body as application/json.', { param: 'Content-Type' })
  }
  if (typeof statusCode !== 'number' || statusCode < 400 || statusCode > 499) return null
  if (statusCode === 404) return new Problem('not_found', 'There is nothing at this address.')
  return new Problem(
    'invalid_request',
    typeof message === 'string' ? message : (STATUS_CODES[statusCode] ?? 'Bad request'),
  )
}
