import Anthropic from '@anthropic-ai/sdk'
import { readEvent } from '@askonce/core'
import { appendStreamChunks, nameAnswers, sweepStreamChunks, type Claim } from '@askonce/store'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bootstrapKey, first, startHarness, type Harness } from '../api/harness.ts'

let harness: Harness
let openai: OpenAI
let keys = 0

beforeAll(async () => {
  harness = await startHarness({ env: { ASKONCE_SDK_WAIT_SECONDS: '2' } })
  openai = new OpenAI({ apiKey: bootstrapKey, baseURL: `${harness.api.address}/openai/v1`, maxRetries: 0 })
})

afterAll(() => harness.stop())

/** A stream as the provider sends it, one event a string. */
function chatEvents(...words: string[]): string[] {
  const chunk = (delta: object, finish: string | null = null) =>
    `data: ${JSON.stringify({ id: 'chatcmpl-1', object: 'chat.completion.chunk', created: 1, model: 'm', choices: [{ index: 0, delta, finish_reason: finish }] })}\n\n`
  return [
    chunk({ role: 'assistant', content: '' }),
    ...words.map((word) => chunk({ content: word })),
    chunk({}, 'stop'),
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n',
    'data: [DONE]\n\n',
  ]
}

const withUsage = { stream_options: { include_usage: true } }

interface Job {
  key: string
  id: string
  claim: Claim
}

const body = (key: string, extra: object = {}) => ({
  model: 'simulated/small',
  messages: [{ role: 'user' as const, content: key }],
  stream: true as const,
  ...extra,
})

const paths = {
  'chat.completions': '/openai/v1/chat/completions',
  responses: '/openai/v1/responses',
  messages: '/anthropic/v1/messages',
}

/** A streamed job that is running, as its worker sees it. */
async function running(operation: keyof typeof paths = 'chat.completions', extra: object = {}): Promise<Job> {
  keys += 1
  const key = `stream-${keys}`
  const request = operation === 'responses' ? { model: 'simulated/small', input: key, stream: true } : body(key, extra)
  const path = paths[operation]
  const reply = await harness.call('POST', path, {
    body: request,
    headers: { 'idempotency-key': key, prefer: 'respond-async' },
  })
  expect(reply.status).toBe(202)
  const id = reply.json['id'] ?? ''
  return { key, id, claim: await harness.claim(id) }
}

/** Shows these events behind the ones before. */
async function show({ id, claim }: Job, before: string[], events: string[]): Promise<void> {
  const position = Buffer.byteLength(before.join(''))
  await appendStreamChunks(harness.database.db, [
    { jobId: id, attempt: claim.attempt, position, body: Buffer.from(events.join('')) },
  ])
}

const answered = {
  action: 'answer',
  outcome: 'answered',
  billing: 'billed',
  contentType: 'text/event-stream',
  providerStatus: 200,
  error: null,
  errorCode: null,
} as const

const finish = ({ claim }: Job, events: string[]) => harness.answer(claim, events.join(''), 'text/event-stream')

const rerun = async (job: Job): Promise<Job> => {
  await harness.end(job.claim, { action: 'unknown', outcome: 'unknown', billing: 'maybe' })
  await harness.sql('update jobs set run_at = now() where id = $1', [job.id])
  return { ...job, claim: await harness.claim(job.id) }
}

/** A client that reads as it comes. */
function connect(path: string, options: { method?: string; body?: object; headers?: Record<string, string> } = {}) {
  let text = ''
  const leaving = new AbortController()
  const reply = fetch(harness.api.address + path, {
    method: options.method ?? 'GET',
    headers: { authorization: `Bearer ${bootstrapKey}`, 'content-type': 'application/json', ...options.headers },
    ...(options.body === undefined ? {} : { body: JSON.stringify(options.body) }),
    signal: leaving.signal,
  })
  const done = reply.then(async (response) => {
    for await (const chunk of response.body ?? []) text += Buffer.from(chunk as Uint8Array).toString()
    return text
  })
  done.catch(() => undefined)
  return { reply, done, leave: () => leaving.abort(), text: () => text }
}

