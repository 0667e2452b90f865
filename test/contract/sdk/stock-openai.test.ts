import { openaiError, spawnNode } from '@askonce/testkit'
import OpenAI from 'openai'
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { z } from 'zod'
import { apiKey, startRunning, type Running } from './running.ts'
import { startFront, startPrompts, type Front, type Prompts, type Trouble } from './stock-upstream.ts'

let prompts: Prompts
let askonce: Running
let front: Front
let openai: OpenAI
/** Of the API that waits one second. */
let hasty: OpenAI
let keys = 0

beforeAll(async () => {
  prompts = await startPrompts()
  const { url } = prompts.upstream
  askonce = await startRunning(
    { openai: `${url}/v1`, anthropic: url },
    // What stops or pauses a lane stops these only.
    ['revoked', 'limited'].map((name) => ({
      name,
      kind: 'openai',
      base_url: `${url}/v1`,
      models: [`${name}/model`, `${name}/*`],
    })),
  )
  front = await startFront(askonce.address)
  openai = new OpenAI({ apiKey, baseURL: `${askonce.address}/openai/v1` })
  hasty = openai.withOptions({ baseURL: `${askonce.hastyAddress}/openai/v1` })
})

afterAll(async () => {
  await front.close()
  await askonce.stop()
  await prompts.upstream.close()
})

function keyed(key = newKey(), more: Record<string, string> = {}) {
  return { headers: { 'Idempotency-Key': key, ...more } }
}

function newKey(): string {
  keys += 1
  return `stock/${keys}`
}

const chat = (content: string, model = 'gpt-4o-mini') => ({ model, messages: [{ role: 'user' as const, content }] })

async function collect<T>(events: AsyncIterable<T>): Promise<T[]> {
  const seen: T[] = []
  for await (const event of events) seen.push(event)
  return seen
}

const textOf = (chunks: OpenAI.ChatCompletionChunk[]): string =>
  chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')

const planet = z.object({ planet: z.string(), moons: z.number() })

