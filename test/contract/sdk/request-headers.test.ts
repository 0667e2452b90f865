import Anthropic from '@anthropic-ai/sdk'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { apiKey, startRunning, type Running } from './running.ts'
import { startPrompts, type Prompts } from './stock-upstream.ts'

let prompts: Prompts
let askonce: Running
let openai: OpenAI
let anthropic: Anthropic

beforeAll(async () => {
  prompts = await startPrompts()
  const { url } = prompts.upstream
  askonce = await startRunning({ openai: `${url}/v1`, anthropic: url })
  openai = new OpenAI({ apiKey, baseURL: `${askonce.address}/openai/v1`, maxRetries: 0 })
  anthropic = new Anthropic({ apiKey, baseURL: `${askonce.address}/anthropic`, maxRetries: 0 })
})

afterAll(async () => {
  await askonce.stop()
  await prompts.upstream.close()
})

const chat = (content: string) => ({ model: 'gpt-4o-mini', messages: [{ role: 'user' as const, content }] })
const message = (content: string) => ({ ...chat(content), model: 'claude-sonnet-4-0', max_tokens: 9 })
const keyed = (key: string, more: Record<string, string> = {}) => ({ headers: { 'Idempotency-Key': key, ...more } })

describe('betas', () => {
  it('go to the provider, sorted, from the beta namespace with its query parameter', async () => {
    const ask = (betas: string[]) => anthropic.beta.messages.create({ ...message('beta'), betas }, keyed('beta'))
    const first = await ask(['files-api-2025-04-14', 'context-1m-2025-08-07'])
    expect(prompts.last('beta').headers['anthropic-beta']).toBe('context-1m-2025-08-07,files-api-2025-04-14')
    expect(await ask(['context-1m-2025-08-07', 'files-api-2025-04-14', 'files-api-2025-04-14'])).toEqual(first)
    expect(prompts.calls('beta')).toBe(1)
  })

  it('are part of what a key names: others, or none, are another request', async () => {
    await openai.chat.completions.create(chat('named'), keyed('named', { 'OpenAI-Beta': 'a=v1' }))
    for (const headers of [{ 'OpenAI-Beta': 'a=v2' }, {}]) {
      const error = await openai.chat.completions
        .create(chat('named'), keyed('named', headers))
        .catch((e: unknown) => e)
      expect(error).toBeInstanceOf(OpenAI.BadRequestError)
      expect(error).toMatchObject({ code: 'idempotency_key_reused' })
      expect(String(error)).toMatch(/differ at \/headers/)
    }
    expect(prompts.calls('named')).toBe(1)
  })

  it('of a batch go with each of its lines, but for those of the batches themselves', async () => {
    const { id } = await anthropic.beta.messages.batches.create({
      requests: [{ custom_id: 'one', params: message('beta line') }],
      betas: ['context-1m-2025-08-07'],
    })
    await expect
      .poll(async () => (await anthropic.beta.messages.batches.retrieve(id)).processing_status, { timeout: 20_000 })
      .toBe('ended')
    expect(prompts.last('beta line').headers['anthropic-beta']).toBe('context-1m-2025-08-07')
  })

  it('that no header can carry are refused', async () => {
    const long = keyed('long', { 'OpenAI-Beta': 'x'.repeat(2_000) })
    await expect(openai.chat.completions.create(chat('long'), long)).rejects.toMatchObject({
      status: 400,
      param: 'openai-beta',
    })
  })
})

describe('other headers', () => {
  it('go to the provider by the list, never credentials, and are no part of what a key names', async () => {
    const organized = openai.withOptions({ organization: 'org-1', project: 'proj-1' })
    const more = { 'HTTP-Referer': 'https://example.org', 'X-Title': 'Title', 'X-Other': 'no', Cookie: 'secret=1' }
    const first = await organized.chat.completions.create(chat('forwarded'), keyed('forwarded', more))
    const { headers } = prompts.last('forwarded')
    expect(headers).toMatchObject({
      'openai-organization': 'org-1',
      'openai-project': 'proj-1',
      'http-referer': 'https://example.org',
      'x-title': 'Title',
      authorization: 'Bearer upstream-key-0123456789',
    })
    expect([headers['x-other'], headers['cookie']]).toEqual([undefined, undefined])
    expect(await openai.chat.completions.create(chat('forwarded'), keyed('forwarded'))).toEqual(first)
    expect(prompts.calls('forwarded')).toBe(1)
  })

  it('a query parameter of the SDKs is accepted on every route, another is not', async () => {
    const versioned = openai.withOptions({ defaultQuery: { 'api-version': '2026-01-01' } })
    await versioned.chat.completions.create(chat('versioned'), keyed('versioned'))
    expect((await versioned.files.list()).data).toEqual([])
    await expect(
      openai.withOptions({ defaultQuery: { other: '1' } }).chat.completions.create(chat('x'), keyed('x')),
    ).rejects.toMatchObject({ status: 400, param: 'other' })
  })
})