const openChat = (job: Job, extra: object = {}, headers: Record<string, string> = {}) =>
  connect('/openai/v1/chat/completions', {
    method: 'POST',
    body: body(job.key, extra),
    headers: { 'idempotency-key': job.key, ...headers },
  })

const ids = (text: string): string[] => [...text.matchAll(/^id: (.*)$/gm)].map((match) => match[1] ?? '')
const withoutIds = (text: string): string => text.replaceAll(/^id: .*\n/gm, '')

describe('a stream that is followed while it comes', () => {
  it('shows what there is, then what comes, and its ending only after the commit', async () => {
    const job = await running('chat.completions', withUsage)
    const events = chatEvents('one', 'two', 'three')
    await show(job, [], events.slice(0, 2))
    const client = openChat(job, withUsage)
    await expect.poll(client.text).toContain('"one"')
    expect(client.text()).not.toContain('"two"')
    await show(job, events.slice(0, 2), events.slice(2, 4))
    await expect.poll(client.text).toContain('"three"')
    expect(client.text()).not.toContain('finish_reason":"stop"')
    await finish(job, events)
    const text = await client.done
    expect(withoutIds(text)).toBe(events.join(''))
    expect(ids(text)).toEqual(events.map((_, index) => `1-${index}`))
  })

  it('is the same whole for a late client, from the stored answer, and parses as the SDK’s own', async () => {
    const job = await running('chat.completions', withUsage)
    const events = chatEvents('one ', 'two')
    await finish(job, events)
    const client = openChat(job, withUsage)
    expect(withoutIds(await client.done)).toBe(events.join(''))
    const answer = await openai.chat.completions
      .stream(body(job.key, withUsage), { headers: { 'Idempotency-Key': job.key } })
      .finalContent()
    expect(answer).toBe('one two')
  })

  it('hides the usage that only we have asked for, and keeps the ids of the others', async () => {
    const job = await running()
    const events = chatEvents('one')
    await finish(job, events)
    // The body decides about the fingerprint: this job was submitted without stream_options.
    const text = await openChat(job).done
    expect(text).not.toContain('"usage"')
    expect(text.endsWith('data: [DONE]\n\n')).toBe(true)
    expect(ids(text)).toEqual(['1-0', '1-1', '1-2', '1-4'])
  })

  it('is followed by several, each from where it is', async () => {
    const job = await running()
    const events = chatEvents('one', 'two', 'three')
    await show(job, [], events.slice(0, 3))
    const clients = [openChat(job), openChat(job, {}, { 'last-event-id': '1-1' })]
    await expect.poll(() => clients.map(({ text }) => text().includes('"two"'))).toEqual([true, true])
    await finish(job, events)
    const [whole = '', rest = ''] = await Promise.all(clients.map(({ done }) => done))
    expect(ids(whole)).toEqual(['1-0', '1-1', '1-2', '1-3', '1-4', '1-6'])
    expect(ids(rest)).toEqual(['1-2', '1-3', '1-4', '1-6'])
  })

  it('a piece that a crash of Postgres has lost is a gap that nothing is shown behind; the stored answer fills it', async () => {
    const job = await running()
    const events = chatEvents('one', 'lost', 'three')
    await show(job, [], events.slice(0, 2))
    await show(job, events.slice(0, 3), events.slice(3, 4))
    const client = openChat(job)
    await expect.poll(client.text).toContain('"one"')
    const other = openChat(job)
    await expect.poll(other.text).toContain('"one"')
    expect(client.text() + other.text()).not.toContain('"three"')
    await finish(job, events)
    expect(withoutIds(await client.done)).toBe(events.toSpliced(-2, 1).join(''))
    expect(withoutIds(await other.done)).toBe(events.toSpliced(-2, 1).join(''))
  })

  it('events of any size and split come whole', async () => {
    const job = await running()
    const events = chatEvents('x'.repeat(100_000), 'y'.repeat(700_000))
    const bytes = Buffer.from(events.slice(0, 3).join(''))
    for (let start = 0; start < bytes.length; start += 32_768) {
      await appendStreamChunks(harness.database.db, [
        { jobId: job.id, attempt: 1, position: start, body: bytes.subarray(start, start + 32_768) },
      ])
    }
    const client = openChat(job)
    await expect.poll(() => ids(client.text()).length).toBe(3)
    await finish(job, events)
    const text = await client.done
    expect(withoutIds(text)).toBe(events.toSpliced(-2, 1).join(''))
  })
})

