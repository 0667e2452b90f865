import Anthropic from '@anthropic-ai/sdk'
import { appendStreamChunks, type Claim } from '@askonce/store'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bootstrapKey, startHarness, type Harness } from '../api/harness.ts'

let harness: Harness
let keys = 0

beforeAll(async () => {
  harness = await startHarness({ env: { ASKONCE_SDK_WAIT_SECONDS: '5' } })
})

afterAll(() => harness.stop())

interface FiredEvent {
  name: string
  data: string
  id: string
}

/** As Python's SDKs read: an event is fired at every blank line that comes once a name, data or an id was seen, with whatever data there is. */
function fireLikePython(text: string): FiredEvent[] {
  const fired: FiredEvent[] = []
  let [name, id] = ['', '']
  let data: string[] = []
  for (const line of text.split(/\r\n|\r|\n/)) {
    if (line === '') {
      if (name !== '' || data.length > 0 || id !== '') fired.push({ name, data: data.join('\n'), id })
      name = ''
      data = []
      continue
    }
    const [field = '', value = ''] = /^([^:]*):? ?(.*)$/s.exec(line)?.slice(1) ?? []
    if (field === 'event') name = value
    else if (field === 'data') data.push(value)
    else if (field === 'id') id = value
  }
  // What follows the last line end is no line.
  return text.endsWith('\n\n') ? fired.slice(0, -1) : fired
}

/** What the SDKs parse, or end at. */
function isReadable(data: string): boolean {
  if (data === '[DONE]') return true
  try {
    return typeof JSON.parse(data) === 'object'
  } catch {
    return false
  }
}

const chunk = (delta: object, finish: string | null = null) =>
  JSON.stringify({
    id: 'chatcmpl-1',
    object: 'chat.completion.chunk',
    created: 1,
    model: 'm',
    choices: [{ index: 0, delta, finish_reason: finish }],
  })

/** Of a provider behind proxies: everything that the standard tells readers to pass over. */
const dirtyChat = [
  '\uFEFF: welcome\n\n',
  'data:\n\n',
  'retry: 3000\n\n',
  `id: theirs-1\ndata: ${chunk({ role: 'assistant', content: 'one ' })}\n\n`,
  ': OPENROUTER PROCESSING\n\n',
  ': a comment\nevent: ping\ndata:\n\n',
  'event: ping\ndata: {"type":"ping"}\n\n',
  `: before\r\ndata: ${chunk({ content: 'ping two' })}\r\n\r\n`,
  'event: message\n\n',
  '\n\n',
  `data: ${chunk({}, 'stop')}\n\n`,
  'data: \n\n',
  'data: [DONE] \n\n',
  ': bye\n\n',
]

const message = { id: 'msg_1', type: 'message', role: 'assistant', model: 'm', content: [], stop_reason: null }
const named = (type: string, more: object) => `event: ${type}\ndata: ${JSON.stringify({ type, ...more })}\n\n`
const dirtyMessage = [
  ': hello\n\n',
  named('message_start', { message: { ...message, usage: { input_tokens: 1, output_tokens: 1 } } }),
  named('content_block_start', { index: 0, content_block: { type: 'text', text: '' } }),
  named('ping', {}),
  'event: ping\n\n',
  'event: ping\ndata:\n\n',
  named('content_block_delta', { index: 0, delta: { type: 'text_delta', text: 'one ping two' } }),
  ': a pause\n\n',
  named('content_block_stop', { index: 0 }),
  named('message_delta', { delta: { stop_reason: 'end_turn', stop_sequence: null }, usage: { output_tokens: 2 } }),
  named('message_stop', {}),
  ': behind\n\n',
]

interface Job {
  key: string
  id: string
  claim: Claim
}

const response = { id: 'resp_up', object: 'response', model: 'm', status: 'completed', output: [] }
const cleanResponse = [
  named('response.created', { sequence_number: 0, response: { ...response, status: 'in_progress' } }),
  named('response.output_text.delta', { sequence_number: 1, output_index: 0, content_index: 0, delta: 'one' }),
  named('response.completed', { sequence_number: 2, response }),
]

