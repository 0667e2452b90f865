import { canonicalize, type JsonObject } from '@askonce/core'
import { decodeBody, parseText } from './body.ts'
import { IntakeError } from './error.ts'
import type { AskedRequest, JobFactory, PreparedJob } from './new-job.ts'
import { storedMetadata } from './stored-metadata.ts'

/** A call of a provider's own API, beside its body. */
export interface AskedCall extends Omit<AskedRequest, 'key' | 'request' | 'text' | 'base'> {
  /** What a `previous_response_id` of ours stands for; null: it is none of ours. */
  previous: PreviousResponse | null
}

/** A response by the id that a background one has at first, and by the provider's own; or why that cannot be gone on from. */
export interface PreviousResponse {
  ours: string
  providers: string | null
  refusal: string
}

export interface PreparedCall extends PreparedJob {
  /** The caller wants a receipt at once. */
  background: boolean
  /** Whether it asked for the usage at the end of its stream. */
  wantsUsage: boolean
}

/** The job that a call of a stock SDK asks for; its key is the caller's business. */
export function prepareCall(factory: JobFactory, call: AskedCall, body: Uint8Array): PreparedCall {
  const parsed = parseText(decodeBody(body))
  if (typeof parsed.value !== 'object' || parsed.value === null || Array.isArray(parsed.value)) {
    throw new IntakeError('invalid_request', 'The body must be a JSON object.', '')
  }
  const { operation, options } = call
  const asked = parsed.value as JsonObject
  const { background, ...rest } = asked
  const receipt = operation === 'responses' && background !== undefined
  const own = receipt ? rest : asked
  if (receipt && typeof background !== 'boolean' && background !== null) {
    throw new IntakeError('invalid_request', '/background: must be true or false', '/background')
  }
  const replaced = call.previous === null ? null : withProvidersId(own, call.previous)
  const request = replaced ?? own
  // What the caller asks the provider to store is found again here by the same metadata, which those of the header leave as they are.
  const stored = operation === 'chat.completions' ? storedMetadata(request) : null
  const prepared = factory.fromRequest({
    ...call,
    key: '',
    request,
    // Every job runs in the background here; the provider would answer with a receipt.
    text: receipt || replaced !== null ? canonicalize(request) : parsed.textOf(asked),
    base: [],
    options: stored === null ? options : { ...options, metadata: { ...options.metadata, ...stored } },
  })
  const { stream_options: streaming } = request
  const wantsUsage =
    typeof streaming === 'object' && streaming !== null && (streaming as JsonObject)['include_usage'] === true
  return { ...prepared, background: background === true, wantsUsage }
}

const param = '/previous_response_id'

/** The request with the provider's own id in place of ours, so that the key names the same request whichever of the two is sent. */
function withProvidersId(request: JsonObject, { ours, providers, refusal }: PreviousResponse): JsonObject | null {
  if (request['previous_response_id'] !== ours) return null
  if (providers === null) throw new IntakeError('invalid_request', `${param}: ${refusal}`, param)
  return { ...request, previous_response_id: providers }
}