describe('a stream whose attempt is not the answer', () => {
  it('ends with an error event, never with another attempt’s words', async () => {
    const job = await running()
    const events = chatEvents('first', 'second')
    await show(job, [], events.slice(0, 2))
    const client = openChat(job)
    await expect.poll(client.text).toContain('"first"')
    const again = await rerun(job)
    const others = chatEvents('other')
    await show(again, [], others.slice(0, 2))
    await finish(again, others)
    const text = await client.done
    expect(text).toContain('"code":"stream_interrupted"')
    expect(text).not.toContain('"other"')
    expect(text).not.toContain('[DONE]')
    // Its SDK throws.
    const late = openChat(job)
    expect(withoutIds(await late.done)).toBe(others.toSpliced(-2, 1).join(''))
  })

  it('that has shown nothing yet goes over to the next one', async () => {
    const job = await running()
    const client = openChat(job)
    const again = await rerun(job)
    const events = chatEvents('only')
    await show(again, [], events.slice(0, 2))
    await expect.poll(client.text).toContain('"only"')
    await finish(again, events)
    expect(ids(await client.done)[0]).toBe('2-0')
  })

  it('ends with an error event when a late success of an earlier attempt is adopted', async () => {
    const job = await running()
    const again = await rerun(job)
    const events = chatEvents('of the second')
    await show(again, [], events.slice(0, 2))
    const client = openChat(job)
    await expect.poll(client.text).toContain('"of the second"')
    await finish(job, chatEvents('of the first'))
    const text = await client.done
    expect(text).toContain('stream_interrupted')
    expect(text).not.toContain('of the first')
  })

  it.each([
    ['held', { action: 'unknown', outcome: 'unknown', billing: 'maybe' }, 'job_uncertain'],
    ['failed', { action: 'stop', outcome: 'rejected' }, 'upstream_failed'],
  ] as const)('%s: told with an error event', async (_, end, code) => {
    const job = await running()
    await harness.sql("update jobs set on_uncertain = 'hold' where id = $1", [job.id])
    await show(job, [], chatEvents('word').slice(0, 2))
    const client = openChat(job)
    await expect.poll(client.text).toContain('"word"')
    await harness.end(job.claim, end)
    expect(await client.done).toContain(`"code":"${code}"`)
  })

  it('the SDK throws at the error event', async () => {
    const job = await running()
    await show(job, [], chatEvents('word').slice(0, 2))
    const seen: string[] = []
    const read = async (): Promise<void> => {
      const stream = await openai.chat.completions.create(body(job.key), { headers: { 'Idempotency-Key': job.key } })
      for await (const chunk of stream) seen.push(chunk.choices[0]?.delta.content ?? '')
    }
    const reading = read().catch((error: unknown) => error)
    await expect.poll(() => seen).toContain('word')
    await rerun(job)
    const thrown = await reading
    expect(thrown).toBeInstanceOf(OpenAI.APIError)
    expect(thrown).toMatchObject({ code: 'stream_interrupted' })
  })

  describe('a refusal of the provider behind what was shown keeps its words', () => {
    const refuse = (job: Job, errorResponse: string) =>
      harness.end(job.claim, {
        action: 'stop',
        outcome: 'rejected',
        error: JSON.stringify({ code: 'provider_rejected', message: 'x', retryable: false, provider_status: 400 }),
        errorResponse: Buffer.from(errorResponse),
        errorContentType: 'application/json',
      })
    const ofOpenai = '{"error":{"message":"too long","type":"t","param":"messages","code":"context_length"}}'
    /** Reads to the end, which is an error; `shown` is called with the first event. */
    const failing = async (stream: AsyncIterable<unknown>, shown: () => Promise<unknown>): Promise<unknown> => {
      let begun = false
      try {
        for await (const _ of stream) {
          if (!begun) await shown()
          begun = true
        }
        return null
      } catch (error) {
        return error
      }
    }

    it('chat completions', async () => {
      const job = await running()
      await show(job, [], chatEvents('word').slice(0, 2))
      const stream = await openai.chat.completions.create(body(job.key), { headers: { 'Idempotency-Key': job.key } })
      const error = await failing(stream, () => refuse(job, ofOpenai))
      expect(error).toBeInstanceOf(OpenAI.APIError)
      expect(error).toMatchObject({ code: 'context_length', param: 'messages', type: 't' })
    })

    it('responses', async () => {
      const job = await running('responses')
      await show(job, [], ['event: response.created\ndata: {"type":"response.created","sequence_number":0}\n\n'])
      const client = connect('/openai/v1/responses', {
        method: 'POST',
        body: { model: 'simulated/small', input: job.key, stream: true },
        headers: { 'idempotency-key': job.key },
      })
      await expect.poll(client.text).toContain('response.created')
      await refuse(job, ofOpenai)
      const { data } = readEvent(Buffer.from((await client.done).split('\n\n').at(-2) ?? ''))
      expect(JSON.parse(data ?? '')).toMatchObject({
        type: 'error',
        code: 'context_length',
        param: 'messages',
        message: 'too long',
        error: { type: 't', code: 'context_length' },
      })
    })

    it('messages', async () => {
      const job = await running('messages', { max_tokens: 9 })
      await show(job, [], ['event: message_start\ndata: {"type":"message_start","message":{"id":"m"}}\n\n'])
      const anthropic = new Anthropic({ apiKey: bootstrapKey, baseURL: `${harness.api.address}/anthropic` })
      const stream = await anthropic.messages.create(
        { ...body(job.key), max_tokens: 9 },
        { headers: { 'Idempotency-Key': job.key } },
      )
      const said = { type: 'error', error: { type: 'invalid_request_error', message: 'no' }, request_id: 'req_1' }
      const error = await failing(stream, () => refuse(job, JSON.stringify(said)))
      expect(error).toBeInstanceOf(Anthropic.APIError)
      expect(error).toMatchObject({ type: 'invalid_request_error', error: said })
    })

    it('that are no error object: told in ours', async () => {
      for (const text of ['no', '{"error":"no"}', '[]', '{"detail":"no"}']) {
        const job = await running()
        await show(job, [], chatEvents('word').slice(0, 2))
        const client = openChat(job)
        await expect.poll(client.text).toContain('"word"')
        await refuse(job, text)
        expect(await client.done).toContain('"code":"upstream_failed"')
      }
    })
  })

  it('a refusal before the first event has a status', async () => {
    const job = await running()
    const client = openChat(job)
    // A failure that is known before the submission would run again for it.
    await expect
      .poll(() => harness.lines.some(({ job_id: id, outcome }) => id === job.id && outcome === 'attached'))
      .toBe(true)
    await harness.end(job.claim, {
      action: 'stop',
      outcome: 'rejected',
      error: JSON.stringify({ code: 'provider_rejected', message: 'x', retryable: false, provider_status: 400 }),
      errorResponse: Buffer.from('{"error":{"message":"no","type":"t","param":null,"code":"c"}}'),
      errorContentType: 'application/json',
    })
    const reply = await client.reply
    expect(reply.status).toBe(400)
    expect(reply.headers.get('x-should-retry')).toBe('false')
    expect(await client.done).toContain('"code":"c"')
  })

  it('resuming behind an event of another attempt is refused', async () => {
    const job = await rerun(await running())
    await finish(job, chatEvents('word'))
    const client = openChat(job, {}, { 'last-event-id': '1-1' })
    expect((await client.reply).status).toBe(409)
    expect(await client.done).toContain('stream_interrupted')
    for (const bad of ['x', '1', '1-', '-1-1', '1-1-1']) {
      expect((await openChat(job, {}, { 'last-event-id': bad }).reply).status).toBe(400)
    }
  })

  it('nothing within the server’s limit is 504', async () => {
    const job = await running()
    expect((await openChat(job).reply).status).toBe(504)
  })

  it('an answer without a stream comes as it is; to a follower of our own as the job', async () => {
    const job = await running()
    const waiting = openChat(job)
    const text = '{\n  "choices": []\n}\n'
    await harness.answer(job.claim, text)
    for (const client of [waiting, openChat(job)]) {
      const { status, headers } = await client.reply
      expect([status, headers.get('content-type')]).toEqual([200, 'application/json'])
      expect(await client.done).toBe(text)
    }
    const followed = await connect(`/v1/jobs/${job.id}/events`).done
    const { name, data } = readEvent(Buffer.from(followed))
    expect(name).toBe('job')
    expect(JSON.parse(data ?? '')).toMatchObject({ state: 'succeeded', response: { choices: [] } })
  })
})

