import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect as connectHttp2 } from 'node:http2'
import { request as httpsRequest } from 'node:https'
import { connect as connectTcp } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import Anthropic from '@anthropic-ai/sdk'
import { spawnNode, startTestHttpProxy, type Child, type TestHttpProxy } from '@askonce/testkit'
import OpenAI from 'openai'
import { Agent, fetch as fetchThrough, FormData } from 'undici'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { apiKey, startSystem, until, type System } from '../fault/system.ts'

// The snippets of deploy/proxies as real processes, each in front of the same two APIs, with the settings that their heads name.

const snippets = { nginx: 'nginx.conf', haproxy: 'haproxy.cfg', caddy: 'Caddyfile' } as const
type Name = keyof typeof snippets
const names = Object.keys(snippets) as Name[]

const publicUrl = 'https://host.example.com/askonce'
/** Not the address of the proxies, which is 127.0.0.1: the log must tell them apart. */
const clientAddress = '127.0.0.2'
const apiEnv = { ASKONCE_PUBLIC_URL: publicUrl, ASKONCE_TRUST_PROXY: '127.0.0.1', LOG_LEVEL: 'debug' }
const askonce = new URL('../../apps/cli/bin/askonce.js', import.meta.url).pathname

interface Api {
  child: Child
  address: string
}

let system: System
let apis: [Api, Api]
let longWaits: Promise<void>

/** A proxy, and the clients' connections to it. */
interface Front {
  proxy: TestHttpProxy
  agent: Agent
}

const fronts: Front[] = []
const byName = new Map<Name, Front>()

const frontOf = (name: Name): Front => byName.get(name) as Front
const proxyOf = (name: Name): TestHttpProxy => frontOf(name).proxy
const portOf = ({ address }: Api): string => new URL(address).port

beforeAll(async () => {
  system = await startSystem('redis')
  apis = await Promise.all([system.api(apiEnv), system.api(apiEnv)])
  await Promise.all([
    system.started('janitor'),
    system.started('worker'),
    ...names.map(async (name) => byName.set(name, await startFront(name, apis))),
  ])
  // All at once: a script takes the place of the one before, and some of this goes on while the others begin.
  await system.upstream.script(
    names.flatMap((name) => [
      { kind: 'answer', match: { marker: `events-${name}` }, chunks: 30, chunkDelayMs: 100 },
      { kind: 'answer', match: { marker: `http2-${name}` }, chunks: 20, chunkDelayMs: 100 },
      { kind: 'hang', match: { marker: `leaver-${name}` } },
      { kind: 'hang', match: { marker: `minute-${name}` } },
      { kind: 'answer', match: { marker: `silent-${name}` }, delayMs: 75_000 },
      { kind: 'answer', match: { marker: `blanks-${name}` }, delayMs: 40_000 },
    ]),
  )
  // With APIs of their own: one of the others is killed.
  const behind = await Promise.all([system.api(apiEnv), system.api(apiEnv)])
  const quiet = await Promise.all(names.map(async (name) => [name, await startFront(name, behind)] as const))
  longWaits = waitLong(quiet, behind)
  // Whoever awaits it is told.
  longWaits.catch(() => undefined)
})
afterAll(async () => {
  for (const { agent } of fronts) await agent.destroy()
  for (const { proxy } of fronts) await proxy.stop()
  await system.stop()
})

async function startFront(name: Name, behind: readonly [Api, Api]): Promise<Front> {
  const snippet = new URL(`../../deploy/proxies/${snippets[name]}`, import.meta.url).pathname
  const ports = [Number(portOf(behind[0])), Number(portOf(behind[1]))] as const
  const proxy = await startTestHttpProxy({ name, snippet, ports })
  const agent = new Agent({ connect: { ca: readFileSync(proxy.certificate) }, localAddress: clientAddress })
  const front = { proxy, agent }
  fronts.push(front)
  await until(
    () => statusOf(front),
    (status) => status === 200,
    20_000,
  )
  return front
}

/** As a client that knows the public address, and reaches it through this proxy. */
function through(at: Name | Front): typeof fetch {
  return ((input: string | URL, init: object = {}) => {
    const { proxy, agent } = typeof at === 'string' ? frontOf(at) : at
    const url = String(input).replace('https://host.example.com', proxy.url)
    return fetchThrough(url, { ...init, dispatcher: agent })
  }) as unknown as typeof fetch
}