describe('chat completions', () => {
  it('are created, and the same key is answered from the store', async () => {
    const options = keyed()
    const { data, response } = await openai.chat.completions.create(chat('create'), options).withResponse()
    expect(data.choices[0]?.message.content).toMatch(/^call \d+/)
    expect(data.usage?.total_tokens).toBeGreaterThan(0)
    expect(response.headers.get('idempotent-replayed')).toBe('false')
    const again = await openai.chat.completions.create(chat('create'), options).withResponse()
    expect(again.data).toEqual(data)
    expect(again.response.headers.get('idempotent-replayed')).toBe('true')
    expect(again.response.headers.get('x-askonce-job-id')).toBe(response.headers.get('x-askonce-job-id'))
    expect(prompts.calls('create')).toBe(1)
  })

  it('are streamed, as chunks and by the SDK’s helper, with usage only for those who ask for it', async () => {
    const options = keyed()
    const chunks = await collect(await openai.chat.completions.create({ ...chat('stream'), stream: true }, options))
    expect(textOf(chunks)).toMatch(/^call \d+ x+$/)
    expect(chunks.at(-1)?.choices[0]?.finish_reason).toBe('stop')
    expect(chunks.every(({ usage }) => usage === null || usage === undefined)).toBe(true)
    const helper = openai.chat.completions.stream({ ...chat('stream') }, options)
    const deltas: string[] = []
    helper.on('content', (delta) => deltas.push(delta))
    expect((await helper.finalChatCompletion()).choices[0]?.message.content).toBe(textOf(chunks))
    expect(deltas.join('')).toBe(textOf(chunks))
    expect(prompts.calls('stream')).toBe(1)
    const asking = { ...chat('stream usage'), stream: true as const, stream_options: { include_usage: true } }
    const counted = await collect(await openai.chat.completions.create(asking, keyed()))
    expect(counted.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 16 } })
  })

  it('are parsed by the SDK as the schema of the request says', async () => {
    const content = '{"planet":"Mars","moons":2}'
    prompts.answer('parse', { kind: 'answer', body: answered({ content }, 'stop') })
    const asked = { ...chat('parse'), response_format: zodResponseFormat(planet, 'planet') }
    const options = keyed()
    for (const _ of ['asked', 'stored']) {
      const { choices } = await openai.chat.completions.parse(asked, options)
      expect(choices[0]?.message.parsed).toEqual({ planet: 'Mars', moons: 2 })
    }
    expect(prompts.calls('parse')).toBe(1)
    expect(prompts.last('parse').json['response_format']).toMatchObject({
      type: 'json_schema',
      json_schema: { name: 'planet', strict: true },
    })
  })

  it('that are stored are listed by their metadata and retrieved', async () => {
    const store = { store: true, metadata: { batch: 'nightly' } }
    const made: string[] = []
    for (const index of [1, 2, 3]) {
      const body = { ...chat(`stored ${index}`), ...store }
      made.push((await openai.chat.completions.create(body, keyed())).id)
    }
    await openai.chat.completions.create(
      { ...chat('stored elsewhere'), ...store, metadata: { batch: 'other' } },
      keyed(),
    )
    const listed = await collect(openai.chat.completions.list({ metadata: { batch: 'nightly' }, limit: 2 }))
    expect(listed.map(({ id }) => id)).toEqual(made)
    const [first = ''] = made
    expect(await openai.chat.completions.retrieve(first)).toMatchObject({ id: first, metadata: { batch: 'nightly' } })
    const missing = await openai.chat.completions.retrieve('chatcmpl-none').catch((error: unknown) => error)
    expect(missing).toBeInstanceOf(OpenAI.NotFoundError)
    expect(missing).toMatchObject({ code: 'not_found', param: 'id' })
  })

  it('of a megabyte come whole, streamed or not', async () => {
    const length = 1_000_000
    prompts.answer('long', { kind: 'answer', answerBytes: length, chunks: 200 })
    const whole = await openai.chat.completions.create(chat('long'), keyed())
    expect(whole.choices[0]?.message.content).toHaveLength(length)
    const options = keyed()
    for (const calls of [2, 2]) {
      const chunks = await collect(await openai.chat.completions.create({ ...chat('long'), stream: true }, options))
      expect(textOf(chunks)).toHaveLength(length)
      expect(prompts.calls('long')).toBe(calls)
    }
  })
})

const call = { id: 'call_1', type: 'function' as const, function: { name: 'weather', arguments: '{"city":"Mars"}' } }
const answered = (message: object, reason: string) =>
  JSON.stringify({
    id: 'chatcmpl-t',
    object: 'chat.completion',
    created: 1,
    model: 'gpt-4o-mini',
    choices: [{ index: 0, message: { role: 'assistant', content: null, ...message }, finish_reason: reason }],
    usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 },
  })
const chunk = (delta: object, reason: string | null = null) => ({
  id: 'chatcmpl-t',
  object: 'chat.completion.chunk',
  created: 1,
  model: 'gpt-4o-mini',
  choices: [{ index: 0, delta, finish_reason: reason }],
})

