import type { Arrival } from './upstream-script.ts'

/** OpenAI's error object. */
export function openaiError(type: string, code: string | null = null, message = `refused: ${type}`): object {
  return { error: { message, type, param: null, code } }
}

/** Anthropic's error object. */
export function anthropicError(type: string, message = `refused: ${type}`, details?: object): object {
  const error = details === undefined ? { type, message } : { details, type, message }
  return { type: 'error', error, request_id: 'req_in_body' }
}

/** An answer to a request, and the tokens that the provider would bill for it. */
export interface UpstreamAnswer {
  body: string
  inputTokens: number
  outputTokens: number
}

/** The answer to a request, as the provider of its path would write it. `call` is in the text, so no two are alike. */
export function upstreamAnswer(arrival: Arrival, call: number, answerBytes: number): UpstreamAnswer {
  const text = `call ${call} `.padEnd(answerBytes, 'x')
  const inputTokens = Math.ceil(arrival.body.length / 4)
  const outputTokens = arrival.path === '/v1/embeddings' ? 0 : Math.ceil(text.length / 4)
  return { body: bodyOf(arrival, call, text, inputTokens, outputTokens), inputTokens, outputTokens }
}

function bodyOf(arrival: Arrival, call: number, text: string, inputTokens: number, outputTokens: number): string {
  const { model } = arrival
  switch (arrival.path) {
    case '/v1/messages':
      return JSON.stringify({
        id: `msg_${call}`,
        type: 'message',
        role: 'assistant',
        model,
        content: [{ type: 'text', text }],
        stop_reason: 'end_turn',
        stop_sequence: null,
        usage: { input_tokens: inputTokens, output_tokens: outputTokens },
      })
    case '/v1/responses':
      return JSON.stringify({
        id: `resp_${call}`,
        object: 'response',
        created_at: 1_700_000_000,
        status: 'completed',
        model,
        output: [
          {
            id: `msg_${call}`,
            type: 'message',
            status: 'completed',
            role: 'assistant',
            content: [{ type: 'output_text', text, annotations: [] }],
          },
        ],
        usage: { input_tokens: inputTokens, output_tokens: outputTokens, total_tokens: inputTokens + outputTokens },
      })
    case '/v1/embeddings':
      return JSON.stringify({
        object: 'list',
        data: [{ object: 'embedding', index: 0, embedding: embeddingOf(arrival, [call, 0.25, -0.5]) }],
        model,
        usage: { prompt_tokens: inputTokens, total_tokens: inputTokens },
      })
    default:
      return JSON.stringify({
        id: `chatcmpl-${call}`,
        object: 'chat.completion',
        created: 1_700_000_000,
        model,
        choices: [{ index: 0, message: { role: 'assistant', content: text, refusal: null }, finish_reason: 'stop' }],
        usage: {
          prompt_tokens: inputTokens,
          completion_tokens: outputTokens,
          total_tokens: inputTokens + outputTokens,
        },
        ...(arrival.json['store'] === true ? { metadata: arrival.json['metadata'] ?? {} } : {}),
      })
  }
}

/** As asked for: the OpenAI SDK asks for base64 unless it is told otherwise. */
function embeddingOf({ json }: Arrival, numbers: number[]): number[] | string {
  if (json['encoding_format'] !== 'base64') return numbers
  return Buffer.from(Float32Array.from(numbers).buffer).toString('base64')
}

const models = ['upstream-chat', 'upstream-embedding'].map((id) => ({
  id,
  object: 'model',
  type: 'model',
  display_name: id,
  created: 1_700_000_000,
  created_at: '2023-11-14T22:13:20Z',
  owned_by: 'askonce',
}))

/** `GET /v1/models` in a shape that both SDKs read. */
export const upstreamModels = JSON.stringify({
  object: 'list',
  data: models,
  has_more: false,
  first_id: 'upstream-chat',
  last_id: 'upstream-embedding',
})

/** The answer to `GET /v1/models/{id}`; undefined: the route is another, or there is no such model. */
export function upstreamModel(route: string): string | undefined {
  const found = models.find(({ id }) => route === `GET /v1/models/${id}`)
  return found && JSON.stringify(found)
}
