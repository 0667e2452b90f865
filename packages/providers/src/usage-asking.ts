import { createHash } from 'node:crypto'
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
 * A refusal may only quote it: from a prompt that speaks of it, or because it repeats the whole request, with what was added. So the same
 * request goes once more without it, and if that is refused as well, or the option named although it was not added, the lane asks again.
 * That refusal is the caller's own, and nothing is sent twice for it.
 */
export function createUsageAsking(): UsageAsking {
  let asks = true
  /** Hashes of requests that were refused with the option and have not been sent without. */
  const refused = new Set<string>()
  return {
    forced: (request, json) => {
      const isKnown = refused.size > 0 && refused.has(hashOf(request))
      return asks && !isKnown ? withUsage(request, json) : request
    },
    isRefused: ({ status, body }, request, sent) => {
      const added = sent !== request
      const wasRefused = !added && refused.size > 0 && refused.delete(hashOf(request))
      if (status < 400 || status > 499) return false
      if (wasRefused && isAboutRequest(status)) asks = true
      // The caller has asked for it as well: this says nothing about what we add.
      if (!namesOption(body) || request.includes('"stream_options"')) return false
      asks = !added
      if (added && refused.size < maxRefused) refused.add(hashOf(request))
      return added
    },
  }
}

/** More of them than a lane has under way at once are jobs that were never sent again. */
const maxRefused = 10_000

function hashOf(request: Buffer): string {
  return createHash('sha256').update(request).digest('base64')
}

/** Not the credentials, the limits or the moment. */
function isAboutRequest(status: number): boolean {
  return status === 400 || status === 422
}

function namesOption(body: Buffer): boolean {
  return body.includes('stream_options') || body.includes('include_usage')
}
