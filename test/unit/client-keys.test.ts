import {
  KeyStoreError,
  memoryKeyStore,
  webKeyStore,
  withIdempotency,
  type Fetch,
  type KeyStore,
  type WebStorage,
} from '@askonce/client'
import { describe, expect, it } from 'vitest'

const url = 'http://127.0.0.1:1/openai/v1/chat/completions'

/** A server in the place of `fetch`: answers with what `replies` say, in order, and keeps the keys that came. */
function fakeServer(...replies: (() => Response | Promise<Response>)[]) {
  const keys: (string | null)[] = []
  const send: Fetch = async (input, init) => {
    const headers = new Headers(init?.headers ?? (input instanceof Request ? input.headers : undefined))
    keys.push(headers.get('idempotency-key'))
    const reply = replies[keys.length - 1] ?? answer()
    return reply()
  }
  return { send, keys }
}

const answer =
  (body = '{"ok":true}', init: ResponseInit = {}) =>
  () =>
    new Response(body, { headers: { 'content-type': 'application/json' }, ...init })
const refusal = (status: number, code: string) => answer(JSON.stringify({ code, error: { code } }), { status })
const events = (text: string) => answer(text, { headers: { 'content-type': 'text/event-stream' } })
const broken = () => Promise.reject(new TypeError('fetch failed'))

/** An answer that breaks off in the middle of its body. */
function cut(): Response {
  let parts = 0
  const body = new ReadableStream({
    pull(controller) {
      parts += 1
      if (parts === 1) controller.enqueue(new TextEncoder().encode('{"half'))
      else controller.error(new TypeError('terminated'))
    },
  })
  return new Response(body, { headers: { 'content-type': 'application/json' } })
}

const body = (content = 'hello') => JSON.stringify({ model: 'm', messages: [{ role: 'user', content }] })
const post = (fetch: Fetch, content?: string, headers: Record<string, string> = {}) =>
  fetch(url, { method: 'POST', body: body(content), headers })

/** Sends and reads to the end; what goes wrong is no news. */
async function ask(fetch: Fetch, content?: string): Promise<void> {
  await post(fetch, content)
    .then((response) => response.text())
    .catch(() => undefined)
}

/** Every key differs from every other. */
function expectDistinct(keys: readonly (string | null)[], count: number) {
  expect(keys).toHaveLength(count)
  expect(new Set(keys).size).toBe(count)
}

describe('which requests get a key', () => {
  it.each([
    'http://h/openai/v1/chat/completions',
    'http://h/openai/v1/responses?x=1',
    'http://h/openai/v1/embeddings',
    'http://h/anthropic/v1/messages?beta=true',
    '/openai/v1/responses',
  ])('POST %s does', async (address) => {
    const { send, keys } = fakeServer()
    await withIdempotency(send)(address, { method: 'post', body: body() })
    expect(keys[0]).toMatch(/^[\da-f-]{36}$/)
  })

  it.each([
    ['GET', 'http://h/openai/v1/responses'],
    ['POST', 'http://h/openai/v1/responses/resp_1/cancel'],
    ['POST', 'http://h/openai/v1/files'],
    ['POST', 'http://h/openai/v1/batches'],
    ['POST', 'http://h/anthropic/v1/messages/batches'],
    ['POST', 'http://h/anthropic/v1/messages/count_tokens'],
  ])('%s %s does not', async (method, address) => {
    const { send, keys } = fakeServer()
    await withIdempotency(send)(address, method === 'GET' ? {} : { method, body: body() })
    expect(keys).toEqual([null])
  })

  it('keeps the key of the caller, and leaves a derived one to the server', async () => {
    const { send, keys } = fakeServer()
    const store = memoryKeyStore()
    const fetch = withIdempotency(send, { store })
    await post(fetch, 'own', { 'Idempotency-Key': 'mine' })
    await post(fetch, 'derived', { 'Askonce-Key': 'derive' })
    expect(keys).toEqual(['mine', null])
  })

  it('keeps method, headers and body as they are, in every form of a body', async () => {
    const seen: string[] = []
    const send: Fetch = async (input, init) => {
      const request = new Request(input, init)
      seen.push(`${request.method} ${request.headers.get('x-mine')} ${await request.text()}`)
      return new Response('{}', { status: 500 })
    }
    const keys: string[] = []
    const store: KeyStore = { list: () => [], add: (digest) => void keys.push(digest), remove: () => undefined }
    const fetch = withIdempotency(send, { store })
    const bytes = new TextEncoder().encode(body())
    const init = { method: 'POST', headers: { 'x-mine': '1' } }
    const stream = new Blob([bytes]).stream()
    await fetch(url, { ...init, body: body() })
    await fetch(url, { ...init, body: bytes })
    await fetch(url, { ...init, body: bytes.buffer })
    await fetch(url, { ...init, body: new Blob([bytes]) })
    await fetch(url, { ...init, body: stream, duplex: 'half' })
    await fetch(new Request(url, { ...init, body: body() }))
    expect(seen).toEqual(Array.from({ length: 6 }, () => `POST 1 ${body()}`))
    // They are one request, so they have one digest.
    expect(keys).toHaveLength(6)
    expect(new Set(keys).size).toBe(1)
  })
})

