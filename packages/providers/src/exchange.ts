/** Response headers as undici gives them: lower-case names. */
export type Headers = Record<string, string | string[] | undefined>

/**
 * An HTTP response that says what became of the call: a success whose body is whole, whatever the connection did behind it, or
 * any other status with as much of its body as came.
 */
export interface Response {
  kind: 'response'
  status: number
  headers: Headers
  body: Buffer
}

/** A success with more bytes than are stored; its body was given up. */
export interface Outsized {
  kind: 'outsized'
  status: number
  headers: Headers
}

/**
 * No complete response.
 * lost: no connection, or it ended; timeout: no complete answer in time; aborted: by the caller's signal;
 * garbled: what came is not HTTP, or not in the content encoding that it names.
 */
export interface Broken {
  kind: 'broken'
  reason: 'lost' | 'timeout' | 'aborted' | 'garbled'
  /** Whether any byte of the request may have left. False is proof that nothing ran. */
  sent: boolean
  detail: string
  /** Set when the head of a response had arrived. */
  status: number | null
  headers: Headers
}

export type Exchange = Response | Outsized | Broken

/**
 * How far a body has come, by its content.
 * open: more has to come; whole: it is all there, but more may come that counts (the usage, `[DONE]`); ended: nothing that follows counts.
 */
export type Standing = 'open' | 'whole' | 'ended'

/** Reads the body of a success as it comes. */
export interface BodyReader {
  push: (chunk: Buffer) => void
  standing: () => Standing
  /** How many parts of an answer have come that can be `whole` before its last part. */
  parts: () => number
  /** No more bytes come: what only lacked its end is looked at too. */
  end: () => void
}

export interface WireCall {
  path: string
  /** Null: a GET. */
  body: Buffer | null
  /** Beside those of every request, which win. */
  headers?: Readonly<Record<string, string>>
  timeoutMs: number
  signal: AbortSignal
  onSent: () => void
  /** Whether the request asks for a stream. */
  streamed: boolean
  /** Takes the decoded bytes of a 2xx body as they come. */
  reader: BodyReader
}

/** What carries one request to a provider and brings back what came of it: real HTTP, or the simulation. */
export interface Wire {
  send: (call: WireCall) => Promise<Exchange>
  close: () => Promise<void>
}

/** First value of a header, trimmed; null when it is absent or empty. */
export function headerValue(headers: Headers, name: string): string | null {
  const value = headers[name]
  const first = (Array.isArray(value) ? value[0] : value)?.trim()
  return first === undefined || first === '' ? null : first
}

/** Null also for one that is longer than readers of ours take in a header. */
export function contentType(headers: Headers): string | null {
  const value = headerValue(headers, 'content-type')
  return value === null || value.length > 200 ? null : value
}

/** OpenAI's `x-request-id` or Anthropic's `request-id`, at most 200 characters. */
export function requestId(headers: Headers): string | null {
  return (headerValue(headers, 'x-request-id') ?? headerValue(headers, 'request-id'))?.slice(0, 200) ?? null
}
