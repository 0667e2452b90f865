import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Anthropic from '@anthropic-ai/sdk'
import {
  Askonce,
  AskonceError,
  isSettled,
  withIdempotency,
  type Job,
  type KeyedSubmission,
  type StreamEvent,
} from '@askonce/client'
import { leakCheck, reapAll, spawnNode, type Child } from '@askonce/testkit'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

// The whole system with its simulated provider, as `npm start` runs it, and the client in front of it.

const askonce = new URL('../../../apps/cli/bin/askonce.js', import.meta.url).pathname
const apiKey = 'client-test-key-0001'
const unknownId = '01890000-0000-7000-8000-000000000000'

let directory = ''
let child: Child
let address = ''
let client: Askonce

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'askonce-client-'))
  child = spawnNode(askonce, {
    args: ['start'],
    ownGroup: true,
    env: {
      ASKONCE_DATA_DIR: join(directory, 'data'),
      ASKONCE_BOOTSTRAP_KEY: apiKey,
      ASKONCE_SIMULATED_LATENCY_MS: '200',
      PORT: '0',
    },
  })
  const line = await child.waitForLine(/"event":"api\.started"/, 90_000)
  await child.waitForLine(/"event":"worker\.started"/, 90_000)
  address = (JSON.parse(line.input) as { address: string }).address
  client = new Askonce({ baseUrl: address, apiKey })
})
afterAll(async () => {
  child.signal('SIGTERM')
  await child.exited
  await reapAll()
  await rm(directory, { recursive: true, force: true })
  await leakCheck()
})

const question = (key: string, extra: Partial<KeyedSubmission> = {}): KeyedSubmission => ({
  key,
  operation: 'chat.completions',
  request: { model: 'simulated/small', messages: [{ role: 'user', content: key }] },
  ...extra,
})
const tomorrow = { delay_seconds: 86_400 }

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = []
  for await (const item of items) list.push(item)
  return list
}

const failure = (promise: Promise<unknown>) => promise.then(() => null).catch((error: unknown) => error)

describe('the native API', () => {
  it('submit, wait, read, forget', async () => {
    const submitted = await client.submit(question('life', { metadata: { of: 'life' } }))
    expect([submitted.key, submitted.replayed, isSettled(submitted)]).toEqual(['life', false, false])
    const job = await client.wait(submitted.id)
    expect([job.id, job.state, job.attempts, job.metadata]).toEqual([submitted.id, 'succeeded', 1, { of: 'life' }])
    expect(await client.get(job.id)).toEqual(job)
    const again = await client.submit(question('life'), { wait: 5 })
    expect([again.id, again.replayed]).toEqual([job.id, true])
    const { bytes, contentType, providerStatus } = await client.response(job.id)
    expect([contentType, providerStatus]).toEqual(['application/json', 200])
    expect(JSON.parse(new TextDecoder().decode(bytes))).toEqual(job.response)
    const { data, summary } = await client.attempts(job.id)
    expect([data.length, data[0]?.outcome, summary.calls, summary.duplicate]).toEqual([1, 'answered', 1, 'no'])
    expect(await client.remove(job.id)).toEqual({ id: job.id, object: 'job', deleted: true })
    expect(await failure(client.get(job.id))).toMatchObject({ code: 'not_found', status: 404 })
  })

  it('decides about jobs, and says why not', async () => {
    const { id } = await client.submit(question('later', tomorrow))
    expect(await failure(client.fail(id))).toMatchObject({ code: 'state_conflict', status: 409, state: 'queued' })
    expect(await failure(client.remove(id))).toMatchObject({ code: 'state_conflict', state: 'queued' })
    const cancelled = await client.cancel(id, { reason: 'not wanted' })
    expect([cancelled.state, cancelled.generation]).toEqual(['cancelled', 1])
    expect(await failure(client.retry(id, { generation: 7 }))).toMatchObject({ param: '/generation' })
    expect((await client.retry(id, { generation: 1 })).generation).toBe(2)
    expect((await client.wait(id)).state).toBe('succeeded')
    expect(await failure(client.cancel(unknownId))).toMatchObject({ code: 'not_found' })
  })

  it('errors have code, place and request id', async () => {
    await client.submit(question('mine', tomorrow))
    const other = {
      ...question('mine'),
      request: { model: 'simulated/small', messages: [{ role: 'user', content: '?' }] },
    }
    const reused = await failure(client.submit(other))
    expect(reused).toBeInstanceOf(AskonceError)
    expect(reused).toMatchObject({
      code: 'idempotency_key_reused',
      status: 422,
      retryable: false,
      param: 'Idempotency-Key',
      pointers: ['/request/messages/0/content'],
    })
    expect((reused as AskonceError).requestId).toMatch(/./)
    const stranger = new Askonce({ baseUrl: address, apiKey: 'nobody-knows-this-key' })
    expect(await failure(stranger.get(unknownId))).toMatchObject({ code: 'unauthorized', status: 401 })
    const wrong = { ...question('wrong'), operation: 'nothing' } as unknown as KeyedSubmission
    expect(await failure(client.submit(wrong))).toMatchObject({ code: 'invalid_request', param: '/operation' })
  })

  it('submits many, each with its own outcome in order, and lists them page by page', async () => {
    const items = Array.from({ length: 25 }, (_, index) => question(`many-${index}`, tomorrow))
    items[3] = { ...question('bad'), request: {} }
    items[7] = question('many-6', { request: { model: 'simulated/small', messages: [{ role: 'user', content: 'x' }] } })
    const outcomes = await all(client.submitMany(items, { maxItems: 10 }))
    expect(outcomes.map(({ index, key }) => [index, key])).toEqual(items.map(({ key }, index) => [index, key]))
    expect(outcomes.filter(({ error }) => error !== null)).toMatchObject([
      { index: 3, status: 400, error: { code: 'invalid_request', param: '/request/model' } },
      { index: 7, status: 422, error: { code: 'idempotency_key_reused', pointers: ['/request/messages/0/content'] } },
    ])
    const ids = outcomes.flatMap(({ job }) => job?.id ?? [])
    const listed: Job[] = []
    for await (const job of client.list({ state: 'queued', limit: 4 })) listed.push(job)
    expect(listed.map(({ id }) => id)).toEqual(expect.arrayContaining(ids))
    expect(new Set(listed.map(({ id }) => id)).size).toBe(listed.length)
    const page = await client.listPage({ key: 'many-0' })
    expect([page.data.map(({ id }) => id), page.has_more]).toEqual([[ids[0]], false])
  })

  it('runs a batch that goes on where it was left, and pays for each item once', async () => {
    const items = Array.from({ length: 40 }, (_, index) => question(`batch-${index}`))
    let seen = 0
    for await (const { job } of client.runAll(items, { maxUnsettled: 20 })) {
      expect(job?.state).toBe('succeeded')
      seen += 1
      if (seen === 5) break
    }
    const results = await all(client.runAll(items))
    expect(results.map(({ key }) => key).toSorted()).toEqual(items.map(({ key }) => key).toSorted())
    expect(new Set(results.map(({ job }) => `${job?.state} ${job?.attempts}`))).toEqual(new Set(['succeeded 1']))
  })

  it('follows a stream from its beginning, from the middle, and when it is finished', async () => {
    const { id } = await client.submit(question('told', { stream: true }))
    const live = await all(client.stream(id))
    const last = JSON.parse(live.at(-1)?.data ?? '') as Job
    expect([live.at(-1)?.event, last.id, last.state, last.streamed]).toEqual(['job', id, 'succeeded', true])
    expect(live.at(-2)?.data).toBe('[DONE]')
    const middle = live[Math.floor(live.length / 2)] as StreamEvent
    const rest = await all(client.stream(id, { lastEventId: middle.id ?? '' }))
    const shown = (events: StreamEvent[]) => events.map(({ id: eventId, data }) => `${eventId} ${data}`).slice(0, -1)
    expect(shown(rest)).toEqual(shown(live.slice(live.indexOf(middle) + 1)))
    expect(shown(await all(client.stream(id)))).toEqual(shown(live))
    const { id: plain } = await client.submit(question('plain'))
    expect(await failure(all(client.stream(plain)))).toMatchObject({ code: 'invalid_request', status: 400 })
  })
})