describe('tool calls and refusals', () => {
  it('come whole', async () => {
    prompts.answer('tool', { kind: 'answer', body: answered({ tool_calls: [call] }, 'tool_calls') })
    prompts.answer('refused', { kind: 'answer', body: answered({ refusal: 'I will not.' }, 'stop') })
    const tool = await openai.chat.completions.create(chat('tool'), keyed())
    expect(tool.choices[0]?.message.tool_calls).toEqual([call])
    const refused = await openai.chat.completions.create(chat('refused'), keyed())
    expect(refused.choices[0]?.message).toMatchObject({ content: null, refusal: 'I will not.' })
    expect(await askonce.sql(`select flags from jobs where idempotency_key = $1`, [`stock/${keys}`])).toEqual([
      { flags: ['refused'] },
    ])
  })

  it('come in deltas, which the SDK puts together', async () => {
    const piece = (part: object) => chunk({ role: 'assistant', tool_calls: [{ index: 0, ...part }] })
    prompts.answer('tool stream', {
      kind: 'answer',
      events: [
        piece({ id: 'call_1', type: 'function', function: { name: 'weather', arguments: '' } }),
        ...['{"ci', 'ty":"', 'Mars"}'].map((text) => piece({ function: { arguments: text } })),
        chunk({}, 'tool_calls'),
        '[DONE]',
      ],
    })
    const tool = openai.chat.completions.stream(chat('tool stream'), keyed())
    expect((await tool.finalChatCompletion()).choices[0]?.message.tool_calls).toMatchObject([call])
    prompts.answer('refused stream', {
      kind: 'answer',
      events: [
        chunk({ role: 'assistant', refusal: 'I will ' }),
        chunk({ refusal: 'not.' }),
        chunk({}, 'stop'),
        '[DONE]',
      ],
    })
    const refused = openai.chat.completions.stream(chat('refused stream'), keyed())
    expect((await refused.finalMessage()).refusal).toBe('I will not.')
  })

  it('a tool loop of the SDK asks several times, so its keys are derived; the second run costs nothing', async () => {
    prompts.answer(
      'loop',
      { kind: 'answer', body: answered({ tool_calls: [call] }, 'tool_calls') },
      { kind: 'answer', body: answered({ content: 'Red.' }, 'stop') },
    )
    const run = (): Promise<string | null> =>
      openai.chat.completions
        .runTools(
          {
            ...chat('loop'),
            tools: [
              {
                type: 'function',
                function: { name: 'weather', function: () => 'dusty', parameters: {}, description: 'Says it' },
              },
            ],
          },
          { headers: { 'Askonce-Key': 'derive' } },
        )
        .finalContent()
    expect(await run()).toBe('Red.')
    expect(prompts.calls('loop')).toBe(2)
    expect(await run()).toBe('Red.')
    expect(prompts.calls('loop')).toBe(2)
  })
})

