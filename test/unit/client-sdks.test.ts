import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Anthropic from '@anthropic-ai/sdk'
import { memoryKeyStore, withIdempotency } from '@askonce/client'
import { leakCheck, spawnNode } from '@askonce/testkit'
import OpenAI from 'openai'
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest'
import { sendJson, startFakeServer } from './client-server.ts'

vi.setConfig({ testTimeout: 60_000 })

const program = new URL('client-crash-program.ts', import.meta.url).pathname

const completion = {
  id: 'chatcmpl-1',
  object: 'chat.completion',
  created: 1,
  model: 'gpt-test',
  choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content: 'hi', refusal: null } }],
}
const message = {
  id: 'msg_1',
  type: 'message',
  role: 'assistant',
  model: 'claude-test',
  content: [{ type: 'text', text: 'hi' }],
  stop_reason: 'end_turn',
  usage: { input_tokens: 1, output_tokens: 1 },
}
const openaiEvents = `data: ${JSON.stringify({ id: 'c', choices: [{ index: 0, delta: { content: 'hi' } }] })}\n\n`
const anthropicEvents =
  `event: message_start\ndata: ${JSON.stringify({ type: 'message_start', message })}\n\n` +
  `event: message_stop\ndata: {"type":"message_stop"}\n\n`

type Server = Awaited<ReturnType<typeof startFakeServer>>
const servers: Server[] = []
const start = async (handle: Parameters<typeof startFakeServer>[0]): Promise<Server> => {
  const server = await startFakeServer(handle)
  servers.push(server)
  return server
}
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.stop()))
})
afterAll(leakCheck)

/** The first send fails in `way`, the others are answered. */
function failingOnce(way: 'reset' | '503', answer: unknown, events: string) {
  return start(({ body }, reply, index) => {
    if (index === 0 && way === 'reset') reply.destroy()
    else if (index === 0) sendJson(reply, 503, { error: { message: 'later' } }, { 'retry-after-ms': '1' })
    else if ((JSON.parse(body) as { stream?: boolean }).stream === true) {
      reply.writeHead(200, { 'content-type': 'text/event-stream' }).end(events)
    } else sendJson(reply, 200, answer)
  })
}

const asks = {
  openai: (server: Server) => {
    const fetch = withIdempotency(globalThis.fetch, { store: memoryKeyStore() })
    const client = new OpenAI({ baseURL: `${server.url}/openai/v1`, apiKey: 'test', fetch })
    const request = { model: 'gpt-test', messages: [{ role: 'user' as const, content: 'once' }] }
    return {
      plain: async () => (await client.chat.completions.create(request)).id,
      async streamed() {
        const texts: string[] = []
        for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) {
          texts.push(chunk.choices[0]?.delta.content ?? '')
        }
        return texts.join('')
      },
    }
  },
  anthropic: (server: Server) => {
    const fetch = withIdempotency(globalThis.fetch, { store: memoryKeyStore() })
    const client = new Anthropic({ baseURL: `${server.url}/anthropic`, apiKey: 'test', fetch })
    const request = { model: 'claude-test', max_tokens: 9, messages: [{ role: 'user' as const, content: 'once' }] }
    return {
      plain: async () => (await client.messages.create(request)).id,
      async streamed() {
        const types: string[] = []
        for await (const event of await client.messages.create({ ...request, stream: true })) types.push(event.type)
        return types.join(' ')
      },
    }
  },
}

describe.each(['reset', '503'] as const)('the first send fails (%s)', (way) => {
  it('openai: the retry of the SDK has the same key, the next call a new one', async () => {
    const server = await failingOnce(way, completion, `${openaiEvents}data: [DONE]\n\n`)
    const { plain, streamed } = asks.openai(server)
    expect(await plain()).toBe('chatcmpl-1')
    expect(await plain()).toBe('chatcmpl-1')
    expect(await streamed()).toBe('hi')
    expect(await streamed()).toBe('hi')
    expectRetried(server)
  })

  it('anthropic: likewise', async () => {
    const server = await failingOnce(way, message, anthropicEvents)
    const { plain, streamed } = asks.anthropic(server)
    expect(await plain()).toBe('msg_1')
    expect(await plain()).toBe('msg_1')
    expect(await streamed()).toBe('message_start message_stop')
    expect(await streamed()).toBe('message_start message_stop')
    expectRetried(server)
  })
})

/** One call in two sends, then three calls. */
function expectRetried(server: Server) {
  const [first, again, ...others] = server.keys()
  expect(again).toBe(first)
  expect(first).toMatch(/^[\da-f-]{36}$/)
  expect(server.arrived.map(({ headers }) => headers['x-stainless-retry-count'])).toEqual(['0', '1', '0', '0', '0'])
  expect(others).toHaveLength(3)
  expect(new Set([first, ...others]).size).toBe(4)
}

it('a stream that is cut, and one that the caller leaves, are asked for again under the same key', async () => {
  const server = await start((_arrived, reply, index) => {
    reply.writeHead(200, { 'content-type': 'text/event-stream' })
    if (index === 0) reply.write(openaiEvents, () => reply.destroy())
    else if (index === 1) reply.write(openaiEvents)
    else reply.end(`${openaiEvents}data: [DONE]\n\n`)
  })
  const fetch = withIdempotency(globalThis.fetch)
  const client = new OpenAI({ baseURL: server.url, apiKey: 'test', fetch, maxRetries: 0 })
  const ask = () =>
    client.chat.completions.create({ model: 'm', stream: true, messages: [{ role: 'user', content: 'once' }] })
  const readAll = async () => {
    const chunks = []
    for await (const chunk of await ask()) chunks.push(chunk)
    return chunks.length
  }
  await expect(readAll()).rejects.toThrow('terminated')
  for await (const chunk of await ask()) {
    expect(chunk.choices).toHaveLength(1)
    break
  }
  expect(await readAll()).toBe(1)
  expect(await readAll()).toBe(1)
  const [first, second, third, fourth] = server.keys()
  expect([second, third]).toEqual([first, first])
  expect(fourth).not.toBe(first)
})

it('a process that is killed after it has sent sends the same key at its next start, and a new one after the answer', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'askonce-client-'))
  const path = join(folder, 'keys')
  let sent: (() => void) | undefined
  const server = await start((_arrived, reply, index) => {
    // The first request is never answered: its process dies waiting.
    if (index > 0) sendJson(reply, 200, completion)
    else sent?.()
  })
  const args = [`${server.url}/openai/v1`, path]
  try {
    const arrival = new Promise<void>((resolve) => {
      sent = resolve
    })
    const first = spawnNode(program, { args })
    await Promise.race([arrival, first.exited])
    expect((await first.kill()).signal).toBe('SIGKILL')
    for (let run = 0; run < 2; run += 1) {
      const next = spawnNode(program, { args })
      expect(await next.exited, next.stderr.join('\n')).toEqual({ code: 0, signal: null })
      expect(next.stdout).toEqual(['answered chatcmpl-1'])
    }
    const [killed, resumed, later] = server.keys()
    expect(resumed).toBe(killed)
    expect(later).not.toBe(killed)
    expect(await readdir(folder)).toEqual(['keys'])
  } finally {
    await rm(folder, { recursive: true })
  }
})