const paths = {
  chat: '/openai/v1/chat/completions',
  responses: '/openai/v1/responses',
  messages: '/anthropic/v1/messages',
}

const bodyOf = (key: string) => ({
  model: 'simulated/small',
  max_tokens: 9,
  messages: [{ role: 'user' as const, content: key }],
  stream: true as const,
})

const requestOf = (kind: keyof typeof paths, key: string): object =>
  kind === 'responses' ? { model: 'simulated/small', input: key, stream: true } : bodyOf(key)

async function running(kind: keyof typeof paths): Promise<Job> {
  keys += 1
  const key = `readable-${keys}`
  const headers = { 'idempotency-key': key, prefer: 'respond-async' }
  const { json } = await harness.call('POST', paths[kind], { body: requestOf(kind, key), headers })
  const id = json['id'] ?? ''
  return { key, id, claim: await harness.claim(id) }
}

async function show({ id, claim }: Job, before: string[], events: string[]): Promise<void> {
  const position = Buffer.byteLength(before.join(''))
  const body = Buffer.from(events.join(''))
  await appendStreamChunks(harness.database.db, [{ jobId: id, attempt: claim.attempt, position, body }])
}

const finish = ({ claim }: Job, events: string[]) => harness.answer(claim, events.join(''), 'text/event-stream')

const read = (kind: keyof typeof paths, { key }: Job, headers: Record<string, string> = {}) =>
  harness.call('POST', paths[kind], { body: requestOf(kind, key), headers: { 'idempotency-key': key, ...headers } })

describe.each([
  ['chat', dirtyChat],
  ['messages', dirtyMessage],
] as const)('what a provider’s proxies put between its events (%s)', (kind, dirty) => {
  it('fires no event without data, followed as it comes, late, or resumed', async () => {
    const job = await running(kind)
    const half = Math.ceil(dirty.length / 2)
    await show(job, [], dirty.slice(0, half))
    const following = read(kind, job)
    await finish(job, [...dirty])
    const [followed, late] = [await following, await read(kind, job)]
    expect(followed.text).toBe(late.text)
    const events = fireLikePython(late.text)
    expect(events.length).toBeGreaterThan(3)
    for (const { data, id } of events) {
      expect(isReadable(data), data).toBe(true)
      expect(id).toMatch(/^1-\d+$/)
    }
    expect(late.text).not.toMatch(/^:|\r|\uFEFF/m)
    const [first] = events
    const rest = await read(kind, job, { 'last-event-id': first?.id ?? '' })
    expect(fireLikePython(rest.text)).toEqual(events.slice(1))
    // The provider's bytes are kept as they came.
    expect((await harness.call('GET', `/v1/jobs/${job.id}/response`)).text).toBe(dirty.join('').replace('\uFEFF', ''))
  })

  it('is nothing to our own followers either', async () => {
    const job = await running(kind)
    await finish(job, [...dirty])
    const { text } = await harness.call('GET', `/v1/jobs/${job.id}/events`)
    const events = fireLikePython(text)
    expect(events.at(-1)?.name).toBe('job')
    for (const { data } of events) expect(isReadable(data), data).toBe(true)
  })
})

describe.each([
  ['chat', dirtyChat.slice(0, -1)],
  ['responses', cleanResponse],
  ['messages', dirtyMessage.slice(0, -1)],
] as const)('what is stored of a whole stream and says nothing (%s)', (kind, events) => {
  const whole = events.join('')
  const [begin = '', ...rest] = events
  const shownOf = async (transcript: string): Promise<FiredEvent[]> => {
    const job = await running(kind)
    await finish(job, [transcript])
    return fireLikePython((await read(kind, job)).text).map(({ name, data }) => ({ name, data, id: '' }))
  }

  it.each([
    'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"late"}}\n\n',
    'data: {"error":{"message":"late"}}\n\n',
    'data: {torn\n\n',
    'data: {torn',
    'data: bye\n\n',
    'event: bye\ndata: {}\n\n',
  ])('is not shown behind the ending: %j', async (more) => {
    expect(await shownOf(whole + more)).toEqual(await shownOf(whole))
  })

  it.each(['data: OK\n\n', 'event: hint\ndata: soon\n\n', 'data: null\n\n', 'data: 1\n\n', 'data: "x"\n\n'])(
    'is not shown in the middle: %j',
    async (more) => {
      expect(await shownOf([begin, more, ...rest].join(''))).toEqual(await shownOf(whole))
    },
  )
})