/** 0 while nobody listens. */
function statusOf(front: Front): Promise<number> {
  return through(front)(`${publicUrl}/healthz`).then(
    ({ status }) => status,
    () => 0,
  )
}

interface Given {
  key?: string
  body?: unknown
  headers?: Record<string, string>
  signal?: AbortSignal
  redirect?: 'manual'
}

function ask(at: Name | Front, method: string, path: string, { key, body, headers = {}, ...init }: Given = {}) {
  return through(at)(publicUrl + path, {
    ...init,
    method,
    headers: {
      authorization: `Bearer ${apiKey}`,
      ...(key === undefined ? {} : { 'idempotency-key': key }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
}

const chat = (user: string, more: object = {}) => ({
  model: 'gpt-test',
  user,
  messages: [{ role: 'user', content: user }],
  ...more,
})
const job = (user: string) => ({ operation: 'chat.completions', request: chat(user) })

/** The first event comes long before the last, and those between one by one: measured by each other, since a busy machine is late with all. */
function expectSpread(arrivals: readonly number[], lastsMs: number): void {
  expect((arrivals.at(-1) ?? 0) - (arrivals[0] ?? 0)).toBeGreaterThan(lastsMs / 2)
  expect(arrivals.length).toBeGreaterThan(5)
}

/** Of both APIs together, from /metrics. */
async function gauge(metric: string): Promise<number> {
  const pages = await Promise.all(apis.map(async ({ address }) => (await fetch(`${address}/metrics`)).text()))
  return pages.reduce((sum, page) => sum + Number(new RegExp(`^${metric} (\\d+)$`, 'm').exec(page)?.[1] ?? 0), 0)
}

const linesOf = (event: string): Record<string, unknown>[] =>
  apis
    .flatMap(({ child }) => child.stdout)
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .filter((line) => line['event'] === event)

describe.each(names)('%s', (name) => {
  test('the first event of a stream arrives at once, while the others are still to come', async () => {
    const key = `events-${name}`
    const sinceMs = performance.now()
    const response = await ask(name, 'POST', '/openai/v1/chat/completions', { key, body: chat(key, { stream: true }) })
    const arrivals: number[] = []
    let text = ''
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      arrivals.push(performance.now() - sinceMs)
      text += Buffer.from(chunk).toString()
    }
    expect(text).toMatch(/data: \[DONE\]\n\n$/)
    expectSpread(arrivals, 2_900)
  })

  test('HTTP/2 in front: a submission, and the events of a stream as they come', async () => {
    const key = `http2-${name}`
    const { url, certificate } = proxyOf(name)
    const session = connectHttp2(url, { ca: readFileSync(certificate) })
    const stream = session.request({
      ':method': 'POST',
      ':path': '/askonce/openai/v1/chat/completions',
      authorization: `Bearer ${apiKey}`,
      'content-type': 'application/json',
      'idempotency-key': key,
    })
    const sinceMs = performance.now()
    stream.end(JSON.stringify(chat(key, { stream: true })))
    const arrivals: number[] = []
    stream.on('data', () => arrivals.push(performance.now() - sinceMs))
    await once(stream, 'end')
    session.close()
    expect(session.alpnProtocol).toBe('h2')
    expect(stream.rstCode).toBe(0)
    expectSpread(arrivals, 1_900)
  })

  test('the path prefix: Location, the stock SDKs, and the command line with it in ASKONCE_URL', async () => {
    const submitted = await ask(name, 'POST', '/v1/jobs', { key: `prefix-${name}`, body: job('prefix') })
    const location = submitted.headers.get('location') ?? ''
    expect(location).toMatch(/^https:\/\/host\.example\.com\/askonce\/v1\/jobs\//)
    const found = await through(name)(location, { headers: { authorization: `Bearer ${apiKey}` } })
    expect(await found.json()).toMatchObject({ key: `prefix-${name}` })

    const openai = new OpenAI({ baseURL: `${publicUrl}/openai/v1`, apiKey, fetch: through(name), maxRetries: 0 })
    const headers = { 'Idempotency-Key': `sdk-${name}` }
    const completion = await openai.chat.completions.create(chat(`sdk-${name}`) as never, { headers })
    expect(completion.choices).toHaveLength(1)

    const { url, certificate } = proxyOf(name)
    const listed = spawnNode(askonce, {
      args: ['list', '--json'],
      env: { ASKONCE_URL: `${url}/askonce/`, ASKONCE_API_KEY: apiKey, NODE_EXTRA_CA_CERTS: certificate },
    })
    expect((await listed.exited).code).toBe(0)
    expect(listed.stdout.join('\n')).toContain(`prefix-${name}`)
  })

  test('results of a message batch are where results_url says', async () => {
    const anthropic = new Anthropic({ baseURL: `${publicUrl}/anthropic`, apiKey, fetch: through(name), maxRetries: 0 })
    const params = { model: 'claude-test', max_tokens: 9, messages: [{ role: 'user' as const, content: name }] }
    const { id } = await anthropic.messages.batches.create({ requests: [{ custom_id: 'one', params }] })
    const ended = await until(
      () => anthropic.messages.batches.retrieve(id),
      (batch) => batch.processing_status === 'ended',
      30_000,
    )
    expect(ended.results_url).toBe(`${publicUrl}/anthropic/v1/messages/batches/${id}/results`)
    const results = []
    for await (const result of await anthropic.messages.batches.results(id)) results.push(result.custom_id)
    expect(results).toEqual(['one'])
  })

  test('9 MB in a submission that expects to be told to go on, and 24 MB as a file, arrive whole', async () => {
    const text = JSON.stringify({ ...job('x'.repeat(4_500_000)), delay_seconds: 3_600 })
    expect(await sendExpecting(name, '/v1/jobs', text, apiKey)).toMatchObject({ told: true, status: 202 })

    const line = `${JSON.stringify({ custom_id: 'x', method: 'POST', url: '/v1/embeddings', body: { input: 'y'.repeat(1_000_000) } })}\n`
    const content = Buffer.from(line.repeat(24))
    const form = new FormData()
    form.set('purpose', 'batch')
    form.set('file', new File([content], 'large.jsonl'))
    const headers = { authorization: `Bearer ${apiKey}` }
    const sent = await through(name)(`${publicUrl}/openai/v1/files`, { method: 'POST', headers, body: form as never })
    const file = (await sent.json()) as { id: string; bytes: number }
    expect(file.bytes).toBe(content.length)
    const back = await (await ask(name, 'GET', `/openai/v1/files/${file.id}/content`)).arrayBuffer()
    expect(Buffer.from(back).equals(content)).toBe(true)
  })

  test('a large body that is refused reads its refusal', async () => {
    const { status, text } = await sendExpecting(name, '/v1/jobs', 'x'.repeat(20 * 1024 * 1024), 'ak_of_nobody', false)
    expect([status, (JSON.parse(text) as { code: string }).code]).toEqual([401, 'unauthorized'])
    const large = await sendExpecting(name, '/v1/jobs', 'x'.repeat(34 * 1024 * 1024), apiKey, false)
    expect([large.status, (JSON.parse(large.text) as { code: string }).code]).toEqual([413, 'payload_too_large'])
  })

  test('a client that leaves is passed on', async () => {
    const key = `leaver-${name}`
    const leaving = new AbortController()
    const { signal } = leaving
    const asked = ask(name, 'POST', '/v1/jobs', { key, body: job(key), headers: { prefer: 'wait=60' }, signal })
    await until(
      () => gauge('askonce_waiters'),
      (waiters) => waiters === 1,
      10_000,
    )
    leaving.abort()
    await expect(asked).rejects.toThrow(/abort/i)
    await until(
      () => gauge('askonce_waiters'),
      (waiters) => waiters === 0,
      5_000,
    )
    await ask(name, 'POST', `/v1/jobs/${await idOf(key)}/cancel`, { body: {} })
  })

  test('the log has the address of the client, whatever the client says itself', async () => {
    const headers = { 'x-forwarded-for': '203.0.113.9', 'x-request-id': `address-${name}` }
    expect((await ask(name, 'GET', '/v1/jobs?limit=1', { headers })).status).toBe(200)
    const line = await until(
      () => Promise.resolve(linesOf('request.ended').find((one) => one['req_id'] === `address-${name}`)),
      (found) => found !== undefined,
      5_000,
    )
    expect(line).toMatchObject({ client: clientAddress })
  })

  test('headers of 12 KiB pass', async () => {
    const headers = { 'x-long': 'x'.repeat(12 * 1024) }
    expect((await ask(name, 'GET', '/v1/jobs?limit=1', { headers })).status).toBe(200)
  })

  test('the page finds its parts, with and without a slash, and what is for monitoring stays inside', async () => {
    for (const page of ['/docs', '/docs/']) {
      const text = await (await ask(name, 'GET', page)).text()
      const parts = [...text.matchAll(/(?:href|src)="([^"]+)"/g)].map(
        ([, link = '']) => new URL(link, publicUrl + page),
      )
      expect(parts.length).toBeGreaterThan(5)
      for (const { href } of parts) expect([href, (await through(name)(href)).status]).toEqual([href, 200])
    }
    for (const path of ['', '/']) {
      // Either it or the way to it.
      const { status, headers } = await ask(name, 'GET', path, { redirect: 'manual' })
      expect([status, headers.get('location') ?? 'here']).toEqual([
        expect.toSatisfy((code: number) => code < 400),
        expect.stringMatching(/\/askonce\/$|^here$/),
      ])
    }
    for (const path of [
      '/metrics',
      '/readyz',
      '//metrics',
      '/metrics/',
      '/%6Detrics',
      '//readyz//',
      '/./metrics',
      '/x/../metrics',
    ]) {
      // Not through fetch, which would tidy the path.
      expect([path, await rawStatus(name, `/askonce${path}`)]).toEqual([path, 404])
    }
  })
})

test('one of two APIs killed under load loses nothing, whichever proxy is in front', async () => {
  const marked = (name: Name): string[] => Array.from({ length: 300 }, (_item, index) => `killed-${name}-${index}`)
  const answered = { nginx: 0, haproxy: 0, caddy: 0 }
  const submitUntilAccepted = async (name: Name, key: string): Promise<void> => {
    // As every client of ours does: the same request with the same key again, whatever became of it.
    const status = await until(
      () =>
        ask(name, 'POST', '/v1/jobs', { key, body: job(key) }).then(
          (reply) => reply.status,
          () => 0,
        ),
      (seen) => seen === 200 || seen === 202,
      20_000,
    )
    expect([name, status < 300]).toEqual([name, true])
    answered[name] += 1
  }
  const producers = names.flatMap((name) =>
    Array.from({ length: 20 }, async (_producer, index) => {
      for (const key of marked(name).filter((_key, at) => at % 20 === index)) await submitUntilAccepted(name, key)
    }),
  )
  await until(
    () => Promise.resolve(answered),
    (counts) => names.every((name) => counts[name] > 60),
    20_000,
  )
  expect(names.filter((name) => answered[name] === 300)).toEqual([])
  await apis[0].child.kill()
  await Promise.all(producers)
  const rows = await system.sql<{ jobs: number; keys: number }>(
    `select count(*)::int as jobs, count(distinct idempotency_key)::int as keys from jobs where idempotency_key like 'killed-%'`,
  )
  expect(rows[0]).toEqual({ jobs: 900, keys: 900 })
  await until(
    () => system.sql(`select 1 from jobs where idempotency_key like 'killed-%' and state = 'succeeded'`),
    (done) => done.length === 900,
    60_000,
  )
  const calls = await system.upstream.callsBy()
  expect(names.flatMap(marked).filter((key) => calls[key] !== 1)).toEqual([])
})

// They began with the first test, and are over at about the same time as the others.
test(
  'a wait of 60 s is answered, connections are used again after any silence, and an unused one is not closed before others',
  { timeout: 120_000 },
  async () => expect(await longWaits).toBeUndefined(),
)

/** What takes more than a minute, behind proxies that nobody else uses. */
async function waitLong(quiet: readonly (readonly [Name, Front])[], behind: readonly [Api, Api]): Promise<void> {
  await Promise.all([
    unused(),
    tooSlow(),
    ...quiet.flatMap(([name, front]) => [
      longWait(front, name),
      longCall(front, name),
      blanks(front, name),
      ...[3, 12, 31, 50, 58, 61, 66, 72, 76, 81].map((seconds) => afterSilence(front, seconds)),
    ]),
  ])

  /** It is a connection as good as one that has been used. */
  async function unused(): Promise<void> {
    const words = 'GET /healthz HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n'
    expect(await afterNothing(behind[0].address, 70, words)).toMatch(/^HTTP\/1\.1 200 /)
  }
  /** From its first byte on, the usual time for headers counts. */
  async function tooSlow(): Promise<void> {
    expect(await afterNothing(behind[1].address, 40, 'GET /healthz HTTP/1.1\r\n')).toMatch(/^HTTP\/1\.1 400 /)
  }
  async function longWait(front: Front, name: Name): Promise<void> {
    const key = `minute-${name}`
    const sinceMs = performance.now()
    const response = await ask(front, 'POST', '/v1/jobs', { key, body: job(key), headers: { prefer: 'wait=60' } })
    expect([name, response.status]).toEqual([name, 202])
    expect(performance.now() - sinceMs).toBeGreaterThan(59_000)
    expect(await response.json()).toMatchObject({ key, state: 'running' })
  }
  /** An SDK's request waits in silence for longer than a minute. */
  async function longCall(front: Front, name: Name): Promise<void> {
    const key = `silent-${name}`
    const response = await ask(front, 'POST', '/openai/v1/chat/completions', { key, body: chat(key) })
    expect([name, response.status]).toEqual([name, 200])
    expect(await response.json()).toHaveProperty('choices')
  }
  /** What keeps a load balancer in front of the proxy from cutting it. */
  async function blanks(front: Front, name: Name): Promise<void> {
    const key = `blanks-${name}`
    const sinceMs = performance.now()
    const headers = { 'askonce-keep-alive': 'true' }
    const response = await ask(front, 'POST', '/openai/v1/chat/completions', { key, body: chat(key), headers })
    let text = ''
    const blankAfterMs: number[] = []
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      const piece = Buffer.from(chunk).toString()
      if (piece.trim() === '') blankAfterMs.push(performance.now() - sinceMs)
      text += piece
    }
    expect(JSON.parse(text)).toHaveProperty('choices')
    // Long before the end of a call of 40 s: measured by it, since a busy machine is late with both.
    expect([name, blankAfterMs.length >= 2]).toEqual([name, true])
    expect(performance.now() - sinceMs - (blankAfterMs[0] ?? Infinity)).toBeGreaterThan(10_000)
  }
  async function afterSilence(front: Front, seconds: number): Promise<void> {
    const { name } = front.proxy
    // Several at once, so that connections to both APIs are in store.
    const posts = (): Promise<boolean[]> =>
      Promise.all(
        Array.from({ length: 4 }, async (_post, index) => {
          const key = `silence-${name}-${seconds}-${index}`
          return (await ask(front, 'POST', '/v1/jobs', { key, body: job('silence') })).status < 300
        }),
      )
    const first = await posts()
    await sleep(seconds * 1_000)
    const all = [true, true, true, true]
    expect([name, seconds, first, await posts()]).toEqual([name, seconds, all, all])
  }
}

async function idOf(key: string): Promise<string> {
  const [row] = await system.sql<{ id: string }>('select id from jobs where idempotency_key = $1', [key])
  return row?.id ?? ''
}

interface Heard {
  told: boolean
  status: number
  text: string
}

/** Sends a body after `100 Continue`, or at once although it has declared to wait for nothing. */
function sendExpecting(name: Name, path: string, body: string, key: string, expecting = true): Promise<Heard> {
  const { url, certificate } = proxyOf(name)
  return new Promise((resolve, reject) => {
    let told = false
    const request = httpsRequest(`${url}/askonce${path}`, {
      method: 'POST',
      ca: readFileSync(certificate),
      headers: {
        authorization: `Bearer ${key}`,
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(body),
        'idempotency-key': `expecting-${name}`,
        ...(expecting ? { expect: '100-continue' } : {}),
      },
    })
    // Caddy says it itself, and passes on what the API says.
    request.once('continue', () => {
      told = true
      request.end(body)
    })
    request.on('response', (response) => {
      let text = ''
      response.on('data', (chunk: Buffer) => (text += chunk.toString()))
      response.on('end', () => resolve({ told, status: response.statusCode ?? 0, text }))
    })
    request.on('error', reject)
    // The rest of a body that is refused meets a closed connection, perhaps after the answer.
    request.on('socket', (socket) => socket.on('error', () => undefined))
    if (expecting) request.flushHeaders()
    else request.end(body)
  })
}

function rawStatus(name: Name, path: string): Promise<number> {
  const { port, certificate } = proxyOf(name)
  return new Promise((resolve, reject) => {
    httpsRequest({ host: '127.0.0.1', port, path, ca: readFileSync(certificate) }, (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
      .on('error', reject)
      .end()
  })
}

/** What comes back on a connection that says nothing for so long, as proxies keep them in store, and then these words. */
async function afterNothing(address: string, seconds: number, words: string): Promise<string> {
  const socket = connectTcp(Number(new URL(address).port), '127.0.0.1')
  let text = ''
  // What came back says it.
  socket.on('error', () => undefined)
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()))
  await sleep(seconds * 1_000)
  expect([text, socket.destroyed]).toEqual(['', false])
  socket.write(words)
  await Promise.race([once(socket, 'close'), sleep(30_000)])
  socket.destroy()
  return text
}