describe('the life of a key', () => {
  it('is stored before the request leaves', async () => {
    const steps: string[] = []
    const store: KeyStore = {
      list: () => [],
      async add() {
        await Promise.resolve()
        steps.push('stored')
      },
      remove: () => undefined,
    }
    const send: Fetch = () => {
      steps.push('sent')
      return Promise.resolve(new Response('{}'))
    }
    await post(withIdempotency(send, { store }))
    expect(steps).toEqual(['stored', 'sent'])
  })

  it('nothing is sent when it cannot be stored', async () => {
    const { send, keys } = fakeServer()
    const full = new Error('no space left')
    const store: KeyStore = { list: () => [], add: () => Promise.reject(full), remove: () => undefined }
    await expect(post(withIdempotency(send, { store }))).rejects.toMatchObject({ name: 'KeyStoreError', cause: full })
    await expect(post(withIdempotency(send, { store }))).rejects.toBeInstanceOf(KeyStoreError)
    expect(keys).toEqual([])
  })

  it.each([
    ['a lost connection', broken],
    ['an answer that is cut off', cut],
    ['401', refusal(401, 'unauthorized')],
    ['403', refusal(403, 'forbidden')],
    ['404', refusal(404, 'not_found')],
    ['408', refusal(408, 'x')],
    ['409', refusal(409, 'x')],
    ['425', refusal(425, 'x')],
    ['429', refusal(429, 'rate_limited')],
    ['500', refusal(500, 'internal_error')],
    ['502', refusal(502, 'upstream_failed')],
    ['503', refusal(503, 'unavailable')],
    ['504', refusal(504, 'wait_limit')],
    ['202', answer('{}', { status: 202 })],
    ['a held job', refusal(400, 'job_uncertain')],
    ['a held job, as an older server says it', refusal(422, 'job_uncertain')],
    [
      'a held job, as Anthropic writes errors',
      answer(JSON.stringify({ type: 'error', error: { type: 'invalid_request_error', code: 'job_uncertain' } }), {
        status: 422,
      }),
    ],
    [
      'an error after blanks that kept the connection alive',
      answer('  \n{"retryable":true,"error":{"code":"wait_limit"}}'),
    ],
    ['a failure after blanks', answer(' {"status":502,"retryable":false,"error":{"code":"upstream_failed"}}')],
    ['the same of Anthropic', answer(' {"type":"error","error":{"type":"overloaded_error"}}')],
    ['events without their ending', events('data: {"choices":[]}\n\n')],
    ['events that end with an error', events('event: error\ndata: {"type":"error"}\n\n')],
    ['an ending that is only mentioned', events('data: {"text":"message_stop [DONE] response.completed"}\n\n')],
  ])('%s keeps it, and the answer ends it', async (_name, first) => {
    const { send, keys } = fakeServer(first)
    const fetch = withIdempotency(send)
    await ask(fetch)
    await ask(fetch)
    await ask(fetch)
    expect(keys[1]).toBe(keys[0])
    expect(keys[2]).not.toBe(keys[1])
  })

  it.each([
    ['an answer', answer()],
    ['an answer with nothing in it', answer('', { status: 200 })],
    ['an answer without a body', () => new Response(null, { status: 204 })],
    ['an answer whose error is null', answer('{"object":"response","error":null}')],
    ['400', refusal(400, 'invalid_request')],
    ['413', refusal(413, 'payload_too_large')],
    ['400 of a reused key', refusal(400, 'idempotency_key_reused')],
    ['400 of a cancelled job', refusal(400, 'job_cancelled')],
    ['[DONE]', events('data: {"a":1}\n\ndata: [DONE]\n\n')],
    ['[DONE] without its empty line', events('data: {"a":1}\n\ndata: [DONE]\n')],
    ['[DONE] with a blank behind it', events('data: {"a":1}\n\ndata: [DONE] \n\n')],
    ['[DONE] with CRLF', events('data: {"a":1}\r\n\r\ndata: [DONE]\r\n\r\n')],
    ['message_stop', events('event: message_stop\ndata: {"type":"message_stop"}\n\n')],
    ['response.completed', events('event: response.completed\ndata: {"type":"response.completed"}\n\n')],
    ['response.incomplete, without the name', events('data: {"type":"response.incomplete"}\n\n')],
    ['response.failed', events('event: response.failed\ndata: {}\n\n')],
  ])('%s ends it', async (_name, first) => {
    const { send, keys } = fakeServer(first)
    const fetch = withIdempotency(send)
    await ask(fetch)
    await ask(fetch)
    expectDistinct(keys, 2)
  })

  it('an ending counts although it comes in pieces', async () => {
    const text = 'data: {"a":"é"}\r\n\r\ndata: [DONE]\r\n\r\n'
    const bytes = new TextEncoder().encode(text)
    const pieces = () => {
      const queue = [...bytes]
      const stream = new ReadableStream({
        pull(controller) {
          const next = queue.shift()
          if (next === undefined) controller.close()
          else controller.enqueue(Uint8Array.of(next))
        },
      })
      return new Response(stream, { headers: { 'content-type': 'text/event-stream; charset=utf-8' } })
    }
    const { send, keys } = fakeServer(pieces)
    const fetch = withIdempotency(send)
    const response = await post(fetch)
    expect(await response.text()).toBe(text)
    await ask(fetch)
    expectDistinct(keys, 2)
  })

  it('a body that is cancelled keeps it, even after its last byte was there', async () => {
    const { send, keys } = fakeServer()
    const fetch = withIdempotency(send)
    const reader = (await post(fetch)).body?.getReader()
    await reader?.read()
    await reader?.cancel()
    await ask(fetch)
    expect(keys[1]).toBe(keys[0])
  })

  it('a body that nobody reads keeps it for the next process, but not for another call of this one', async () => {
    const { send, keys } = fakeServer()
    const store = memoryKeyStore()
    const added: string[] = []
    const fetch = withIdempotency(send, { store: recording(store, added) })
    await post(fetch)
    await ask(fetch)
    expectDistinct(keys, 2)
    expect(await store.list(added[0] ?? '')).toEqual([keys[0]])
  })

  it('a key that cannot be removed is not used again by this process', async () => {
    const { send, keys } = fakeServer()
    const stuck = memoryKeyStore()
    const store: KeyStore = {
      list: (digest) => stuck.list(digest),
      add: (digest, key) => stuck.add(digest, key),
      remove: () => Promise.reject(new Error('read-only')),
    }
    const fetch = withIdempotency(send, { store })
    await ask(fetch)
    await ask(fetch)
    expectDistinct(keys, 2)
  })

  it('the response looks as it did', async () => {
    const original = new Response('{"a":1}', { status: 201, statusText: 'Made', headers: { 'x-request-id': 'r1' } })
    Object.defineProperty(original, 'url', { value: url })
    const response = await post(withIdempotency(() => Promise.resolve(original)))
    expect([response.status, response.statusText, response.url]).toEqual([201, 'Made', url])
    expect(response.headers.get('x-request-id')).toBe('r1')
    const copy = response.clone()
    expect([await response.json(), await copy.json()]).toEqual([{ a: 1 }, { a: 1 }])
  })
})