describe('responses', () => {
  it('are created and retrieved', async () => {
    const made = await openai.responses.create({ model: 'gpt-4o-mini', input: 'response' }, keyed())
    expect(made.output_text).toMatch(/^call \d+/)
    expect(await openai.responses.retrieve(made.id)).toMatchObject({ id: made.id, output_text: made.output_text })
  })

  it('are parsed by the SDK as the schema of the request says', async () => {
    const text = '{"planet":"Mars","moons":2}'
    const output = [
      { type: 'message', id: 'msg_1', role: 'assistant', content: [{ type: 'output_text', text, annotations: [] }] },
    ]
    const body = { id: 'resp_parse', object: 'response', status: 'completed', model: 'gpt-4o-mini', output }
    prompts.answer('response parse', { kind: 'answer', body: JSON.stringify(body) })
    const asked = { model: 'gpt-4o-mini', input: 'response parse', text: { format: zodTextFormat(planet, 'planet') } }
    const options = keyed()
    for (const _ of ['asked', 'stored']) {
      expect((await openai.responses.parse(asked, options)).output_parsed).toEqual({ planet: 'Mars', moons: 2 })
    }
    expect(prompts.calls('response parse')).toBe(1)
    expect(prompts.last('response parse').json['text']).toMatchObject({ format: { type: 'json_schema', strict: true } })
  })

  it('call functions, and refuse', async () => {
    const output = [
      { type: 'function_call', id: 'fc_1', call_id: 'call_1', name: 'weather', arguments: '{}', status: 'completed' },
      { type: 'message', id: 'msg_1', role: 'assistant', content: [{ type: 'refusal', refusal: 'I will not.' }] },
    ]
    const body = { id: 'resp_tool', object: 'response', status: 'completed', model: 'gpt-4o-mini', output }
    prompts.answer('response tool', { kind: 'answer', body: JSON.stringify(body) })
    const made = await openai.responses.create({ model: 'gpt-4o-mini', input: 'response tool' }, keyed())
    expect(made.output).toMatchObject(output)
  })

  it('in the background are queued, then retrieved; cancelled and deleted', async () => {
    const ask = (input: string) => ({ model: 'gpt-4o-mini', input, background: true })
    const queued = await openai.responses.create(ask('background'), keyed())
    expect(queued).toMatchObject({ status: 'queued', background: true })
    await expect
      .poll(async () => (await openai.responses.retrieve(queued.id)).status, { timeout: 10_000, interval: 20 })
      .toBe('completed')
    const done = await openai.responses.retrieve(queued.id)
    expect(done.output_text).toMatch(/^call \d+/)

    const held = prompts.upstream.hold({ model: 'gpt-held' })
    const running = await openai.responses.create({ ...ask('to be cancelled'), model: 'gpt-held' }, keyed())
    await held.arrived(1)
    expect(await openai.responses.cancel(running.id)).toMatchObject({ id: running.id, status: 'cancelled' })
    held.release()

    await openai.responses.delete(done.id)
    const gone = await openai.responses.retrieve(queued.id).catch((error: unknown) => error)
    expect(gone).toBeInstanceOf(OpenAI.NotFoundError)
  })

  it('are streamed, and a lost stream is resumed behind a sequence number', async () => {
    const held = prompts.upstream.hold({ model: 'gpt-resumed' }, 5)
    const asked = { model: 'gpt-resumed', input: 'resumed', stream: true } as const
    const options = keyed()
    const begun: OpenAI.Responses.ResponseStreamEvent[] = []
    let id = ''
    for await (const event of await openai.responses.create(asked, options)) {
      begun.push(event)
      if (event.type === 'response.created') id = event.response.id
      if (event.type === 'response.output_text.delta') break
    }
    const after = begun.at(-1)?.sequence_number ?? -1
    expect(after).toBe(4)
    const resumed = openai.responses.retrieve(id, { stream: true, starting_after: after })
    held.release()
    const rest = await collect(await resumed)
    expect(rest.map(({ sequence_number: number }) => number)).toEqual(rest.map((_, index) => after + 1 + index))
    const whole = await collect(await openai.responses.create(asked, options))
    expect([...begun, ...rest]).toEqual(whole)
    expect(prompts.calls('resumed')).toBe(1)
    const final = await openai.responses.stream({ model: 'gpt-resumed', input: 'resumed' }, options).finalResponse()
    expect(final.id).toBe(id)
    expect((await openai.responses.retrieve(id)).output_text).toBe(final.output_text)
    const replayed = openai.responses.stream({ response_id: id, starting_after: 3 })
    expect((await replayed.finalResponse()).output_text).toBe(final.output_text)
  })
})

describe('embeddings and models', () => {
  it('embeddings ask for base64 by default and have the numbers of the upstream', async () => {
    const numbers = [0.1, -1e-7, 12_345.678, 3.4e38]
    const embedding = Buffer.from(Float32Array.from(numbers).buffer).toString('base64')
    const body = { object: 'list', data: [{ object: 'embedding', index: 0, embedding }], model: 'm', usage: {} }
    prompts.answer('embed', { kind: 'answer', body: JSON.stringify(body) })
    const { data } = await openai.embeddings.create({ model: 'text-embedding-3-small', input: 'embed' }, keyed())
    expect(data[0]?.embedding).toEqual([...Float32Array.from(numbers)])
    expect(prompts.last('embed').json['encoding_format']).toBe('base64')
    const floats = { model: 'text-embedding-3-small', input: 'floats', encoding_format: 'float' as const }
    expect((await openai.embeddings.create(floats, keyed())).data[0]?.embedding.slice(1)).toEqual([0.25, -0.5])
  })

  it('models are listed and retrieved', async () => {
    const models = await collect(openai.models.list())
    // The provider's own.
    expect(models.map(({ id }) => id)).toEqual(['upstream-chat', 'upstream-embedding'])
    expect(await openai.models.retrieve('upstream-chat')).toMatchObject({ id: 'upstream-chat' })
  })
})

