import { isObject, type JsonObject } from './json-value.ts'

/** The events that say the same as a simulated answer, as the provider of its endpoint writes them; null: it has no streams. */
export function simulatedEvents(path: string, answer: JsonObject, request: JsonObject): Buffer[] | null {
  return makers[path]?.(answer, request) ?? null
}

const makers: Record<string, (answer: JsonObject, request: JsonObject) => Buffer[]> = {
  '/v1/chat/completions': (answer, request) => {
    const { choices, usage, ...head } = answer
    const [choice] = choices as { message: { content: string }; finish_reason: string }[]
    const options = request['stream_options']
    const withUsage = isObject(options) && options['include_usage'] === true
    const chunk = (delta: object, reason: string | null = null): JsonObject => ({
      ...head,
      object: 'chat.completion.chunk',
      choices: [{ index: 0, delta, logprobs: null, finish_reason: reason }],
      ...(withUsage ? { usage: null } : {}),
    })
    return [
      chunk({ role: 'assistant', content: '', refusal: null }),
      ...piecesOf(choice?.message.content ?? '').map((content) => chunk({ content })),
      chunk({}, choice?.finish_reason),
      ...(withUsage ? [{ ...head, object: 'chat.completion.chunk', choices: [], usage }] : []),
      '[DONE]',
    ].map((data) => eventOf(null, data))
  },
  '/v1/responses': (answer) => {
    const [item] = answer['output'] as [JsonObject & { id: string; content: [JsonObject & { text: string }] }]
    const [part] = item.content
    const begun = { ...answer, status: 'in_progress', output: [], usage: null }
    const at = { item_id: item.id, output_index: 0, content_index: 0 }
    return numbered([
      { type: 'response.created', response: begun },
      { type: 'response.in_progress', response: begun },
      { type: 'response.output_item.added', output_index: 0, item: { ...item, status: 'in_progress', content: [] } },
      { type: 'response.content_part.added', ...at, part: { ...part, text: '' } },
      ...piecesOf(part.text).map((delta) =>
        Object.assign({ type: 'response.output_text.delta', delta, logprobs: [] }, at),
      ),
      { type: 'response.output_text.done', ...at, text: part.text, logprobs: [] },
      { type: 'response.content_part.done', ...at, part },
      { type: 'response.output_item.done', output_index: 0, item },
      { type: 'response.completed', response: answer },
    ])
  },
  '/v1/messages': (answer) => {
    const { content, usage, stop_reason: reason, stop_sequence: sequence } = answer
    const [block] = content as [{ type: string; text: string }]
    const { input_tokens: input, output_tokens: output } = usage as { input_tokens: number; output_tokens: number }
    const message = { ...answer, content: [], stop_reason: null, usage: { input_tokens: input, output_tokens: 1 } }
    return [
      { type: 'message_start', message },
      { type: 'content_block_start', index: 0, content_block: { ...block, text: '' } },
      { type: 'ping' },
      ...piecesOf(block.text).map((text) => ({
        type: 'content_block_delta',
        index: 0,
        delta: { type: 'text_delta', text },
      })),
      { type: 'content_block_stop', index: 0 },
      {
        type: 'message_delta',
        delta: { stop_reason: reason, stop_sequence: sequence },
        usage: { output_tokens: output },
      },
      { type: 'message_stop' },
    ].map((data) => eventOf(data.type, data))
  },
}

function numbered(events: { type: string; [name: string]: unknown }[]): Buffer[] {
  return events.map((event, index) => eventOf(event.type, { ...event, sequence_number: index }))
}

function eventOf(name: string | null, data: object | string): Buffer {
  const text = typeof data === 'string' ? data : JSON.stringify(data)
  return Buffer.from(`${name === null ? '' : `event: ${name}\n`}data: ${text}\n\n`)
}

/** Words with the space before them. */
function piecesOf(text: string): string[] {
  return text.match(/ ?[^ ]+/g) ?? []
}