describe('one key for a run of several calls', () => {
  it('with Askonce-Key: derive each call has its own within the run; another run has its own answers', async () => {
    const run = (name: string) => keyed(name, { 'Askonce-Key': 'derive' })
    const ask = (content: string, name: string) => openai.chat.completions.create(chat(content), run(name))
    const [one, two] = [await ask('step 1', 'run-42'), await ask('step 2', 'run-42')]
    expect(await ask('step 1', 'run-42')).toEqual(one)
    expect(await ask('step 2', 'run-42')).toEqual(two)
    expect(await ask('step 1', 'run-43')).not.toEqual(one)
    expect([prompts.calls('step 1'), prompts.calls('step 2')]).toEqual([2, 1])
    const keys = await askonce.sql(
      "select idempotency_key as key, encode(fingerprint, 'hex') as named from jobs where idempotency_key like 'run-4%'",
    )
    expect(keys).toHaveLength(3)
    for (const { key, named } of keys) expect(String(key)).toMatch(new RegExp(`^run-4[23]/${String(named)}$`))
    await expect(ask('too long', 'x'.repeat(191))).rejects.toMatchObject({ code: 'idempotency_key_invalid' })
  })
})

describe('what reaches a provider by other ids, or not at all', () => {
  it('an operation that the lane does not speak is refused at submission', async () => {
    const asked = openai.chat.completions.create({ ...chat('x'), model: 'claude-sonnet-4-0' }, keyed('unspoken'))
    await expect(asked).rejects.toMatchObject({ status: 400, param: '/model' })
    const native = openai.post(`${askonce.address}/v1/jobs`, {
      body: { operation: 'messages', request: { ...message('x'), model: 'gpt-4o-mini' } },
      ...keyed('unspoken-native'),
    })
    await expect(native).rejects.toMatchObject({ status: 400, param: '/request/model' })
  })

  it('a background response is gone on from by either of its ids, which name the same request', async () => {
    const first = await openai.responses.create(
      { model: 'gpt-4o-mini', input: 'first', background: true },
      keyed('first'),
    )
    const next = (previous: string) =>
      openai.responses.create({ model: 'gpt-4o-mini', input: 'next', previous_response_id: previous }, keyed('next'))
    await expect
      .poll(async () => (await openai.responses.retrieve(first.id)).status, { timeout: 10_000 })
      .toBe('completed')
    const { id: theirs } = await openai.responses.retrieve(first.id)
    const answered = await next(first.id)
    expect(prompts.last('next').json['previous_response_id']).toBe(theirs)
    expect(await next(theirs)).toMatchObject({ id: answered.id })
    const unknown = `resp_${first.id.slice(5, 17)}7${'0'.repeat(3)}8${'0'.repeat(15)}`
    await expect(
      openai.responses.create({ model: 'gpt-4o-mini', previous_response_id: unknown }, keyed('unknown')),
    ).rejects.toMatchObject({ status: 400, param: '/previous_response_id' })
    // A replay of the first is what GET says.
    const replayed = await openai.responses.create(
      { model: 'gpt-4o-mini', input: 'first', background: true },
      keyed('first'),
    )
    expect(replayed).toEqual(await openai.responses.retrieve(first.id))
    expect(replayed.output).not.toEqual([])
    expect(prompts.calls('first')).toBe(1)
  })

  it('the id of a file of ours is refused, and so is a file that is for no batch', async () => {
    const file = new File(['{}'], 'a.jsonl')
    const { id } = await openai.files.create({ file, purpose: 'batch' })
    const content = [{ type: 'input_file' as const, file_id: id }]
    await expect(
      openai.responses.create({ model: 'gpt-4o-mini', input: [{ role: 'user', content }] }, keyed('file')),
    ).rejects.toMatchObject({ status: 400, param: '/input/0/content/0/file_id' })
    await expect(openai.files.create({ file, purpose: 'user_data' })).rejects.toMatchObject({
      status: 400,
      param: 'purpose',
    })
    // The same text as a prompt is none of our business.
    await openai.chat.completions.create(chat(id), keyed('file-as-text'))
  })
})
