import Anthropic from '@anthropic-ai/sdk'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bootstrapKey, first, startHarness, type Harness } from '../api/harness.ts'

let harness: Harness
let openai: OpenAI
let anthropic: Anthropic
let keys = 0

beforeAll(async () => {
  harness = await startHarness({ env: { ASKONCE_SDK_WAIT_SECONDS: '5' } })
  const { address } = harness.api
  openai = new OpenAI({ apiKey: bootstrapKey, baseURL: `${address}/openai/v1`, maxRetries: 0 })
  anthropic = new Anthropic({ apiKey: bootstrapKey, baseURL: `${address}/anthropic`, maxRetries: 0 })
})

afterAll(() => harness.stop())

function newKey(): string {
  keys += 1
  return `key-${keys}`
}

const chat = (content: string) => ({ model: 'simulated/small', messages: [{ role: 'user' as const, content }] })

/** The job of a key, once it is there. */
async function jobOf(key: string): Promise<string> {
  await expect
    .poll(() => harness.sql('select id from jobs where idempotency_key = $1', [key]), { timeout: 5_000, interval: 20 })
    .toHaveLength(1)
  return String(first(await harness.sql('select id from jobs where idempotency_key = $1', [key]))['id'])
}

const answerText =
  '{"id":"chatcmpl-9","object":"chat.completion","created":1.0,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}'

