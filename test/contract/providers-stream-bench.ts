import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { afterEach } from 'vitest'
import type { Operation, Verdict } from '@askonce/core'
import { createProvider, type Provider, type ProviderCall } from '@askonce/providers'

export const streamed = ['chat.completions', 'responses', 'messages'] as const
const kindOf = (operation: Operation) => (operation === 'messages' ? 'anthropic' : 'openai')
const options = { simulated: { latencyMs: 0, tokens: 12, failureRate: 0 }, prices: [] }
/** The beginning of a key, as a provider echoes it, would be redacted. */
export const apiKey = 'key-1234567890'

export function providerAt(baseUrl: string, operation: Operation): Provider {
  const kind = kindOf(operation)
  return createProvider({ name: kind, kind, baseUrl: kind === 'openai' ? `${baseUrl}/v1` : baseUrl, apiKey }, options)
}

/** What one streamed call brought: its verdict, what was shown meanwhile, and in which order. */
export interface Streamed {
  verdict: Verdict
  shown: string
  /** `id` for the id of the answer, else how many bytes came. */
  order: (number | 'id')[]
  ids: string[]
}

export async function stream(
  provider: Provider,
  operation: Operation,
  more: Partial<Omit<ProviderCall, 'stream'>> & { request?: Buffer; onEvents?: (events: Buffer) => void } = {},
): Promise<Streamed> {
  const { onEvents, ...call } = more
  const shown: Buffer[] = []
  const order: Streamed['order'] = []
  const ids: string[] = []
  const verdict = await provider.call({
    operation,
    model: 'gpt-4o-mini',
    request: requestOf(),
    timeoutMs: 5_000,
    signal: new AbortController().signal,
    ...call,
    stream: {
      onEvents: (bytes) => {
        shown.push(bytes)
        order.push(bytes.length)
        onEvents?.(bytes)
      },
      onAnswerId: (id) => {
        ids.push(id)
        order.push('id')
      },
    },
  })
  return { verdict, shown: Buffer.concat(shown).toString(), order, ids }
}

export function requestOf(more: object = {}): Buffer {
  return Buffer.from(JSON.stringify({ model: 'gpt-4o-mini', stream: true, ...more }))
}

const open: { server: Server; sockets: Set<Socket>; providers: Provider[] }[] = []

afterEach(async () => {
  for (const { server, sockets, providers } of open.splice(0)) {
    await Promise.all(providers.map((provider) => provider.close()))
    for (const socket of sockets) socket.destroy()
    server.close()
  }
})

/** A raw TCP server; `onRequest` is called when a whole request has come on the socket. Closed after the test. */
export async function rawServer(
  onRequest: (socket: Socket) => void,
): Promise<{ url: string; provider: (operation: Operation) => Provider }> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    let text = ''
    socket.on('data', (bytes) => {
      text += bytes.toString('latin1')
      const head = text.indexOf('\r\n\r\n')
      const length = Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0)
      if (head < 0 || text.length < head + 4 + length) return
      text = ''
      onRequest(socket)
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  const url = `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`
  const providers: Provider[] = []
  open.push({ server, sockets, providers })
  const provider = (operation: Operation): Provider => {
    const made = providerAt(url, operation)
    providers.push(made)
    return made
  }
  return { url, provider }
}

/** A response in HTTP chunks: each becomes one piece of the body for the client, however TCP carries them. */
export function chunkedResponse(
  chunks: readonly (Buffer | string)[],
  { headers = 'content-type: text/event-stream\r\n', ending = '0\r\n\r\n' } = {},
): Buffer {
  const head = Buffer.from(`HTTP/1.1 200 OK\r\n${headers}transfer-encoding: chunked\r\n\r\n`)
  const framed = chunks.flatMap((piece) => {
    const bytes = Buffer.from(piece)
    // A chunk of no bytes would be the last.
    return bytes.length === 0 ? [] : [Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')]
  })
  return Buffer.concat([head, ...framed, Buffer.from(ending)])
}

/** Server-sent events: a text is the data itself, an object is sent with its `type` as the name. */
export function events(...list: readonly (object | string)[]): string {
  return list
    .map((event) => {
      if (typeof event === 'string') return `data: ${event}\n\n`
      const name = (event as { type?: string }).type
      return `${name === undefined ? '' : `event: ${name}\n`}data: ${JSON.stringify(event)}\n\n`
    })
    .join('')
}

/** One piece of a chat completion, of one choice. */
export function chunk(delta: object, reason: string | null = null, index = 0): object {
  return { id: 'c-1', model: 'gpt-4o-mini', choices: [{ index, delta, finish_reason: reason }] }
}

export const usageChunk = {
  id: 'c-1',
  model: 'gpt-4o-mini',
  choices: [],
  usage: { prompt_tokens: 1_000, completion_tokens: 500, total_tokens: 1_500 },
}

/** Short whole streams: what may be shown, and what completes them. */
export const transcripts: Record<(typeof streamed)[number], { open: string; ending: string; id: string }> = {
  'chat.completions': {
    open: events(chunk({ role: 'assistant', content: '' }), chunk({ content: 'né€😀' })),
    ending: events(chunk({}, 'stop'), usageChunk, '[DONE]'),
    id: 'c-1',
  },
  responses: {
    open: events(
      { type: 'response.created', response: { id: 'r-1', model: 'gpt-4o-mini', status: 'in_progress', error: null } },
      { type: 'response.output_text.delta', delta: 'né€😀' },
    ),
    ending: events({
      type: 'response.completed',
      response: {
        id: 'r-1',
        model: 'gpt-4o-mini',
        status: 'completed',
        error: null,
        output: [],
        usage: { input_tokens: 1_000, output_tokens: 500, total_tokens: 1_500 },
      },
    }),
    id: 'r-1',
  },
  messages: {
    open: events(
      {
        type: 'message_start',
        message: { id: 'm-1', model: 'claude-sonnet-4-0', usage: { input_tokens: 1_000, output_tokens: 1 } },
      },
      { type: 'ping' },
      { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'né€😀' } },
    ),
    ending: events(
      { type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { input_tokens: null, output_tokens: 500 } },
      { type: 'message_stop' },
    ),
    id: 'm-1',
  },
}