describe('a stream that breaks off behind its last finish reason', () => {
  it('is shown without the event that was torn', async () => {
    const job = await running('chat')
    const whole = dirtyChat.slice(0, 11)
    await finish(job, [...whole, 'data: {"id":"chatcmpl-1","choices":[],"usa'])
    const shown = fireLikePython((await read('chat', job)).text)
    for (const { data } of shown) expect(isReadable(data), data).toBe(true)
    expect(shown.at(-1)?.data).toBe(chunk({}, 'stop'))
  })
})

describe('a streamed response', () => {
  const last = cleanResponse.at(-1) ?? ''
  it.each([
    ['without its blank line', last.trimEnd()],
    ['whose type is in its name only', last.replace('"type":"response.completed",', '')],
    ['with lines that end with CR', last.replaceAll('\n', '\r')],
    ['with an error behind it', `${last}data: {"error":{"message":"late"}}\n\n`],
  ])('is retrieved from an ending %s', async (_, ending) => {
    const job = await running('responses')
    await finish(job, [...cleanResponse.slice(0, -1), ending])
    const { json } = await harness.call('GET', `/openai/v1/responses/resp_${job.id.replaceAll('-', '')}`)
    expect(json).toEqual(response)
  })
})

describe('the stock SDKs', () => {
  it('read them to the end', async () => {
    const chat = await running('chat')
    await finish(chat, dirtyChat)
    const openai = new OpenAI({ apiKey: bootstrapKey, baseURL: `${harness.api.address}/openai/v1`, maxRetries: 0 })
    const text = await openai.chat.completions
      .stream(bodyOf(chat.key), { headers: { 'Idempotency-Key': chat.key } })
      .finalContent()
    expect(text).toBe('one ping two')

    const asked = await running('messages')
    await finish(asked, dirtyMessage)
    const anthropic = new Anthropic({
      apiKey: bootstrapKey,
      baseURL: `${harness.api.address}/anthropic`,
      maxRetries: 0,
    })
    const stream = anthropic.messages.stream(bodyOf(asked.key), { headers: { 'Idempotency-Key': asked.key } })
    expect(await stream.finalText()).toBe('one ping two')
  })
})

describe('a call whose worker gives no sign of life', () => {
  it('is not shown to those who begin: they wait for the next', async () => {
    const job = await running('chat')
    const dead = dirtyChat.slice(3, 4)
    await show(job, [], dead)
    await harness.sql(
      "insert into workers (id, host, pid, version, beat_at) values ('00000000-0000-7000-8000-000000000001', 'h', 1, '0', now() - interval '2 s')",
    )
    await harness.sql(
      "update attempts set worker_id = '00000000-0000-7000-8000-000000000001' where job_id = $1 and attempt = 1",
      [job.id],
    )
    const begun = read('chat', job, { 'last-event-id': '1-0' })
    const fresh = read('chat', job)
    await harness.end(job.claim, { action: 'unknown', outcome: 'lost', billing: 'maybe' })
    await harness.sql('update jobs set run_at = now() where id = $1', [job.id])
    const next = await harness.claim(job.id)
    await finish({ ...job, claim: next }, dirtyChat)
    const { text } = await fresh
    expect(fireLikePython(text).every(({ id }) => id.startsWith('2-'))).toBe(true)
    expect(text).toContain('[DONE]')
    expect((await begun).text).toContain('stream_interrupted')
  })
})