describe('GET /v1/jobs/{id}/events', () => {
  it('gives the provider’s events with ids, all of them, and the job at the end', async () => {
    const reply = await harness.call('POST', '/v1/jobs', {
      body: {
        operation: 'chat.completions',
        stream: true,
        request: { model: 'simulated/small', messages: [{ role: 'user', content: 'native' }] },
      },
      headers: { 'idempotency-key': 'native-stream' },
    })
    expect(reply.json).toMatchObject({ streamed: true, state: 'queued' })
    const id = reply.json['id'] ?? ''
    const claim = await harness.claim(id)
    expect(JSON.parse(claim.request.toString())).toMatchObject({ stream: true })
    const events = chatEvents('native')
    await finish({ key: '', id, claim }, events)
    const text = await connect(`/v1/jobs/${id}/events`).done
    const [provider, job] = text.split('event: job\ndata: ')
    expect(withoutIds(provider ?? '')).toBe(events.join(''))
    expect(JSON.parse(job ?? '')).toMatchObject({ id, state: 'succeeded', response: null })
    const rest = await connect(`/v1/jobs/${id}/events`, { headers: { 'last-event-id': '1-2' } }).done
    expect(ids(rest)).toEqual(['1-3', '1-4'])
    expect((await harness.call('GET', `/v1/jobs/${id}/response`)).text).toBe(events.join(''))
    // The key is that of the SDK's request with stream: true.
    const sdk = await harness.call('POST', '/openai/v1/chat/completions', {
      body: { model: 'simulated/small', messages: [{ role: 'user', content: 'native' }], stream: true },
      headers: { 'idempotency-key': 'native-stream' },
    })
    expect(sdk.headers.get('x-askonce-job-id')).toBe(id)
  })

  it('is for streamed jobs, of the tenant', async () => {
    const plain = await harness.submit('not-streamed', {
      operation: 'chat.completions',
      request: { model: 'simulated/small', messages: [{ role: 'user', content: 'x' }] },
    })
    expect((await harness.call('GET', `/v1/jobs/${plain.json['id']}/events`)).status).toBe(400)
    const job = await running()
    const stranger = await harness.keyFor('stranger')
    expect((await harness.call('GET', `/v1/jobs/${job.id}/events`, { key: stranger })).status).toBe(404)
    expect((await harness.call('GET', '/v1/jobs/nothing/events')).status).toBe(404)
  })

  it('refuses a stream of embeddings, and stream inside a request', async () => {
    const embeddings = { operation: 'embeddings', stream: true, request: { model: 'simulated/small', input: 'x' } }
    expect(await harness.submit('stream-embeddings', embeddings)).toMatchObject({
      status: 400,
      json: { error: { param: '/stream' } },
    })
    const inside = { operation: 'chat.completions', request: { ...body('x') } }
    expect(await harness.submit('stream-inside', inside)).toMatchObject({
      status: 400,
      json: { error: { param: '/request/stream' } },
    })
  })
})