describe('stock SDKs with keys of their own', () => {
  const fetch = withIdempotency()
  const openai = () => new OpenAI({ baseURL: `${address}/openai/v1`, apiKey, fetch })
  const anthropic = () => new Anthropic({ baseURL: `${address}/anthropic`, apiKey, fetch })
  const messages = [{ role: 'user' as const, content: 'once' }]

  it('a call that is finished is over: the next is another job', async () => {
    const chat = () => openai().chat.completions.create({ model: 'simulated/small', messages }).asResponse()
    const ask = async () => {
      const response = await chat()
      await response.text()
      return response.headers.get('x-askonce-job-id')
    }
    const ids = [await ask(), await ask()]
    expect(ids[0]).toMatch(/^[\da-f-]{36}$/)
    expect(ids[1]).not.toBe(ids[0])
    const message = await anthropic().messages.create({ model: 'simulated/small', max_tokens: 50, messages })
    expect(message.content[0]?.type).toBe('text')
  })

  it('a stream that was left joins the same job when it is asked for again', async () => {
    const ask = () => openai().chat.completions.create({ model: 'simulated/left', messages, stream: true })
    for await (const chunk of await ask()) {
      expect(chunk.object).toBe('chat.completion.chunk')
      break
    }
    const chunks = await all(await ask())
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('stop')
    const jobs = await all(client.list())
    expect(jobs.filter(({ model }) => model === 'simulated/left')).toMatchObject([{ attempts: 1, state: 'succeeded' }])
  })

  it('a call that was aborted joins the same job when it is made again', async () => {
    const ask = (signal?: AbortSignal) =>
      openai().chat.completions.create({ model: 'simulated/aborted', messages }, signal === undefined ? {} : { signal })
    const controller = new AbortController()
    const aborted = failure(ask(controller.signal))
    await expect
      .poll(async () => (await all(client.list())).some(({ model }) => model === 'simulated/aborted'))
      .toBe(true)
    controller.abort()
    expect(await aborted).toBeInstanceOf(OpenAI.APIUserAbortError)
    expect((await ask()).choices[0]?.finish_reason).toBe('stop')
    const jobs = await all(client.list())
    expect(jobs.filter(({ model }) => model === 'simulated/aborted')).toMatchObject([{ attempts: 1 }])
  })
})
