import { maxAnswerBytes, type FailureVerdict, type Operation, type Verdict } from '@askonce/core'
import { answerIdOf } from './answer-id.ts'
import type { Judged } from './answer-reader.ts'
import type { ProviderKind } from './endpoint.ts'
import { shownErrorBody } from './error-body.ts'
import { contentType, headerValue, requestId, type Outsized, type Response } from './exchange.ts'
import { isObject, stringMember, textOf, type JsonObject } from './json-value.ts'
import type { PriceBook } from './prices.ts'
import { foreignText, parseProviderError } from './provider-error.ts'
import { refusalOf } from './refusal.ts'
import { resetMs, retryAfterMs } from './retry-after.ts'
import type { Scrub } from './scrub.ts'
import { statusOfError } from './stands-for.ts'

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
}

/** What a 2xx means, whose body has been judged. */
export function classifySuccess(response: Response, judged: Judged, context: ClassifyContext): Verdict {
  const { kind, operation, model, prices } = context
  if (!judged.ok) return classifyFailed(response, judged, context)
  return {
    kind: 'answer',
    status: response.status,
    contentType: contentTypeOf(response, judged.transcript === true),
    body: judged.body,
    providerRequestId: requestId(response.headers),
    answerId: answerIdOf(operation, judged.json),
    flags: kind === 'simulated' ? [...judged.flags, 'simulated'] : judged.flags,
    usage: prices.usageOf(operation, model, judged.json),
  }
}

/** A 2xx that is no answer. Where the provider's error is all that came, it counts as the status that it stands for. */
function classifyFailed(response: Response, judged: Extract<Judged, { ok: false }>, context: ClassifyContext): Verdict {
  const { operation, model, prices, scrub } = context
  const status = judged.refusal === null ? null : statusOfError(judged.refusal)
  if (judged.refusal !== null && status !== null) {
    const headers = { ...response.headers, 'content-type': 'application/json' }
    return classifyRefusal({ ...response, status, headers, body: errorBody(judged.refusal) }, context)
  }
  return {
    ...failure(response),
    kind: 'unknown',
    billing: judged.failed === null ? 'maybe' : 'billed',
    ...(judged.failed === null ? {} : { usage: prices.usageOf(operation, model, judged.failed) }),
    code: 'broken_answer',
    message: scrub(`The provider answered ${response.status}, but ${judged.detail}`),
  }
}

/** In the shape of a refusal, which an error event need not have. */
function errorBody(refusal: JsonObject): Buffer {
  const { error, code, message, ...rest } = refusal
  const isShaped = typeof error === 'string' || (isObject(error) && typeof error['message'] === 'string')
  const inner = isObject(error) ? error : { type: code ?? rest['type'], code, message }
  const silent = 'The provider gives no message'
  const whole = textOf(isShaped ? refusal : { error: { ...inner, message: inner['message'] ?? silent } })
  return Buffer.from(whole ?? JSON.stringify({ error: { message: stringMember(inner, 'message') ?? silent } }))
}

/** A 2xx with a larger answer than can be stored: it is paid for, and a person decides. */
export function classifyOutsized({ status, headers }: Outsized): Verdict {
  return {
    ...failure({ kind: 'response', status, headers, body: Buffer.alloc(0) }),
    kind: 'unstorable',
    billing: 'billed',
    code: 'answer_not_storable',
    message: `The answer has more than ${maxAnswerBytes / 1024 / 1024} MiB, which is more than can be stored`,
  }
}

/** As the provider sent it, where that is true: by it readers tell a transcript from a plain answer. */
function contentTypeOf({ headers }: Response, isTranscript: boolean): string {
  const declared = contentType(headers) ?? ''
  if (!isTranscript) return declared === '' || /event-stream/i.test(declared) ? 'application/json' : declared
  const isTrue = declared.toLowerCase().startsWith(eventStream)
  return eventStream + (isTrue ? declared.slice(eventStream.length) : '')
}

const eventStream = 'text/event-stream'

/** What any other status means: docs/errors.md. The request was sent, whatever the response says. */
export function classifyRefusal(response: Response, { model, scrub, redact, nowMs }: ClassifyContext): Verdict {
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
  const type = contentType(headers) ?? 'no content type'
  const text = foreignText(body, type)
  return `HTTP ${status} without the provider's error object (${type})${text === null ? '' : `: ${text}`}`
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
