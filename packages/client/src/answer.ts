import { isEnding, parseJson, SseParser } from './sse.ts'

/** Error documents are short; an answer that is longer than this is none. */
const maxErrorBytes = 64 * 1024

/** How long the connection may stay open behind a whole answer. */
const graceMs = 250

/** Sees the bytes of an answer pass, and says whether it was whole. */
interface Examiner {
  see(bytes: Uint8Array): void
  /** Whether nothing is missing, by what the bytes say: however the connection ends, and whether it does. */
  hasEnded(): boolean
  /** The connection has ended as it should: whether the answer is whole. */
  isWhole(): boolean
}

/** A stream is whole when its ending event came: a connection that is cut looks like an end to everybody who reads it. */
function eventExaminer(): Examiner {
  const decoder = new TextDecoder()
  const parser = new SseParser()
  let ended = false
  return {
    see(bytes) {
      for (const event of parser.push(decoder.decode(bytes, { stream: true }))) ended ||= isEnding(event)
    },
    hasEnded: () => ended,
    isWhole() {
      for (const event of parser.end()) ended ||= isEnding(event)
      return ended
    },
  }
}

/**
 * A body that was read to its end is whole, and so is one whose last bracket has come. The one exception: a server that keeps the
 * connection alive with blanks has sent its 200 before it knew better, and an error that may pass is then in the body.
 */
function bodyExaminer(): Examiner {
  const parts: Uint8Array[] = []
  const brackets = new Brackets()
  let size = 0
  const isWhole = (): boolean => {
    const decoder = new TextDecoder()
    const text = parts.map((part) => decoder.decode(part, { stream: true })).join('') + decoder.decode()
    return !isPassingError(text)
  }
  return {
    see(bytes) {
      size += bytes.length
      brackets.see(bytes)
      if (size <= maxErrorBytes) parts.push(bytes)
      else parts.length = 0
    },
    hasEnded: () => brackets.closed && isWhole(),
    isWhole,
  }
}

/** Whether the object or list that a JSON text is has come to its last bracket. */
class Brackets {
  closed = false
  #depth = 0
  #inString = false
  #escaped = false

  see(bytes: Uint8Array): void {
    for (const byte of bytes) {
      if (this.closed) return
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false
        else if (byte === 0x5c) this.#escaped = true
        else if (byte === 0x22) this.#inString = false
      } else if (byte === 0x22) this.#inString = true
      else if (byte === 0x7b || byte === 0x5b) this.#depth += 1
      else if (byte === 0x7d || byte === 0x5d) {
        this.#depth -= 1
        this.closed = this.#depth <= 0
      }
    }
  }
}

/** Kinds of errors that may pass, where a document says no more. */
const passingTypes = new Set<unknown>([
  'rate_limit_error',
  'overloaded_error',
  'api_error',
  'timeout_error',
  'server_error',
])

/** An error document whose cause may pass, or whose call may have been paid for: the same key has to be sent again. */
export function isPassingError(text: string): boolean {
  const document = parseJson(text)
  if (typeof document !== 'object' || document === null) return false
  const { status, code, retryable, error } = document as Record<string, unknown>
  if (typeof error !== 'object' || error === null) return false
  const inner = error as Record<string, unknown>
  if (code === 'job_uncertain' || inner['code'] === 'job_uncertain') return true
  return retryable === true || (typeof status === 'number' && status >= 500) || passingTypes.has(inner['type'])
}

/**
 * The same response, with a body that tells how it ended: `settle(true)` once the caller has read a whole answer to its end,
 * before the caller sees that end; `settle(false)` when it was cut off, cancelled or no whole answer. A body that nobody reads
 * tells nothing. `settle` must not reject.
 */
export async function watchAnswer(
  response: Response,
  settle: (isWhole: boolean) => Promise<void> | void,
): Promise<Response> {
  const { body, status, statusText, headers } = response
  if (body === null) {
    await settle(true)
    return response
  }
  const isStream = /^text\/event-stream\b/i.test(headers.get('content-type') ?? '')
  const examiner = isStream ? eventExaminer() : bodyExaminer()
  const reader: ReadableStreamDefaultReader<Uint8Array> = body.getReader()
  /** Null: nothing more comes, or nothing that matters. */
  const next = async (): Promise<Uint8Array | null> => {
    const reading = reader.read().then(({ value }) => value ?? null)
    if (!examiner.hasEnded()) return reading
    let timer: ReturnType<typeof setTimeout> | undefined
    const over = new Promise<null>((resolve) => {
      timer = setTimeout(() => resolve(null), graceMs)
    })
    const part = await Promise.race([reading, over]).finally(() => clearTimeout(timer))
    // The connection is let go of; its end tells nobody anything.
    if (part === null) void reader.cancel().catch(() => undefined)
    return part
  }
  const watched = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const part = await next().catch(async (error: unknown) => {
          // Behind a whole answer it does not matter how the connection ends.
          if (examiner.hasEnded() || (isStream && examiner.isWhole())) return null
          await settle(false)
          throw error
        })
        if (part === null) {
          await settle(examiner.hasEnded() || examiner.isWhole())
          controller.close()
        } else {
          examiner.see(part)
          controller.enqueue(part)
        }
      },
      async cancel(reason) {
        // SDKs stop at the ending of a stream, and leave the rest. Whether somebody has what he wanted of another body is not known.
        await settle(isStream && examiner.hasEnded())
        await reader.cancel(reason)
      },
    },
    // Nothing is read before the caller asks: what was read is what the caller has.
    { highWaterMark: 0 },
  )
  const answer = new Response(watched, { status, statusText, headers })
  // A response that is made has no address; SDKs log it.
  Object.defineProperty(answer, 'url', { value: response.url })
  Object.defineProperty(answer, 'redirected', { value: response.redirected })
  return answer
}
