import type { Response } from './exchange.ts'
import type { JsonObject } from './json-value.ts'
import { withUsage } from './with-usage.ts'

/** Whether the streams of one lane are asked what they cost. */
export interface UsageAsking {
  /** The request with the option that makes a stream end with its usage, or as it is where the server has refused that. */
  forced: (request: Buffer, json: JsonObject) => Buffer
  /** Whether a response refuses what was added to `request`; `sent` are the bytes that went out. */
  isRefused: (response: Response, request: Buffer, sent: Buffer) => boolean
}

/**
 * Some servers refuse the option. Then the lane goes on without, in this process, and what its streams cost is unknown.
 * A refusal may only quote a prompt that speaks of the option: so where one comes that names it although it was not added, the
 * lane asks again. That refusal is the caller's own, and nothing is sent twice for it.
 */
export function createUsageAsking(): UsageAsking {
  let asks = true
  return {
    forced: (request, json) => (asks ? withUsage(request, json) : request),
    isRefused: ({ status, body }, request, sent) => {
      if (status < 400 || status > 499 || !namesOption(body)) return false
      // The caller has asked for it as well: this says nothing about what we add.
      if (request.includes('"stream_options"')) return false
      const added = sent !== request
      asks = !added
      return added
    },
  }
}

function namesOption(body: Buffer): boolean {
  return body.includes('stream_options') || body.includes('include_usage')
}
