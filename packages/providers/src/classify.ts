import type { FailureVerdict, Operation, Verdict } from '@askonce/core'
import { answerIdOf } from './answer-id.ts'
import { checkShape, type ShapeCheck } from './answer-shape.ts'
import type { ProviderKind } from './endpoint.ts'
import { shownErrorBody } from './error-body.ts'
import { headerValue, requestId, type Response } from './exchange.ts'
import { parseBody } from './json-value.ts'
import type { PriceBook } from './prices.ts'
import { foreignText, parseProviderError } from './provider-error.ts'
import { refusalOf } from './refusal.ts'
import { resetMs, retryAfterMs } from './retry-after.ts'
import type { Scrub } from './scrub.ts'

export interface ClassifyContext {
  kind: ProviderKind
  operation: Operation
  /** The model of the request. */
  model: string
  scrub: Scrub
  /** Redacts API keys in a text that is kept as it is otherwise. */
  redact: Scrub
  prices: PriceBook
  nowMs: number
  /** Judges a 2xx body of a streamed call; null: the call is not streamed. */
  checkStream: ((body: Buffer) => ShapeCheck) | null
}

/** What a complete HTTP response means: docs/errors.md. The request was sent, whatever the response says. */
export function classify(response: Response, context: ClassifyContext): Verdict {
  return response.status >= 200 && response.status <= 299
    ? classifySuccess(response, context)
    : classifyRefusal(response, context)
}

function classifySuccess(response: Response, context: ClassifyContext): Verdict {
  const { kind, operation, model, prices, scrub, checkStream } = context
  const shape = checkStream?.(response.body) ?? checkShape(operation, parseBody(response.body))
  if (!shape.ok) {
    return {
      ...failure(response),
      kind: 'unknown',
      billing: 'maybe',
      code: 'broken_answer',
      message: scrub(`The provider answered ${response.status}, but ${shape.detail}`),
    }
  }
  return {
    kind: 'answer',
    status: response.status,
    contentType: contentTypeOf(response, checkStream === null ? null : shape.transcript === true),
    body: response.body,
    providerRequestId: requestId(response.headers),
    answerId: answerIdOf(operation, shape.json),
    flags: kind === 'simulated' ? [...shape.flags, 'simulated'] : shape.flags,
    usage: prices.usageOf(operation, model, shape.json),
  }
}

/**
 * As the provider sent it. Only of a streamed call it has to be true: by it readers tell a transcript from a plain answer.
 * `transcript` is null when the call is not streamed.
 */
function contentTypeOf({ headers }: Response, transcript: boolean | null): string {
  const declared = headerValue(headers, 'content-type') ?? (transcript === true ? eventStream : 'application/json')
  if (transcript === null || declared.toLowerCase().startsWith(eventStream) === transcript) return declared
  return transcript ? eventStream : 'application/json'
}

const eventStream = 'text/event-stream'

function classifyRefusal(response: Response, { model, scrub, redact, nowMs }: ClassifyContext): Verdict {
  const { status, headers, body } = response
  const error = parseProviderError(body)
  const { kind, billing, code, overloaded = false, wholeLane = false } = refusalOf(status, error, model)
  const base = failure(response)
  const waits = kind === 'pause' || kind === 'rerun' || overloaded
  const message = scrub(error?.message || spokenByAnother(response))
  // What a proxy says about a call whose fate it does not know is no word of the provider's.
  const isShown = error !== null || (status >= 400 && status <= 499)
  return {
    ...base,
    kind,
    billing,
    code,
    message,
    providerRequestId: base.providerRequestId ?? error?.requestId ?? null,
    retryAfterMs: waits ? (retryAfterMs(headers, nowMs) ?? (kind === 'pause' ? resetMs(headers, nowMs) : null)) : null,
    body: isShown ? shownErrorBody(response, redact, message) : null,
    overloaded,
    ...(wholeLane ? { wholeLane } : {}),
  }
}

function spokenByAnother({ status, headers, body }: Response): string {
  if (status >= 300 && status <= 399) {
    const target = headerValue(headers, 'location')
    const where = target === null ? 'without saying where to' : `to ${target}`
    return `HTTP ${status}: the provider redirects ${where}. The base URL of this lane is wrong; redirects are not followed.`
  }
  const contentType = headerValue(headers, 'content-type') ?? 'no content type'
  const text = foreignText(body, contentType)
  return `HTTP ${status} without the provider's error object (${contentType})${text === null ? '' : `: ${text}`}`
}

function failure(
  response: Response,
): Pick<FailureVerdict, 'sent' | 'providerStatus' | 'providerRequestId' | 'retryAfterMs' | 'body' | 'overloaded'> {
  return {
    sent: true,
    providerStatus: response.status,
    providerRequestId: requestId(response.headers),
    retryAfterMs: null,
    body: null,
    overloaded: false,
  }
}
