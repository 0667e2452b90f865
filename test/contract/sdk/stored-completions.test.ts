import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bootstrapKey, chat, first, startHarness, type Harness } from '../api/harness.ts'

let harness: Harness
let openai: OpenAI
let jobs = 0

beforeAll(async () => {
  harness = await startHarness()
  openai = new OpenAI({ apiKey: bootstrapKey, baseURL: `${harness.api.address}/openai/v1`, maxRetries: 0 })
})

afterAll(() => harness.stop())

/** Answers the job with a completion of this length at least. */
async function answer(id: string, answerId: string, length: number): Promise<void> {
  const message = { role: 'assistant', content: 'x'.repeat(length) }
  const completion = {
    id: answerId,
    object: 'chat.completion',
    created: 1,
    model: 'm',
    choices: [{ index: 0, message }],
  }
  await harness.end(await harness.claim(id), {
    action: 'answer',
    outcome: 'answered',
    billing: 'billed',
    response: Buffer.from(JSON.stringify(completion)),
    contentType: 'application/json',
    answerId,
    providerStatus: 200,
    error: null,
    errorCode: null,
  })
}

interface Asked {
  body?: object
  /** Members of a submission. */
  options?: object
  native?: boolean
  /** The body as it is sent. */
  text?: string
  length?: number
}

/** A chat completion that is answered; its id. */
async function asked({ body = {}, options = {}, native = false, text, length = 1 }: Asked): Promise<string> {
  jobs += 1
  const answerId = `chatcmpl-${jobs}`
  const { request } = chat(answerId)
  const asking = { ...request, ...body }
  const reply = native
    ? await harness.submit(answerId, { operation: 'chat.completions', request: asking, ...options })
    : await harness.call('POST', '/openai/v1/chat/completions', {
        body: text ?? asking,
        headers: {
          'idempotency-key': answerId,
          'askonce-options': JSON.stringify(options),
          prefer: 'respond-async',
        },
      })
  expect(reply.status, reply.text).toBe(202)
  await answer(reply.json['id'] ?? '', answerId, length)
  return answerId
}

async function listed(metadata: Record<string, string>, limit = 2): Promise<string[]> {
  const ids: string[] = []
  for await (const { id } of openai.chat.completions.list({ metadata, limit })) ids.push(id)
  return ids
}

describe('stored completions', () => {
  it('are those of requests with store: true, whatever metadata other jobs have', async () => {
    const metadata = { run: 'marker' }
    const stored = [await asked({ body: { store: true, metadata } })]
    const others = [
      await asked({ options: { metadata }, native: true }),
      await asked({ options: { metadata } }),
      await asked({ body: { metadata }, options: { metadata } }),
      await asked({ body: { store: false, metadata }, options: { metadata } }),
      await asked({ body: { messages: [{ role: 'user', content: '"store":true' }] }, options: { metadata } }),
      await asked({ body: { store: true, metadata: { run: 'other' } } }),
    ]
    stored.push(await asked({ body: { store: true, metadata } }))
    expect(await listed(metadata)).toEqual(stored)
    expect(await listed(metadata, 1)).toEqual(stored)
    for (const id of others.slice(0, -1)) {
      await expect(openai.chat.completions.retrieve(id)).rejects.toBeInstanceOf(OpenAI.NotFoundError)
      await expect(openai.chat.completions.list({ after: id })).rejects.toBeInstanceOf(OpenAI.NotFoundError)
    }
    for (const id of stored) expect(await openai.chat.completions.retrieve(id)).toMatchObject({ id })
  })

  it('are found behind many others', async () => {
    const metadata = { run: 'many' }
    const stored = [await asked({ body: { store: true, metadata } })]
    for (let index = 0; index < 60; index += 1) {
      await asked({ body: { store: false }, options: { metadata }, native: true })
    }
    stored.push(await asked({ body: { store: true, metadata } }))
    expect(await listed(metadata)).toEqual(stored)
  })

  it('are known by what the JSON says, not by how it is written', async () => {
    const text = String.raw`{"model":"simulated/small","messages":[{"role":"user","content":"escaped"}],"\u0073tore":true,"metadata":{"run":"escaped"}}`
    expect(await listed({ run: 'escaped' })).toEqual([])
    const id = await asked({ text })
    expect(await listed({ run: 'escaped' })).toEqual([id])
  })

  it('keep their metadata beside those of our own options, which do not change them', async () => {
    const id = await asked({
      body: { store: true, metadata: { run: 'both', name: 'stored' } },
      options: { metadata: { team: 'red', name: 'ours' } },
    })
    expect(await listed({ run: 'both', name: 'stored' })).toEqual([id])
    expect(await listed({ team: 'red' })).toEqual([])
    const [job] = await harness.sql('select metadata from jobs join answers on job_id = id where answer_id = $1', [id])
    expect(job).toEqual({ metadata: { run: 'both', name: 'stored', team: 'red' } })
  })

  it('come in pages of so many bytes, however many are asked for', async () => {
    const metadata = { run: 'large' }
    const length = 9_000_000
    const stored: string[] = []
    for (let index = 0; index < 3; index += 1) {
      stored.push(await asked({ body: { store: true, metadata }, length }))
    }
    const page = await openai.chat.completions.list({ metadata, limit: 100 })
    expect(page.data.map(({ id }) => id)).toEqual([first(stored)])
    expect(page.has_more).toBe(true)
    expect(await listed(metadata, 100)).toEqual(stored)
    const newest = await openai.chat.completions.list({ metadata, limit: 100, order: 'desc' })
    expect(newest.data.map(({ id }) => id)).toEqual(stored.slice(-1))
  })
})