describe('equal requests', () => {
  it('at the same time are calls with keys of their own, and what fails is taken up once', async () => {
    const keys: (string | null)[] = []
    const waiting: (() => void)[] = []
    // Answers, or breaks off, when so many requests are there.
    let together = 3
    let isBroken = true
    const fetch = withIdempotency(async (_input, init) => {
      keys.push(new Headers(init?.headers).get('idempotency-key'))
      const all = new Promise<void>((resolve) => waiting.push(resolve))
      if (waiting.length === together) for (const go of waiting.splice(0)) go()
      await all
      return isBroken ? broken() : answer()()
    })
    await Promise.all([ask(fetch), ask(fetch), ask(fetch)])
    expectDistinct(keys, 3)
    together = 4
    isBroken = false
    await Promise.all([ask(fetch), ask(fetch), ask(fetch), ask(fetch)])
    expect(new Set(keys.slice(3, 6))).toEqual(new Set(keys.slice(0, 3)))
    expectDistinct(keys.slice(3), 4)
  })

  it('never get a key that is being forgotten while they look', async () => {
    const { send, keys } = fakeServer()
    const inner = memoryKeyStore()
    let looked: (() => void) | undefined
    let goOn: (() => void) | undefined
    const store: KeyStore = {
      async list(digest) {
        const found = await inner.list(digest)
        // The second look has seen the key of the first call, and takes its time.
        if (keys.length === 1) {
          await new Promise<void>((resolve) => {
            goOn = resolve
            looked?.()
          })
        }
        return found
      },
      add: (digest, key) => inner.add(digest, key),
      remove: (digest, key) => inner.remove(digest, key),
    }
    const fetch = withIdempotency(send, { store })
    const first = await post(fetch)
    const looking = new Promise<void>((resolve) => {
      looked = resolve
    })
    const second = ask(fetch)
    await looking
    const read = first.text()
    // All that the first call could do meanwhile, it has done.
    for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve))
    goOn?.()
    await Promise.all([read, second])
    expectDistinct(keys, 2)
  })

  it('stay those of a program that is moved behind a proxy with a path of its own', async () => {
    const { send, keys } = fakeServer(broken, broken)
    const store = memoryKeyStore()
    await ask(withIdempotency(send, { store }), 'one')
    const moved = url.replace('/openai/', '/askonce/openai/')
    await withIdempotency(send, { store })(moved, { method: 'POST', body: body('one') }).catch(() => null)
    expect([keys.length, new Set(keys).size]).toEqual([2, 1])
  })

  it('differ by path and body', async () => {
    const { send, keys } = fakeServer(broken, broken, broken)
    const fetch = withIdempotency(send)
    await ask(fetch, 'one')
    await ask(fetch, 'two')
    await fetch(url.replace('chat/completions', 'responses'), { method: 'POST', body: body('one') }).catch(() => null)
    expectDistinct(keys, 3)
  })
})

