import { startUpstream, type Arrival, type Behaviour, type Upstream } from '@askonce/testkit'

/**
 * A counting upstream that plays an agent's provider: a request with tools and without their results is answered with a call of the
 * first tool, every other one with text; streamed where that is asked for.
 */
export async function startAgentUpstream(): Promise<Upstream> {
  const upstream = await startUpstream()
  upstream.script(answerTo)
  return upstream
}

const argumentsText = JSON.stringify({ city: 'Oslo' })
const usage = { input_tokens: 10, output_tokens: 5, total_tokens: 15 }

function answerTo(arrival: Arrival): Behaviour | undefined {
  const { json, path, number } = arrival
  if (path === '/v1/embeddings') return { kind: 'answer', body: embeddings(arrival) }
  if (!asksForTool(json)) return undefined
  const make = path === '/v1/messages' ? playMessage : path === '/v1/responses' ? playResponse : playCompletion
  const { body, events } = make(json, number)
  return json['stream'] === true ? { kind: 'answer', events } : { kind: 'answer', body: JSON.stringify(body) }
}

/** Tools, and no result of one yet. A schema that is forced as a tool (instructor) is one like the others. */
function asksForTool(json: Record<string, unknown>): boolean {
  if (!Array.isArray(json['tools']) || json['tools'].length === 0) return false
  return !/"role":"tool"|"function_call_output"|"tool_result"/.test(JSON.stringify([json['messages'], json['input']]))
}

function nameOfTool(json: Record<string, unknown>): string {
  const [tool] = json['tools'] as { name?: string; function?: { name: string } }[]
  return tool?.name ?? tool?.function?.name ?? ''
}

interface Played {
  body: object
  events: (object | string)[]
}

function playCompletion(json: Record<string, unknown>, number: number): Played {
  const head = { id: `chatcmpl-${number}`, created: 1_700_000_000, model: json['model'] }
  const call = {
    id: `call_${number}`,
    type: 'function',
    function: { name: nameOfTool(json), arguments: argumentsText },
  }
  const counts = { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 }
  const message = { role: 'assistant', content: null, refusal: null, tool_calls: [call] }
  const chunk = (delta: object, reason: string | null): object => ({
    ...head,
    object: 'chat.completion.chunk',
    choices: [{ index: 0, delta, finish_reason: reason }],
  })
  return {
    body: {
      ...head,
      object: 'chat.completion',
      choices: [{ index: 0, message, finish_reason: 'tool_calls' }],
      usage: counts,
    },
    events: [
      chunk({ role: 'assistant', content: null, tool_calls: [{ index: 0, ...call }] }, null),
      chunk({}, 'tool_calls'),
      { ...head, object: 'chat.completion.chunk', choices: [], usage: counts },
      '[DONE]',
    ],
  }
}

function playResponse(json: Record<string, unknown>, number: number): Played {
  const item = {
    id: `fc_${number}`,
    type: 'function_call',
    status: 'completed',
    call_id: `call_${number}`,
    name: nameOfTool(json),
    arguments: argumentsText,
  }
  const body = {
    id: `resp_${number}`,
    object: 'response',
    created_at: 1_700_000_000,
    status: 'completed',
    model: json['model'],
    output: [item],
    usage,
  }
  const place = { item_id: item.id, output_index: 0 }
  const begun = { ...body, status: 'in_progress', output: [], usage: null }
  const events = [
    { type: 'response.created', response: begun },
    { type: 'response.output_item.added', output_index: 0, item: { ...item, status: 'in_progress', arguments: '' } },
    { type: 'response.function_call_arguments.delta', ...place, delta: argumentsText },
    { type: 'response.function_call_arguments.done', ...place, arguments: argumentsText },
    { type: 'response.output_item.done', output_index: 0, item },
    { type: 'response.completed', response: body },
  ]
  return { body, events: events.map((event, at) => Object.assign(event, { sequence_number: at })) }
}

function playMessage(json: Record<string, unknown>, number: number): Played {
  const block = { type: 'tool_use', id: `toolu_${number}`, name: nameOfTool(json) }
  const body = {
    id: `msg_${number}`,
    type: 'message',
    role: 'assistant',
    model: json['model'],
    content: [{ ...block, input: { city: 'Oslo' } }],
    stop_reason: 'tool_use',
    stop_sequence: null,
    usage: { input_tokens: 10, output_tokens: 5 },
  }
  const begun = { ...body, content: [], stop_reason: null, usage: { input_tokens: 10, output_tokens: 1 } }
  return {
    body,
    events: [
      { type: 'message_start', message: begun },
      { type: 'content_block_start', index: 0, content_block: { ...block, input: {} } },
      { type: 'content_block_delta', index: 0, delta: { type: 'input_json_delta', partial_json: argumentsText } },
      { type: 'content_block_stop', index: 0 },
      {
        type: 'message_delta',
        delta: { stop_reason: 'tool_use', stop_sequence: null },
        usage: { output_tokens: 5 },
      },
      { type: 'message_stop' },
    ],
  }
}

/** A vector for each text, and as base64 where that is asked for. */
function embeddings({ json }: Arrival): string {
  const input = Array.isArray(json['input']) ? json['input'] : [json['input']]
  const vector = (index: number): number[] | string => {
    const numbers = [index + 0.5, 0.25]
    return json['encoding_format'] === 'base64'
      ? Buffer.from(Float32Array.from(numbers).buffer).toString('base64')
      : numbers
  }
  return JSON.stringify({
    object: 'list',
    data: input.map((_, index) => ({ object: 'embedding', index, embedding: vector(index) })),
    model: json['model'],
    usage: { prompt_tokens: 10, total_tokens: 10 },
  })
}
