import { AskonceConnectionError, AskonceError, errorOfAnswer } from './errors.ts'
import type { Fetch } from './fetch.ts'
import { onAbort } from './on-abort.ts'
import { pause } from './pause.ts'
import { parseJson } from './sse.ts'

export interface RetryOptions {
  /** How often a request is sent again at most; default 8. */
  maxRetries?: number
  /** No new attempt begins so long after the first one; default two minutes. */
  maxElapsedMs?: number
}

export interface AskonceOptions {
  /** Where the server is; default `http://127.0.0.1:8787`. */
  baseUrl?: string
  /** An API key of Askonce; default none. */
  apiKey?: string
  fetch?: Fetch
  retry?: RetryOptions
  /** How long the server may take to answer, besides the time that it was asked to wait; default one minute. */
  timeoutMs?: number
}

/** One call of the API. */
export interface Call {
  method: 'GET' | 'POST' | 'DELETE'
  path: string
  query?: Record<string, string | number | readonly string[] | undefined>
  headers?: Record<string, string>
  /** Sent as JSON, or as it is if it is a text. */
  body?: object | string
  /** Seconds that the server may hold the answer back. */
  wait?: number
  signal?: AbortSignal | undefined
  /** Sent twice it would do more than once: sent again only if the server says that it did nothing. */
  once?: boolean
}

export interface Answer {
  headers: Headers
  bytes: Uint8Array
}

const defaultBaseUrl = 'http://127.0.0.1:8787'
const firstDelayMs = 500
const longestDelayMs = 20_000
/** Codes that say that nothing was done. */
const undone = new Set(['rate_limited', 'backlog_full', 'overloaded'])

/** Sends requests, again where that is safe and may help, and makes errors of what does not succeed. */
export class Transport {
  readonly #base: string
  readonly #apiKey: string | undefined
  readonly #fetch: Fetch
  readonly #timeoutMs: number
  readonly maxRetries: number
  readonly maxElapsedMs: number

  constructor(options: AskonceOptions) {
    const { fetch = globalThis.fetch } = options
    this.#base = (options.baseUrl ?? defaultBaseUrl).replace(/\/+$/, '')
    this.#apiKey = options.apiKey
    this.#fetch = (input, init) => fetch(input, init)
    this.#timeoutMs = options.timeoutMs ?? 60_000
    this.maxRetries = options.retry?.maxRetries ?? 8
    this.maxElapsedMs = options.retry?.maxElapsedMs ?? 120_000
  }

  /**
   * The answer as JSON, once it is 2xx.
   * @throws AskonceError, AskonceConnectionError, or the reason of the signal
   */
  json<T>(call: Call): Promise<T> {
    return this.retrying(call, () => this.jsonOnce<T>(call))
  }