describe('responses', () => {
  const responseEvents = (id: string): string[] => {
    const event = (type: string, sequence: number, extra: object) =>
      `event: ${type}\ndata: ${JSON.stringify({ type, sequence_number: sequence, ...extra })}\n\n`
    const response = { id, object: 'response', status: 'completed', output: [], output_text: 'done' }
    return [
      event('response.created', 0, { response: { ...response, status: 'in_progress' } }),
      event('response.output_text.delta', 1, { delta: 'do' }),
      event('response.output_text.delta', 2, { delta: 'ne' }),
      event('response.completed', 3, { response }),
    ]
  }

  it('is found while it runs by the id that the provider gives it, and resumes behind a sequence number', async () => {
    const job = await running('responses')
    const events = responseEvents('resp_of_provider')
    await nameAnswers(harness.database.db, [{ jobId: job.id, attempt: 1, answerId: 'resp_of_provider' }])
    await show(job, [], events.slice(0, 2))
    expect(await openai.responses.retrieve('resp_of_provider')).toMatchObject({
      status: 'in_progress',
      id: 'resp_of_provider',
    })
    const client = connect('/openai/v1/responses/resp_of_provider?stream=true&starting_after=0')
    await expect.poll(client.text).toContain('"do"')
    await harness.end(job.claim, {
      ...answered,
      response: Buffer.from(events.join('')),
      answerId: 'resp_of_provider',
    })
    expect(withoutIds(await client.done)).toBe(events.slice(1).join(''))
    const seen: string[] = []
    for await (const event of await openai.responses.retrieve('resp_of_provider', { stream: true, starting_after: 1 }))
      seen.push(event.type)
    expect(seen).toEqual(['response.output_text.delta', 'response.completed'])
    expect(await openai.responses.retrieve('resp_of_provider')).toMatchObject({
      status: 'completed',
      id: 'resp_of_provider',
    })
  })

  /** A running response whose first attempt has named itself and shown this many of its events. */
  const shown = async (id: string, count: number): Promise<Job> => {
    const job = await running('responses')
    await nameAnswers(harness.database.db, [{ jobId: job.id, attempt: 1, answerId: id }])
    await show(job, [], responseEvents(id).slice(0, count))
    return job
  }
  const openResponse = (id: string, startingAfter: number) =>
    connect(`/openai/v1/responses/${id}?stream=true&starting_after=${startingAfter}`)

  it('behind a sequence number: a follower gets nothing of a rerun', async () => {
    const job = await shown('resp_first_1', 3)
    const client = openResponse('resp_first_1', 1)
    await expect.poll(client.text).toContain('"ne"')
    const again = await rerun(job)
    const others = responseEvents('resp_second_1')
    await show(again, [], others.slice(0, 3))
    await finish(again, others)
    const text = await client.done
    expect(text).toContain('"code":"stream_interrupted"')
    expect(ids(text)).toEqual(['1-2'])
  })

  it('behind a sequence number: a new connection gets nothing of a rerun that has not named itself, and its own after it', async () => {
    const job = await shown('resp_first_2', 2)
    const again = await rerun(job)
    const events = responseEvents('resp_second_2')
    const early = openResponse('resp_first_2', 1)
    await show(again, [], events.slice(0, 3))
    // The row has the name of the first attempt until the second names itself.
    for (const client of [early, openResponse('resp_first_2', 1)]) {
      expect((await client.reply).status).toBe(409)
      expect(await client.done).toContain('"code":"stream_interrupted"')
    }
    await nameAnswers(harness.database.db, [{ jobId: job.id, attempt: 2, answerId: 'resp_second_2' }])
    const late = openResponse('resp_first_2', 1)
    expect((await late.reply).status).toBe(404)
    const right = openResponse('resp_second_2', 1)
    await expect.poll(right.text).toContain('"ne"')
    await harness.end(again.claim, { ...answered, response: Buffer.from(events.join('')), answerId: 'resp_second_2' })
    expect(withoutIds(await right.done)).toBe(events.slice(2).join(''))
  })

  it('behind a sequence number: while the rerun waits for its turn the stream has ended', async () => {
    const job = await shown('resp_first_3', 2)
    await harness.end(job.claim, { action: 'unknown', outcome: 'unknown', billing: 'maybe' })
    const client = openResponse('resp_first_3', 1)
    expect((await client.reply).status).toBe(409)
    expect(await client.done).toContain('"code":"stream_interrupted"')
    await expect(openai.responses.retrieve('resp_first_3', { stream: true, starting_after: 1 })).rejects.toMatchObject({
      status: 409,
      code: 'stream_interrupted',
    })
  })

  it('behind a sequence number: our own id is enough while there was one call, and ambiguous afterwards', async () => {
    const job = await shown('resp_first_4', 3)
    const ours = `resp_${job.id.replaceAll('-', '')}`
    const client = openResponse(ours, 1)
    await expect.poll(client.text).toContain('"ne"')
    const again = await rerun(job)
    await finish(again, responseEvents('resp_second_4'))
    expect(await client.done).toContain('"code":"stream_interrupted"')
    const late = openResponse(ours, 1)
    expect((await late.reply).status).toBe(409)
    expect(await late.done).toContain('"param":"starting_after"')
    const whole = await connect(`/openai/v1/responses/${ours}?stream=true`).done
    expect(withoutIds(whole)).toBe(responseEvents('resp_second_4').join(''))
  })

  it('behind a sequence number: a late success of the first attempt is not put behind the second', async () => {
    const job = await shown('resp_first_5', 2)
    const again = await rerun(job)
    await nameAnswers(harness.database.db, [{ jobId: job.id, attempt: 2, answerId: 'resp_second_5' }])
    await show(again, [], responseEvents('resp_second_5').slice(0, 3))
    const client = openResponse('resp_second_5', 1)
    await expect.poll(client.text).toContain('"ne"')
    const events = responseEvents('resp_first_5')
    await harness.end(job.claim, { ...answered, response: Buffer.from(events.join('')), answerId: 'resp_first_5' })
    const text = await client.done
    expect(text).toContain('"code":"stream_interrupted"')
    expect(text).not.toContain('response.completed')
    expect(withoutIds(await openResponse('resp_first_5', 1).done)).toBe(events.slice(2).join(''))
  })

  it('in the background: queued at once, then retrieved, cancelled, deleted', async () => {
    const create = (key: string) =>
      openai.responses.create(
        { model: 'simulated/small', input: key, background: true },
        { headers: { 'Idempotency-Key': key } },
      )
    const queued = await create('background-1')
    expect(queued).toMatchObject({ status: 'queued', object: 'response', background: true })
    expect(await create('background-1')).toMatchObject({ id: queued.id })
    const [{ id = '' } = {}] = (await harness.sql("select id from jobs where idempotency_key = 'background-1'")) as {
      id?: string
    }[]
    const claim = await harness.claim(id)
    expect(JSON.parse(claim.request.toString())).toEqual({ model: 'simulated/small', input: 'background-1' })
    expect(await openai.responses.retrieve(queued.id)).toMatchObject({ status: 'in_progress', id: queued.id })
    const text = '{"id":"resp_77","object":"response","status":"completed","output":[]}'
    await harness.end(claim, {
      action: 'answer',
      outcome: 'answered',
      billing: 'billed',
      response: Buffer.from(text),
      contentType: 'application/json',
      answerId: 'resp_77',
      providerStatus: 200,
      error: null,
      errorCode: null,
    })
    for (const known of [queued.id, 'resp_77']) {
      expect((await harness.call('GET', `/openai/v1/responses/${known}`)).text).toBe(text)
    }
    const stranger = await harness.keyFor('other')
    for (const known of [queued.id, 'resp_77', 'resp_none', 'x'.repeat(500)]) {
      expect((await harness.call('GET', `/openai/v1/responses/${known}`, { key: stranger })).status).toBe(404)
    }
    expect(await openai.responses.delete('resp_77').then(() => 'gone')).toBe('gone')
    await expect(openai.responses.retrieve(queued.id)).rejects.toBeInstanceOf(OpenAI.NotFoundError)

    const second = await create('background-2')
    await expect(openai.responses.delete(second.id)).rejects.toBeInstanceOf(OpenAI.ConflictError)
    expect(await openai.responses.cancel(second.id)).toMatchObject({ status: 'cancelled', id: second.id })
    await expect(openai.responses.cancel(second.id)).rejects.toMatchObject({ status: 409, code: 'state_conflict' })
  })
})

describe('stored chunks', () => {
  it('of attempts that have ended are swept, those of the one that runs are not', async () => {
    const ended = await running()
    await show(ended, [], chatEvents('a').slice(0, 1))
    await finish(ended, chatEvents('a'))
    const open = await running()
    await show(open, [], chatEvents('b').slice(0, 1))
    await harness.sql("update stream_chunks set created_at = now() - interval '2 minutes'")
    await sweepStreamChunks(harness.database.db, 1_000)
    const left = await harness.sql('select distinct job_id from stream_chunks where job_id = any($1)', [
      [ended.id, open.id],
    ])
    expect(first(left)['job_id']).toBe(open.id)
    expect(left).toHaveLength(1)
  })
})
