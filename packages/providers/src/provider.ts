import { isSimulatedModel, type Operation, type RequestHeaders, type Verdict } from '@askonce/core'
import { verdictOfBroken } from './broken.ts'
import { readPlain, type AnswerReader } from './answer-reader.ts'
import { classifyOutsized, classifyRefusal, classifySuccess, type ClassifyContext } from './classify.ts'
import { endpointPath, parseBaseUrl, requestHeaders, type ProviderKind } from './endpoint.ts'
import type { Response, Wire } from './exchange.ts'
import { followStream, type StreamSink } from './follow.ts'
import { createHttpWire } from './http-wire.ts'
import { isObject, parseBody } from './json-value.ts'
import { createPriceBook, type PriceOverride } from './prices.ts'
import { createRedactor, createScrubber } from './scrub.ts'
import { createStoredAnswers, storedOperation, type StoredAnswers } from './stored-answers.ts'
import { createSimulatedWire, type SimulatedOptions } from './simulated.ts'
import { checkForTls } from './tls-port.ts'
import { createUsageAsking } from './usage-asking.ts'

/** Where a lane's calls go. `baseUrl: null` is the provider's own; `apiKey: null` sends no credentials (Ollama). */
export interface LaneEndpoint {
  name: string
  kind: ProviderKind
  baseUrl: string | null
  apiKey: string | null
  /** Whether the provider is asked for answers that were lost; for kind `openai`. */
  lookUp?: boolean
}

export interface ProviderOptions {
  simulated: SimulatedOptions
  /** Asked before the built-in price list, first match wins. */
  prices: readonly PriceOverride[]
}

export interface ProviderCall {
  operation: Operation
  model: string
  /** The exact bytes to send. */
  request: Buffer
  /** Headers of the caller that go with it. They cannot take the place of ours. */
  headers?: RequestHeaders
  /** For the whole call, connecting included. */
  timeoutMs: number
  /** Aborting closes the socket, when what has arrived has been read: a whole answer is one all the same. Else the verdict then says only whether the call had left; the caller knows why it aborted. */
  signal: AbortSignal
  /** Called right before the first byte is written; must not throw. */
  onSent?: () => void
  /** Given when the request says `"stream": true`: what of the answer may be shown while it comes. */
  stream?: StreamSink
}

export interface Provider {
  /**
   * Makes one provider request, never more: no retries, no redirects. Whatever the provider or the network does becomes
   * a verdict; it does not reject.
   */
  call: (call: ProviderCall) => Promise<Verdict>
  /** Null: this lane has no look-ups. */
  stored: StoredAnswers | null
  /** Ends what is still in flight (as lost) and closes all sockets. Callers drain first. */
  close: () => Promise<void>
}

/** What judging needs to know of the call. */
type Judging = Pick<ClassifyContext, 'operation' | 'model'>

/**
 * The only way a call leaves the system.
 * Throws a TypeError when the base URL or the key can never make a valid request, so that it shows at start-up.
 */
export function createProvider(lane: LaneEndpoint, options: ProviderOptions): Provider {
  const { kind } = lane
  const baseUrl = kind === 'simulated' ? null : parseBaseUrl(kind, lane.baseUrl)
  const wire: Wire =
    kind === 'simulated' || baseUrl === null
      ? createSimulatedWire(options.simulated)
      : checkForTls(createHttpWire(baseUrl.origin, requestHeaders(kind, lane.apiKey)), baseUrl.origin)
  const scrub = createScrubber(lane.apiKey)
  const redact = createRedactor(lane.apiKey)
  const prices = createPriceBook(kind, baseUrl, options.prices)
  const usage = createUsageAsking()

  const judge = async (response: Response, call: Judging, reader: AnswerReader): Promise<Verdict> => {
    const context = { kind, ...call, scrub, redact, prices, nowMs: Date.now() }
    const { status, body } = response
    if (status < 200 || status > 299) return classifyRefusal(response, context)
    return classifySuccess(response, await reader.check(body), context)
  }

  return {
    call: async ({ operation, model, request, headers, timeoutMs, signal, onSent, stream }) => {
      const path = endpointPath(kind, operation)
      if (path === null) {
        return unsent(`Lane ${lane.name} calls a provider of kind ${kind}, which has no operation ${operation}`)
      }
      // Its job was routed by rules that are no longer in force.
      if (kind === 'simulated' && !isSimulatedModel(model)) {
        return unsent(`The simulated provider answers simulated/* only, not ${JSON.stringify(model)}`)
      }
      const asked = stream === undefined ? null : parseBody(request)
      const body = isObject(asked) && operation === 'chat.completions' ? usage.forced(request, asked) : request
      const reader =
        stream === undefined ? readPlain(operation) : followStream(operation, isObject(asked) ? asked : {}, stream)
      const exchange = await wire.send({
        path: (baseUrl?.pathPrefix ?? '') + path,
        body,
        ...(headers === undefined ? {} : { headers }),
        timeoutMs,
        signal,
        onSent: onSent ?? (() => {}),
        streamed: stream !== undefined,
        reader,
      })
      if (exchange.kind === 'broken') return verdictOfBroken(exchange, scrub)
      if (exchange.kind === 'outsized') return classifyOutsized(exchange)
      const verdict = await judge(exchange, { operation, model }, reader)
      return usage.isRefused(exchange, request, body) ? asBefore(verdict) : verdict
    },
    stored:
      lane.lookUp === true && kind === 'openai'
        ? createStoredAnswers(wire, (baseUrl?.pathPrefix ?? '') + '/chat/completions', (response, model, reader) =>
            judge(response, { operation: storedOperation, model }, reader),
          )
        : null,
    close: () => wire.close(),
  }
}

/** We had asked for more than the caller, and the server does not know it: the same request goes again without. */
function asBefore(verdict: Verdict): Verdict {
  return verdict.kind === 'stop' ? { ...verdict, kind: 'rerun', body: null, atOnce: true } : verdict
}

function unsent(why: string): Verdict {
  return {
    kind: 'stop',
    billing: 'none',
    sent: false,
    code: 'provider_rejected',
    message: `${why}; nothing was sent.`,
    providerStatus: null,
    providerRequestId: null,
    retryAfterMs: null,
    body: null,
    overloaded: false,
  }
}