  /** The answer's bytes, once it is 2xx and whole. @throws as {@link json} */
  bytes(call: Call): Promise<Answer> {
    return this.retrying(call, () => this.#exchange(call))
  }

  /** As {@link json}, but sent only once. */
  async jsonOnce<T>(call: Call): Promise<T> {
    const { bytes } = await this.#exchange(call)
    const value = parseJson(new TextDecoder().decode(bytes))
    if (value === undefined) throw new AskonceError('The answer is no JSON.', { code: 'unexpected_answer' })
    return value as T
  }

  async #exchange(call: Call): Promise<Answer> {
    const alarm = new Alarm(this.#timeoutMs + (call.wait ?? 0) * 1000, call.signal)
    try {
      const response = await this.#request(call, alarm.signal)
      return { headers: response.headers, bytes: await readAll(response, alarm) }
    } catch (error) {
      throw toError(error, call.signal)
    } finally {
      alarm.stop()
    }
  }

  /**
   * A response whose body is still to be read, which `alarm` ends. Not sent again by itself.
   * @throws as {@link json}
   */
  async open(call: Call, alarm: Alarm): Promise<Response> {
    try {
      return await this.#request(call, alarm.signal)
    } catch (error) {
      throw toError(error, call.signal)
    }
  }

  /** Does something again and again, with pauses that grow, until it succeeds or fails for good. */
  async retrying<T>(call: Pick<Call, 'signal' | 'once'>, attempt: (retries: number) => Promise<T>): Promise<T> {
    const startedMs = performance.now()
    for (let retries = 0; ; retries += 1) {
      call.signal?.throwIfAborted()
      try {
        return await attempt(retries)
      } catch (error) {
        call.signal?.throwIfAborted()
        const delayMs = delayBefore(retries, error)
        const late = performance.now() - startedMs + delayMs > this.maxElapsedMs
        if (retries >= this.maxRetries || late || !isWorthwhile(error, call.once === true)) throw error
        await pause(delayMs, call.signal)
      }
    }
  }

  async #request(call: Call, signal: AbortSignal): Promise<Response> {
    const { method, path, query = {}, wait, body } = call
    const url = new URL(this.#base + path)
    for (const [name, value] of Object.entries(Object.assign({ wait }, query))) {
      for (const one of [value ?? []].flat()) url.searchParams.append(name, String(one))
    }
    const headers = new Headers(call.headers)
    if (this.#apiKey !== undefined) headers.set('authorization', `Bearer ${this.#apiKey}`)
    const init: RequestInit = { method, headers, signal }
    if (body !== undefined) {
      if (!headers.has('content-type')) headers.set('content-type', 'application/json')
      init.body = typeof body === 'string' ? body : JSON.stringify(body)
    }
    const response = await this.#fetch(url.href, init)
    if (response.ok) return response
    throw errorOfAnswer(response.status, response.headers, await response.text())
  }
}

/** The whole body. An answer that is large, or comes slowly, is not late as long as it comes. */
async function readAll({ body }: Response, alarm: Alarm): Promise<Uint8Array> {
  if (body === null) return new Uint8Array()
  const pieces: Uint8Array[] = []
  let length = 0
  const reader: ReadableStreamDefaultReader<Uint8Array> = body.getReader()
  for (let next = await reader.read(); next.value !== undefined; next = await reader.read()) {
    alarm.restart()
    pieces.push(next.value)
    length += next.value.length
  }
  const [only] = pieces
  if (pieces.length === 1 && only !== undefined) return only
  const bytes = new Uint8Array(length)
  let at = 0
  for (const piece of pieces) {
    bytes.set(piece, at)
    at += piece.length
  }
  return bytes
}

/** The longest piece of a limit: what a program that stood still, or a laptop that slept, is charged for it. */
const pieceMs = 1_000
/** Turns of the event loop in which everything that has arrived is read. */
const turns = 4

/**
 * Ends a request when its caller does, or when nothing has come for too long. What has arrived counts: timers fire before anything is
 * read, so only time in which the program ran is counted, and the event loop turns a few times before the request ends.
 */
export class Alarm {
  readonly #controller = new AbortController()
  readonly #limitMs: number
  readonly #forget: (() => void) | undefined
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(limitMs: number, outer?: AbortSignal) {
    this.#limitMs = limitMs
    const end = (): void => this.#controller.abort(outer?.reason)
    if (outer?.aborted === true) end()
    else if (outer !== undefined) this.#forget = onAbort(outer, end)
    this.restart()
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** Something came: the time begins anew. */
  restart(): void {
    this.#wait(this.#limitMs)
  }

  #wait(leftMs: number): void {
    clearTimeout(this.#timer)
    const ms = Math.min(leftMs, pieceMs)
    this.#timer = setTimeout(() => (leftMs > ms ? this.#wait(leftMs - ms) : this.#look(turns)), ms)
  }

  #look(left: number): void {
    if (left === 0) this.#controller.abort(new Error(`no answer in ${this.#limitMs} ms`))
    else this.#timer = setTimeout(() => this.#look(left - 1), 0)
  }

  /** Ends the time, and the request if it is not at its end. */
  stop(): void {
    clearTimeout(this.#timer)
    this.#forget?.()
    this.#controller.abort(new Error('stopped'))
  }
}

/** What a failed exchange is to the caller. */
export function toError(error: unknown, signal: AbortSignal | undefined): unknown {
  if (signal?.aborted === true) return signal.reason
  if (error instanceof AskonceError || error instanceof AskonceConnectionError) return error
  const message = error instanceof Error ? error.message : String(error)
  return new AskonceConnectionError(`No answer from the server: ${message}`, { cause: error })
}

function isWorthwhile(error: unknown, once: boolean): boolean {
  if (error instanceof AskonceError) return error.retryable && (!once || undone.has(error.code))
  return error instanceof AskonceConnectionError && !once
}

/** What the server asks for at least, and beyond it a random time below a limit that doubles: many clients come back one by one. */
function delayBefore(retries: number, error: unknown): number {
  const least = error instanceof AskonceError ? (error.retryAfterMs ?? 0) : 0
  return least + Math.random() * Math.min(longestDelayMs, firstDelayMs * 2 ** retries)
}