describe('errors are of the SDK’s own classes', () => {
  const refusals: [number, object, new (...args: never[]) => Error][] = [
    [400, { code: 'context_length_exceeded', param: 'messages' }, OpenAI.BadRequestError],
    [403, { code: 'unsupported_country', param: null }, OpenAI.PermissionDeniedError],
    [404, { code: 'model_not_found', param: 'model' }, OpenAI.NotFoundError],
    [422, { code: 'unprocessable', param: 'tools' }, OpenAI.UnprocessableEntityError],
  ]
  it.each(refusals)('a refusal with %i, streamed or not', async (status, more, errorClass) => {
    for (const stream of [false, true]) {
      const prompt = `refuse ${status} ${stream}`
      const body = { error: { message: 'No.', type: 'invalid_request_error', ...more } }
      prompts.answer(prompt, { kind: 'refuse', status, body })
      const error = await openai.chat.completions.create({ ...chat(prompt), stream }, keyed()).catch((e: unknown) => e)
      expect(error).toBeInstanceOf(errorClass)
      expect(error).toMatchObject({ status, message: `${status} No.`, type: 'invalid_request_error', ...more })
      expect((error as InstanceType<typeof OpenAI.APIError>).requestID).toMatch(/^[0-9a-f-]{36}$/)
      expect((error as InstanceType<typeof OpenAI.APIError>).headers?.get('x-askonce-provider-request-id')).toMatch(
        /^req_\d+$/,
      )
      // Its own retries are on, and there were none.
      expect(prompts.calls(prompt)).toBe(1)
    }
  })

  it('a 5xx of the provider, after all tries', async () => {
    prompts.answer('broken', { kind: 'refuse', status: 500, body: openaiError('server_error', 'oops', 'It broke') })
    const options = keyed(newKey(), { 'Askonce-Options': '{"max_attempts":2}' })
    const error = await openai.chat.completions.create(chat('broken'), options).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(OpenAI.InternalServerError)
    expect(error).toMatchObject({ status: 500, code: 'oops', type: 'server_error', message: '500 It broke' })
    expect(prompts.calls('broken')).toBe(2)
  })

  it('a 429 is waited for; one that lasts beyond the deadline ends the job', async () => {
    const limited = openaiError('requests', 'rate_limit_exceeded', 'Slower')
    const pause = { kind: 'refuse' as const, status: 429, body: limited, headers: { 'retry-after-ms': '50' } }
    prompts.answer('slower', pause, { kind: 'answer' })
    expect(await openai.chat.completions.create(chat('slower', 'limited/model'), keyed())).toHaveProperty(
      'object',
      'chat.completion',
    )
    expect(prompts.calls('slower')).toBe(2)

    prompts.answer('no end', { ...pause, headers: { 'retry-after': '60' } })
    const options = keyed(newKey(), { 'Askonce-Options': '{"deadline_seconds":1}' })
    const error = await openai.chat.completions
      .create(chat('no end', 'limited/model'), options)
      .catch((e: unknown) => e)
    expect(error).toBeInstanceOf(OpenAI.InternalServerError)
    expect(error).toMatchObject({ status: 502, code: 'upstream_failed' })
    expect((error as Error).message).toContain('deadline_exceeded')
    expect(prompts.calls('no end')).toBe(1)
  })

  it('refused credentials are no answer: the job waits, which is 504 until somebody mends the lane', async () => {
    const body = openaiError('invalid_request_error', 'invalid_api_key', 'Incorrect API key')
    prompts.answer('credentials', { kind: 'refuse', status: 401, body }, { kind: 'answer' })
    const options = keyed()
    const ask = (client: OpenAI) => client.chat.completions.create(chat('credentials', 'revoked/model'), options)
    const error = await ask(hasty.withOptions({ maxRetries: 0 })).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(OpenAI.InternalServerError)
    expect(error).toMatchObject({ status: 504, code: 'wait_limit', type: 'server_error' })
    const [job] = await askonce.sql('select id from jobs where idempotency_key = $1', [
      options.headers['Idempotency-Key'],
    ])
    expect(await openai.get(`${askonce.address}/v1/jobs/${String(job?.['id'])}`)).toMatchObject({
      state: 'queued',
      waiting_for: { kind: 'lane', name: 'revoked' },
    })
    await openai.post(`${askonce.address}/v1/lanes/revoked/resume`)
    expect((await ask(openai)).choices[0]?.message.content).toMatch(/^call \d+/)
    expect(prompts.calls('credentials')).toBe(2)
  })

  it('an answer that broke off is held where the policy says so, and the SDK does not send it again', async () => {
    prompts.answer('cut', { kind: 'cut', after: 'half' })
    const options = keyed(newKey(), { 'Askonce-Options': '{"on_uncertain":"hold"}' })
    const error = await openai.chat.completions.create(chat('cut'), options).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(OpenAI.BadRequestError)
    expect(error).toMatchObject({ status: 400, code: 'job_uncertain' })
    expect(prompts.calls('cut')).toBe(1)
  })

  it('an error in the middle of a stream is thrown by the iterator', async () => {
    prompts.answer('stream error', { kind: 'stream_error', afterEvents: 3 })
    const held = prompts.upstream.hold({ model: 'gpt-error' }, 3)
    const options = keyed(newKey(), { 'Askonce-Options': '{"on_uncertain":"hold"}' })
    const body = { ...chat('stream error', 'gpt-error'), stream: true as const }
    const stream = await openai.chat.completions.create(body, options)
    held.release()
    const error = await collect(stream).catch((e: unknown) => e)
    expect(error).toBeInstanceOf(OpenAI.APIError)
    expect(error).toMatchObject({ code: 'job_uncertain' })
  })

  it('our own: no key, a used key, a wrong API key, a route that is not here', async () => {
    const used = keyed()
    await openai.chat.completions.create(chat('used'), used)
    const stranger = new OpenAI({ apiKey: 'no-key-of-ours-0123', baseURL: openai.baseURL })
    const { completions } = openai.chat
    const expected: [() => Promise<unknown>, new (...args: never[]) => Error, object][] = [
      [() => completions.create(chat('x')), OpenAI.BadRequestError, { code: 'idempotency_key_missing' }],
      [() => completions.create(chat('y'), used), OpenAI.BadRequestError, { code: 'idempotency_key_reused' }],
      [() => stranger.models.list(), OpenAI.AuthenticationError, { code: 'unauthorized' }],
      [() => openai.images.generate({ prompt: 'x' }), OpenAI.NotFoundError, { code: 'not_found' }],
    ]
    for (const [ask, errorClass, members] of expected) {
      const error = await ask().catch((e: unknown) => e)
      expect(error).toBeInstanceOf(errorClass)
      expect(error).toMatchObject(members)
      expect((error as InstanceType<typeof OpenAI.APIError>).requestID).toMatch(/^[0-9a-f-]{36}$/)
    }
  })
})

