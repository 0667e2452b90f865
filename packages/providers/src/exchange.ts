/** Response headers as undici gives them: lower-case names. */
export type Headers = Record<string, string | string[] | undefined>

/** A complete HTTP response. */
export interface Response {
  kind: 'response'
  status: number
  headers: Headers
  body: Buffer
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

export type Exchange = Response | Broken

export interface WireCall {
  path: string
  /** Null: a GET. */
  body: Buffer | null
  /** Beside those of every request, which win. */
  headers?: Readonly<Record<string, string>>
  timeoutMs: number
  signal: AbortSignal
  onSent: () => void
  /** Takes the bytes of a 2xx body as they come, unless a content encoding hides them. */
  onData?: (chunk: Buffer) => void
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

/** OpenAI's `x-request-id` or Anthropic's `request-id`, at most 200 characters. */
export function requestId(headers: Headers): string | null {
  return (headerValue(headers, 'x-request-id') ?? headerValue(headers, 'request-id'))?.slice(0, 200) ?? null
}