/** What digests are added to a store. */
function recording(store: KeyStore, added: string[]): KeyStore {
  return {
    list: (digest) => store.list(digest),
    add(digest, key) {
      added.push(digest)
      return store.add(digest, key)
    },
    remove: (digest, key) => store.remove(digest, key),
  }
}

describe('webKeyStore', () => {
  function fakeStorage(): WebStorage & { items: Map<string, string> } {
    const items = new Map<string, string>([['other', 'value']])
    return {
      items,
      get length() {
        return items.size
      },
      key: (index) => [...items.keys()][index] ?? null,
      setItem: (name, value) => void items.set(name, value),
      removeItem: (name) => void items.delete(name),
    }
  }

  it('keeps keys over a reload, and leaves the rest alone', async () => {
    const storage = fakeStorage()
    const before = fakeServer(broken)
    await ask(withIdempotency(before.send, { store: webKeyStore(storage) }))
    const after = fakeServer()
    await ask(withIdempotency(after.send, { store: webKeyStore(storage) }))
    expect(after.keys).toEqual(before.keys)
    expect([...storage.items.keys()]).toEqual(['other'])
  })

  it('sends nothing when the storage is full', async () => {
    const storage = fakeStorage()
    storage.setItem = () => {
      throw new Error('QuotaExceededError')
    }
    const { send, keys } = fakeServer()
    await expect(post(withIdempotency(send, { store: webKeyStore(storage) }))).rejects.toBeInstanceOf(KeyStoreError)
    expect(keys).toEqual([])
  })
})
