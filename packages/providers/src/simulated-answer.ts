import { createHash } from 'node:crypto'
import type { Response } from './exchange.ts'
import { isObject, parseBody, stringMember, type JsonObject } from './json-value.ts'
import { simulatedEvents } from './simulated-stream.ts'

/** Numbers of an embedding when the request does not ask for another length. */
const defaultDimensions = 8
const maxDimensions = 8_192

interface Draft {
  model: string
  /** 24 hexadecimal digits that depend on the request only. */
  digest: string
  text: string
  inputTokens: number
  outputTokens: number
  createdS: number
}

/**
 * The simulated response of an endpoint: the same request always gets the same text or numbers, streamed or not. A streamed one
 * comes with its events, which are its body.
 */
export function simulatedAnswer(path: string, body: Buffer, tokens: number): Response & { events: Buffer[] | null } {
  const request = parseBody(body)
  const bodyOf = makers[path]
  if (!isObject(request) || bodyOf === undefined) return Object.assign(invalid(), { events: null })
  const { stream, stream_options: _, ...asked } = request
  const plain = Buffer.from(JSON.stringify(asked))
  const written = Math.min(tokens, outputLimit(request))
  const digest = createHash('sha256').update(plain).digest('hex').slice(0, 24)
  const made = bodyOf(
    {
      model: stringMember(request, 'model') ?? 'simulated',
      digest,
      text: textOf(digest, written),
      inputTokens: Math.ceil(plain.length / 4),
      outputTokens: written,
      createdS: Math.floor(Date.now() / 1_000),
    },
    request,
  )
  const answer = { ...made, system_fingerprint: 'simulated' }
  const response = respond(200, answer, digest)
  const events = stream === true ? simulatedEvents(path, answer, request) : null
  if (events === null) return Object.assign(response, { events })
  const headers = Object.assign(response.headers, { 'content-type': 'text/event-stream; charset=utf-8' })
  return Object.assign(response, { headers, body: Buffer.concat(events), events })
}

/** It never writes more than it is asked for. */
function outputLimit(request: JsonObject): number {
  const limits = ['max_tokens', 'max_completion_tokens', 'max_output_tokens'].map((name) => request[name])
  return Math.min(
    Number.POSITIVE_INFINITY,
    ...limits.filter((limit): limit is number => typeof limit === 'number' && limit > 0),
  )
}

function invalid(): Response {
  const message = 'The simulated provider needs a JSON object at one of its endpoints.'
  return respond(400, { error: { message, type: 'invalid_request_error', param: null, code: null } }, 'none')
}

function respond(status: number, body: JsonObject, digest: string): Response {
  const headers = { 'content-type': 'application/json', 'x-request-id': `sim-${digest}` }
  return { kind: 'response', status, headers, body: Buffer.from(JSON.stringify(body)) }
}

const makers: Record<string, (draft: Draft, request: JsonObject) => JsonObject> = {
  '/v1/chat/completions': ({ model, digest, text, inputTokens, outputTokens, createdS }) => ({
    id: `sim_${digest}`,
    object: 'chat.completion',
    created: createdS,
    model,
    choices: [
      { index: 0, message: { role: 'assistant', content: text, refusal: null }, logprobs: null, finish_reason: 'stop' },
    ],
    usage: { prompt_tokens: inputTokens, completion_tokens: outputTokens, total_tokens: inputTokens + outputTokens },
  }),
  '/v1/responses': ({ model, digest, text, inputTokens, outputTokens, createdS }) => ({
    id: `sim_${digest}`,
    object: 'response',
    created_at: createdS,
    status: 'completed',
    error: null,
    incomplete_details: null,
    model,
    output: [
      {
        id: `sim_msg_${digest}`,
        type: 'message',
        status: 'completed',
        role: 'assistant',
        content: [{ type: 'output_text', text, annotations: [] }],
      },
    ],
    usage: { input_tokens: inputTokens, output_tokens: outputTokens, total_tokens: inputTokens + outputTokens },
  }),
  '/v1/messages': ({ model, digest, text, inputTokens, outputTokens }) => ({
    id: `sim_${digest}`,
    type: 'message',
    role: 'assistant',
    model,
    content: [{ type: 'text', text }],
    stop_reason: 'end_turn',
    stop_sequence: null,
    usage: { input_tokens: inputTokens, output_tokens: outputTokens },
  }),
  '/v1/embeddings': ({ model, digest, inputTokens }, request) => ({
    id: `sim_${digest}`,
    object: 'list',
    data: inputsOf(request['input']).map((input, index) => ({
      object: 'embedding',
      index,
      embedding: embeddingOf(input, request['dimensions'], request['encoding_format']),
    })),
    model,
    usage: { prompt_tokens: inputTokens, total_tokens: inputTokens },
  }),
}

const words =
  'the answer of this simulated model is made from a digest so that equal questions get equal words while nothing is known or paid'.split(
    ' ',
  )

function textOf(digest: string, tokens: number): string {
  const pick = numbersFrom(digest)
  const rest = Array.from({ length: Math.max(tokens - 3, 0) }, () => words[pick() % words.length])
  return ['Simulated', 'answer', `${digest.slice(0, 8)}:`, ...rest].join(' ')
}

/** One text, several texts, one list of tokens, or several of them. */
function inputsOf(input: unknown): string[] {
  const several = Array.isArray(input) && input.length > 0 && typeof input[0] !== 'number'
  return (several ? (input as unknown[]) : [input]).map((one) => JSON.stringify(one ?? null))
}

function embeddingOf(input: string, dimensions: unknown, format: unknown): number[] | string {
  const asked = typeof dimensions === 'number' && Number.isInteger(dimensions) ? dimensions : defaultDimensions
  const pick = numbersFrom(createHash('sha256').update(input).digest('hex').slice(0, 24))
  const raw = Float32Array.from({ length: Math.min(Math.max(asked, 1), maxDimensions) }, () => pick() / 2 ** 31 - 1)
  const norm = Math.hypot(...raw) || 1
  const unit = raw.map((value) => value / norm)
  // Typed arrays have the machine's byte order, little-endian on everything that Node runs on, as the format wants.
  return format === 'base64' ? Buffer.from(unit.buffer).toString('base64') : [...unit]
}

/** 32-bit numbers that follow from a seed: xorshift, which is random enough for filler. */
function numbersFrom(digest: string): () => number {
  let state = Number.parseInt(digest.slice(0, 8), 16) || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state >>> 0
  }
}