describe('retries by the SDK', () => {
  const troubles: Trouble[] = ['503 before', '503 after', 'cut before', 'cut after']
  it.each(troubles)('%s: the upstream is called once', async (trouble) => {
    const through = openai.withOptions({ baseURL: `${front.url}/openai/v1` })
    const before = front.requests()
    front.trouble(trouble)
    const made = await through.chat.completions.create(chat(`retry ${trouble}`), keyed())
    expect(made.choices[0]?.message.content).toMatch(/^call \d+/)
    expect(front.requests() - before).toBe(2)
    front.trouble(trouble)
    const stream = await through.chat.completions.create({ ...chat(`retry stream ${trouble}`), stream: true }, keyed())
    expect(textOf(await collect(stream))).toMatch(/^call \d+/)
    expect(front.requests() - before).toBe(4)
    expect([prompts.calls(`retry ${trouble}`), prompts.calls(`retry stream ${trouble}`)]).toEqual([1, 1])
  })

  it('after our wait limit: it asks again, and the same call continues', async () => {
    prompts.answer('slow', { kind: 'answer', delayMs: 1_300 })
    const made = await hasty.chat.completions.create(chat('slow'), keyed())
    expect(made.choices[0]?.message.content).toMatch(/^call \d+/)
    expect(prompts.calls('slow')).toBe(1)
  })
})

