import { parseJson } from './sse.ts'
import type { ErrorCode, JobState } from './types.ts'

interface ErrorMembers {
  code: ErrorCode
  status?: number | null
  retryable?: boolean
  param?: string | null
  requestId?: string | null
  pointers?: readonly string[]
  state?: JobState | null
  retryAfterMs?: number | null
}

/** The server said no. Programs look at `code`; the message is its `detail`, for people. */
export class AskonceError extends Error {
  override readonly name = 'AskonceError'
  readonly code: ErrorCode
  /** HTTP status; of an item of a bulk answer, that which it would have got alone; null in a stream. */
  readonly status: number | null
  /** Whether the same request may succeed later without anybody changing anything. */
  readonly retryable: boolean
  /** Where the fault is: a JSON pointer into the body, or the name of a header or of a parameter. */
  readonly param: string | null
  /** Names the request in the server's log. */
  readonly requestId: string | null
  /** JSON pointers to the members in which two requests under one key differ. */
  readonly pointers: readonly string[]
  /** State of the job, where that is the reason. */
  readonly state: JobState | null
  /** How long the server asks to wait. */
  readonly retryAfterMs: number | null

  constructor(message: string, members: ErrorMembers) {
    super(message)
    this.code = members.code
    this.status = members.status ?? null
    this.retryable = members.retryable ?? false
    this.param = members.param ?? null
    this.requestId = members.requestId ?? null
    this.pointers = members.pointers ?? []
    this.state = members.state ?? null
    this.retryAfterMs = members.retryAfterMs ?? null
  }
}

/** No answer came, or not a whole one: the server may have done what was asked. The reason is the `cause`. */
export class AskonceConnectionError extends Error {
  override readonly name = 'AskonceConnectionError'
}

/** The `error` member of a problem document, of an item of a bulk answer, and of an event in a stream. */
interface ErrorBody {
  message?: unknown
  code?: unknown
  param?: unknown
  retryable?: unknown
  pointers?: unknown
  state?: unknown
}

/** The error that a body, or the `error` member of one, describes; members that are missing or of another type are left out. */
export function errorFrom(body: unknown, known: Partial<ErrorMembers> & { fallback: string }): AskonceError {
  const { fallback, ...members } = known
  const { message, code, param, retryable, pointers, state } = (body ?? {}) as ErrorBody
  return new AskonceError(typeof message === 'string' ? message : fallback, {
    code: typeof code === 'string' ? code : 'unexpected_answer',
    param: typeof param === 'string' ? param : null,
    pointers: Array.isArray(pointers) ? pointers.filter((pointer) => typeof pointer === 'string') : [],
    state: typeof state === 'string' ? (state as JobState) : null,
    retryable: retryable === true,
    ...members,
  })
}

/** Statuses of proxies and of servers that say no more. */
const passing = new Set([408, 425, 429, 500, 502, 503, 504])

/** The error of an HTTP answer that is not 2xx. */
export function errorOfAnswer(status: number, headers: Headers, text: string): AskonceError {
  const document = parseJson(text)
  const problem = (typeof document === 'object' && document !== null ? document : {}) as Record<string, unknown>
  const inner = typeof problem['error'] === 'object' ? problem['error'] : {}
  const told = problem['retryable']
  const advice = headers.get('x-should-retry')
  return errorFrom(Object.assign({}, inner, problem, { message: problem['detail'] }), {
    fallback: `HTTP ${status}`,
    status,
    retryable: typeof told === 'boolean' ? told : advice === null ? passing.has(status) : advice === 'true',
    requestId: headers.get('x-request-id'),
    retryAfterMs: retryAfter(headers.get('retry-after')),
  })
}

/** Milliseconds of a `Retry-After` header in either of its forms; null without one. */
function retryAfter(text: string | null): number | null {
  if (text === null) return null
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000
  const timeMs = Date.parse(text)
  return Number.isNaN(timeMs) ? null : Math.max(0, timeMs - Date.now())
}
