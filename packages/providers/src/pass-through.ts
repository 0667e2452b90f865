import { request } from 'undici'
import { parseBaseUrl, requestHeaders } from './endpoint.ts'
import { headerValue, requestId } from './exchange.ts'
import type { LaneEndpoint } from './provider.ts'
import { createScrubber } from './scrub.ts'

const timeoutMs = 30_000
const maxBytes = 8 * 1024 * 1024

/** A question to a provider that costs nothing and makes no job: which models there are, how many tokens a request has. */
export interface Question {
  method: 'GET' | 'POST'
  /** Below the base URL, with its query. */
  path: string
  body: Buffer | null
  /** Of the caller, beside ours, which win. */
  headers: Readonly<Record<string, string>>
  /** Aborted when the caller has gone. */
  signal: AbortSignal
}

/** The provider's words; `lost`: there are none, for this reason. */
export type Reply =
  | {
      kind: 'reply'
      status: number
      contentType: string
      body: Buffer
      requestId: string | null
      retryAfter: string | null
    }
  | { kind: 'lost'; detail: string }

/** Asks the provider of a lane once, within half a minute and 8 MiB. Never rejects. */
export async function passThrough(lane: LaneEndpoint, question: Question): Promise<Reply> {
  const { kind, apiKey } = lane
  if (kind === 'simulated') return { kind: 'lost', detail: 'the simulated provider does not answer this' }
  const scrub = createScrubber(apiKey)
  try {
    const { origin, pathPrefix } = parseBaseUrl(kind, lane.baseUrl)
    const { statusCode, headers, body } = await request(origin + pathPrefix + question.path, {
      method: question.method,
      headers: { ...question.headers, ...requestHeaders(kind, apiKey) },
      body: question.body,
      signal: AbortSignal.any([question.signal, AbortSignal.timeout(timeoutMs)]),
    })
    const chunks: Buffer[] = []
    let bytes = 0
    for await (const chunk of body as AsyncIterable<Buffer>) {
      bytes += chunk.length
      // Leaving the loop closes the socket.
      if (bytes > maxBytes) return { kind: 'lost', detail: `the provider answered with more than ${maxBytes} bytes` }
      chunks.push(chunk)
    }
    const text = (name: string): string | null => headerValue(headers, name)
    return {
      kind: 'reply',
      status: statusCode,
      contentType: text('content-type') ?? 'application/json',
      body: Buffer.concat(chunks),
      requestId: requestId(headers),
      retryAfter: text('retry-after'),
    }
  } catch (error) {
    return { kind: 'lost', detail: scrub(error instanceof Error ? error.message || error.name : String(error)) }
  }
}