describe('a client that goes away', () => {
  const points: [
    string,
    number | undefined,
    (stream: AsyncIterable<OpenAI.ChatCompletionChunk>) => Promise<unknown>,
  ][] = [
    ['in the headers', 1, () => Promise.resolve()],
    ['in mid-stream', 3, (stream) => take(stream, 2)],
    // Head, four pieces, the ending, usage, [DONE]; the ending is not shown before the answer is stored.
    ['just before the end', 8, (stream) => take(stream, 5)],
  ]

  async function take(stream: AsyncIterable<unknown>, count: number): Promise<void> {
    let seen = 0
    for await (const _ of stream) {
      seen += 1
      if (seen === count) break
    }
    expect(seen).toBe(count)
  }

  it.each(points)('%s: others get the whole answer, of the same call', async (name, afterEvents, leave) => {
    const model = `gpt-left-${name.replaceAll(' ', '-')}`
    const body = { ...chat(`left ${name}`, model), stream: true as const }
    const held = prompts.upstream.hold({ model }, afterEvents)
    const options = keyed()
    const leaving = new AbortController()
    const stream = await openai.chat.completions.create(body, { ...options, signal: leaving.signal })
    await leave(stream)
    leaving.abort()
    const follower = await openai.chat.completions.create(body, options)
    held.release()
    const [followed, late] = [
      await collect(follower),
      await collect(await openai.chat.completions.create(body, options)),
    ]
    expect(textOf(followed)).toMatch(/^call \d+ x+$/)
    expect(followed.at(-1)?.choices[0]?.finish_reason).toBe('stop')
    expect(late).toEqual(followed)
    expect(prompts.calls(`left ${name}`)).toBe(1)
  })

  it.each([false, true])('before the answer (stream: %s): the same key gets it', async (stream) => {
    const model = `gpt-gone-${stream}`
    const held = prompts.upstream.hold({ model })
    const options = keyed()
    const leaving = new AbortController()
    const ask = (signal?: AbortSignal) =>
      openai.chat.completions.create(
        { ...chat(`gone ${stream}`, model), stream },
        { ...options, ...(signal && { signal }) },
      )
    const asked = ask(leaving.signal).catch((error: unknown) => error)
    await held.arrived(1)
    leaving.abort()
    expect(await asked).toBeInstanceOf(OpenAI.APIUserAbortError)
    held.release()
    const answer = await ask()
    const text = 'choices' in answer ? answer.choices[0]?.message.content : textOf(await collect(answer))
    expect(text).toMatch(/^call \d+ x+$/)
    expect(prompts.calls(`gone ${stream}`)).toBe(1)
  })
})

it('an unmodified script run twice: the second run asks the upstream nothing', async () => {
  const script = new URL('../../../examples/sdk-openai.ts', import.meta.url).pathname
  const run = async (): Promise<string[]> => {
    const child = spawnNode(script, {
      args: ['gpt-4o-mini'],
      env: { OPENAI_BASE_URL: `${askonce.address}/openai/v1`, OPENAI_API_KEY: apiKey },
    })
    expect(await child.exited).toMatchObject({ code: 0 })
    return [...child.stdout]
  }
  const before = prompts.upstream.calls()
  const first = await run()
  const between = prompts.upstream.calls()
  expect(between - before).toBe(5)
  const second = await run()
  expect(prompts.upstream.calls()).toBe(between)
  expect(first.filter((line) => line.startsWith('asked'))).toHaveLength(5)
  expect(second).toEqual(first.map((line) => line.replace(/^asked /, 'stored')))
})