describe('a call that is answered', () => {
  it('waits for the answer and gets the provider’s bytes, status and the job’s headers', async () => {
    const key = newKey()
    const asked = harness.call('POST', '/openai/v1/chat/completions', {
      body: chat('wait'),
      headers: { 'idempotency-key': key },
    })
    const id = await jobOf(key)
    await harness.answer(await harness.claim(id), answerText, 'application/json; charset=x')
    const reply = await asked
    expect(reply.status).toBe(200)
    expect(reply.text).toBe(answerText)
    expect(Object.fromEntries(reply.headers)).toMatchObject({
      'content-type': 'application/json; charset=x',
      'x-askonce-job-id': id,
      'x-askonce-cost-usd': '0.0025',
      'idempotent-replayed': 'false',
      location: `/v1/jobs/${id}`,
    })
    const again = await harness.call('POST', '/openai/v1/chat/completions', {
      body: chat('wait'),
      headers: { 'idempotency-key': key },
    })
    expect(again.text).toBe(answerText)
    expect(again.headers.get('idempotent-replayed')).toBe('true')
  })

  it('parses as the SDK’s own object', async () => {
    const key = newKey()
    const asked = openai.chat.completions.create(chat('sdk'), { headers: { 'Idempotency-Key': key } }).withResponse()
    await harness.answer(await harness.claim(await jobOf(key)), answerText)
    const { data, request_id: requestId } = await asked
    expect(data.choices[0]?.message.content).toBe('hi')
    expect(requestId).toMatch(/^[0-9a-f-]{36}$/)
  })

  it('keeps the base64 of embeddings byte for byte', async () => {
    const key = newKey()
    const numbers = Float32Array.from([0.5, -1.25, 3])
    const embedding = Buffer.from(numbers.buffer).toString('base64')
    const asked = openai.embeddings.create(
      { model: 'simulated/small', input: 'x' },
      { headers: { 'Idempotency-Key': key } },
    )
    const id = await jobOf(key)
    const claim = await harness.claim(id)
    expect(JSON.parse(claim.request.toString())).toMatchObject({ encoding_format: 'base64' })
    // As no JSON library would write it.
    const text = `{ "object":"list",\n"data" : [{"index":0.0,"embedding":"${embedding}","object":"embedding"}],"usage":{"prompt_tokens":1,"total_tokens":1} }\n`
    await harness.answer(claim, text)
    expect((await asked).data[0]?.embedding).toEqual([...numbers])
    const again = await fetch(`${openai.baseURL}/embeddings`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${bootstrapKey}`,
        'content-type': 'application/json',
        'idempotency-key': key,
      },
      body: claim.request,
    })
    expect(again.headers.get('idempotent-replayed')).toBe('true')
    expect(Buffer.from(await again.arrayBuffer())).toEqual(Buffer.from(text))
  })

  it('speaks to the Anthropic SDK, which sends x-api-key', async () => {
    const key = newKey()
    const asked = anthropic.messages
      .create(
        { model: 'simulated/small', max_tokens: 9, messages: [{ role: 'user', content: 'hi' }] },
        { headers: { 'Idempotency-Key': key } },
      )
      .withResponse()
    const text =
      '{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"text","text":"hello"}],"stop_reason":"end_turn"}'
    await harness.answer(await harness.claim(await jobOf(key)), text)
    const { data, request_id: requestId } = await asked
    expect(data.content).toEqual([{ type: 'text', text: 'hello' }])
    expect(requestId).toMatch(/^[0-9a-f-]{36}$/)
  })

  it('is answered with the job where the caller does not wait', async () => {
    const reply = await harness.call('POST', '/openai/v1/chat/completions', {
      body: chat('async'),
      headers: { 'idempotency-key': newKey(), prefer: 'respond-async' },
    })
    expect(reply).toMatchObject({ status: 202, json: { object: 'job', state: 'queued' } })
  })

  it('goes on when the client has gone: the same key gets the answer later', async () => {
    const key = newKey()
    const leaving = new AbortController()
    const asked = harness.call('POST', '/openai/v1/chat/completions', {
      body: chat('gone'),
      headers: { 'idempotency-key': key },
      signal: leaving.signal,
    })
    const id = await jobOf(key)
    leaving.abort()
    await expect(asked).rejects.toThrow(/abort/i)
    await harness.answer(await harness.claim(id), answerText)
    const reply = await harness.call('POST', '/openai/v1/chat/completions', {
      body: chat('gone'),
      headers: { 'idempotency-key': key },
    })
    expect(reply.text).toBe(answerText)
  })

  it('keeps a connection alive with blanks where that is asked for, which JSON may begin with', async () => {
    const key = newKey()
    const asked = harness.call('POST', '/openai/v1/chat/completions', {
      body: chat('blanks'),
      headers: { 'idempotency-key': key, 'askonce-keep-alive': 'true' },
    })
    await harness.answer(await harness.claim(await jobOf(key)), answerText)
    const reply = await asked
    expect(reply.status).toBe(200)
    expect(reply.text.trim()).toBe(answerText)
  })
})

describe('keys', () => {
  it('are asked for', async () => {
    const refused = await openai.chat.completions.create(chat('no key')).catch((error: unknown) => error)
    expect(refused).toBeInstanceOf(OpenAI.BadRequestError)
    expect(refused).toMatchObject({ code: 'idempotency_key_missing', param: 'Idempotency-Key' })
  })

  it('can be derived from what is asked: equal requests share one job', async () => {
    const headers = { 'askonce-key': 'derive', prefer: 'respond-async' }
    const ask = (body: object) => harness.call('POST', '/openai/v1/chat/completions', { body, headers })
    const one = await ask(chat('derived'))
    const two = await ask({ messages: chat('derived').messages, model: 'simulated/small' })
    const other = await ask(chat('derived otherwise'))
    expect(two.json['id']).toBe(one.json['id'])
    expect(other.json['id']).not.toBe(one.json['id'])
    expect(one.json['key']).toMatch(/^derived\/[0-9a-f]{64}$/)
  })

  it('are derived for a tenant that wants it so, unless the request names one', async () => {
    const key = await harness.keyFor('derives')
    await harness.sql("update tenants set derive_keys = true where id = 'derives'")
    const ask = (headers: Record<string, string>) =>
      harness.call('POST', '/openai/v1/chat/completions', {
        key,
        body: chat('tenant'),
        headers: { prefer: 'respond-async', ...headers },
      })
    expect((await ask({})).json['key']).toMatch(/^derived\//)
    expect((await ask({ 'idempotency-key': 'mine' })).json['key']).toBe('mine')
  })

  it('must not name two requests', async () => {
    const headers = { 'idempotency-key': newKey(), prefer: 'respond-async' }
    await harness.call('POST', '/openai/v1/chat/completions', { body: chat('one'), headers })
    const reply = await harness.call('POST', '/openai/v1/chat/completions', { body: chat('two'), headers })
    expect(reply).toMatchObject({ status: 400, json: { code: 'idempotency_key_reused', status: 400 } })
    expect(reply.text).toContain('Askonce-Key: derive')
    const native = { operation: 'chat.completions', request: chat('two') }
    expect((await harness.submit(headers['idempotency-key'], native)).status).toBe(422)
    expect(reply.headers.get('x-should-retry')).toBe('false')
  })

  it('take the members of a submission in a header', async () => {
    const ask = (options: string) =>
      harness.call('POST', '/openai/v1/chat/completions', {
        body: chat('options'),
        headers: { 'idempotency-key': newKey(), 'askonce-options': options, prefer: 'respond-async' },
      })
    const { json } = await ask('{"on_uncertain":"hold","metadata":{"run":"7"}}')
    expect(json['metadata']).toEqual({ run: '7' })
    expect(await harness.sql('select on_uncertain from jobs where id = $1', [json['id']])).toEqual([
      { on_uncertain: 'hold' },
    ])
    for (const bad of ['{"on_uncertain":"perhaps"}', '{"operation":"embeddings"}', '[]', '{']) {
      expect(await ask(bad)).toMatchObject({ status: 400, json: { error: { param: 'Askonce-Options' } } })
    }
  })
})

describe('errors, in the classes of the SDKs', () => {
  const ending = async (key: string, change: (id: string) => Promise<unknown>): Promise<void> => {
    await change(await jobOf(key))
  }
  const askOpenai = (key: string) =>
    openai.chat.completions.create(chat(key), { headers: { 'Idempotency-Key': key } }).catch((error: unknown) => error)
  const askAnthropic = (key: string) =>
    anthropic.messages
      .create(
        { model: 'simulated/small', max_tokens: 9, messages: [{ role: 'user', content: key }] },
        { headers: { 'Idempotency-Key': key } },
      )
      .catch((error: unknown) => error)

  it('a refusal of the provider is its own status and body, and is not sent again by the SDK', async () => {
    const key = newKey()
    const retrying = new OpenAI({ apiKey: bootstrapKey, baseURL: openai.baseURL, maxRetries: 2 })
    const asked = retrying.chat.completions
      .create(chat(key), { headers: { 'Idempotency-Key': key } })
      .catch((error: unknown) => error)
    await ending(key, async (id) =>
      harness.end(await harness.claim(id), {
        action: 'stop',
        outcome: 'rejected',
        error: JSON.stringify({ code: 'provider_rejected', message: 'x', retryable: false, provider_status: 429 }),
        providerStatus: 429,
        errorResponse: Buffer.from(
          '{"error":{"message":"too long","type":"t","param":"messages","code":"context_length"}}',
        ),
        errorContentType: 'application/json',
      }),
    )
    const refused = await asked
    expect(refused).toBeInstanceOf(OpenAI.RateLimitError)
    expect(refused).toMatchObject({ status: 429, code: 'context_length', param: 'messages', type: 't' })
    expect(harness.lines.filter(({ event, status }) => event === 'request.ended' && status === 429)).toHaveLength(1)
  })

  it('a failure without the provider’s words is 502 upstream_failed', async () => {
    const key = newKey()
    const asked = askOpenai(key)
    await ending(key, async (id) =>
      harness.end(await harness.claim(id), {
        action: 'stop',
        outcome: 'rejected',
        error: JSON.stringify({
          code: 'connection_failed',
          message: 'no route',
          retryable: true,
          provider_status: null,
        }),
      }),
    )
    const failed = await asked
    expect(failed).toBeInstanceOf(OpenAI.InternalServerError)
    expect(failed).toMatchObject({ status: 502, code: 'upstream_failed' })
    expect(String(failed)).toContain('no route')
  })

  it('a held job is 400 job_uncertain, a cancelled one 400 job_cancelled: no client sends that again', async () => {
    const held = newKey()
    const asked = askAnthropic(held)
    await ending(held, async (id) =>
      harness.end(await harness.claim(id), { action: 'unstorable', outcome: 'unstorable', billing: 'billed' }),
    )
    const uncertain = await asked
    expect(uncertain).toBeInstanceOf(Anthropic.BadRequestError)
    expect(uncertain).toMatchObject({
      status: 400,
      error: { type: 'error', error: { type: 'invalid_request_error', code: 'job_uncertain' } },
      requestID: expect.stringMatching(/^[0-9a-f-]{36}$/) as string,
    })

    const gone = newKey()
    const waiting = askOpenai(gone)
    await ending(gone, (id) => harness.call('POST', `/v1/jobs/${id}/cancel`))
    const cancelled = await waiting
    expect(cancelled).toBeInstanceOf(OpenAI.BadRequestError)
    expect(cancelled).toMatchObject({ code: 'job_cancelled' })
  })

  it('a slow call is 504 wait_limit, which the SDK sends again: the key continues', async () => {
    const key = newKey()
    const late = await askOpenai(key)
    expect(late).toBeInstanceOf(OpenAI.InternalServerError)
    expect(late).toMatchObject({ status: 504, code: 'wait_limit' })
    const id = await jobOf(key)
    const patient = new OpenAI({ apiKey: bootstrapKey, baseURL: openai.baseURL, maxRetries: 5 })
    const asked = patient.chat.completions.create(chat(key), { headers: { 'Idempotency-Key': key } })
    await harness.answer(await harness.claim(id), answerText)
    expect((await asked).id).toBe('chatcmpl-9')
  })

  it.each([['no key', 'wrong-key-0000000000', Anthropic.AuthenticationError, 'authentication_error', 401]] as const)(
    '%s: Anthropic’s words',
    async (_, apiKey, kind, type, status) => {
      const stranger = new Anthropic({ apiKey, baseURL: anthropic.baseURL, maxRetries: 0 })
      const refused = await stranger.messages
        .create({ model: 'm', max_tokens: 1, messages: [{ role: 'user', content: 'x' }] })
        .catch((error: unknown) => error)
      expect(refused).toBeInstanceOf(kind)
      expect(refused).toMatchObject({ status, error: { type: 'error', error: { type } } })
    },
  )

  it('a body that does not fit names the place, in both shapes', async () => {
    const wrong = await openai.chat.completions
      .create({ model: 'm', messages: [] }, { headers: { 'Idempotency-Key': newKey() } })
      .catch((error: unknown) => error)
    expect(wrong).toBeInstanceOf(OpenAI.BadRequestError)
    expect(wrong).toMatchObject({ param: '/messages', code: 'invalid_request' })
    const reply = await harness.call('POST', '/anthropic/v1/messages', { body: '{', key: bootstrapKey })
    expect(reply).toMatchObject({ status: 400, json: { type: 'error', error: { type: 'invalid_request_error' } } })
    expect(reply.headers.get('request-id')).toBe((JSON.parse(reply.text) as { request_id: string }).request_id)
  })

  it('an address that is not there is not found in Anthropic’s words too', async () => {
    expect(await harness.call('GET', '/anthropic/v1/nothing')).toMatchObject({
      status: 404,
      json: { type: 'error', error: { type: 'not_found_error' } },
    })
  })
})
