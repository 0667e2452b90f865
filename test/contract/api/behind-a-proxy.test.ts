import { once } from 'node:events'
import { connect } from 'node:net'
import Anthropic from '@anthropic-ai/sdk'
import { Askonce } from '@askonce/client'
import { ownPaths } from '@askonce/config'
import { leakCheck } from '@askonce/testkit'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bootstrapKey, callApi, chat, startHarness, startOn, type Harness, type Reply } from './harness.ts'

const publicUrl = 'https://host.example.com/askonce'

let plain: Harness
let named: Pick<Harness, 'api' | 'lines'>

beforeAll(async () => {
  plain = await startHarness()
  // This machine's own address is the proxy's.
  named = await startOn(plain.databaseUrl, {
    env: { ASKONCE_PUBLIC_URL: `${publicUrl}/`, ASKONCE_TRUST_PROXY: 'loopback, 10.0.0.0/8' },
  })
})
afterAll(async () => {
  await named.api.close()
  await plain.stop()
  await leakCheck()
})

const ask = (path: string, headers: Record<string, string> = {}): Promise<Reply> =>
  callApi(named.api.address, 'GET', path, { headers })
const post = (path: string, key: string, headers: Record<string, string> = {}): Promise<Reply> =>
  callApi(named.api.address, 'POST', path, { body: chat(), headers: { 'idempotency-key': key, ...headers } })

/** What a browser would ask for next, by the addresses in a page that it has from `at`. */
function addressesIn(page: string, at: string): string[] {
  return [...page.matchAll(/(?:href|src)="([^"]+)"/g)].map(([, link = '']) => new URL(link, at).href)
}

describe('ASKONCE_PUBLIC_URL', () => {
  it('is how Location begins, on native and SDK routes; without it Location begins at the root', async () => {
    const { headers, json } = await post('/v1/jobs', 'location')
    expect(headers.get('location')).toBe(`${publicUrl}/v1/jobs/${json.id}`)
    const asked = await callApi(named.api.address, 'POST', '/openai/v1/chat/completions', {
      body: chat().request,
      headers: { 'idempotency-key': 'location-sdk', prefer: 'respond-async' },
    })
    expect(asked.headers.get('location')).toBe(`${publicUrl}/v1/jobs/${asked.json.id}`)
    const without = await plain.submit('location', chat())
    expect(without.headers.get('location')).toBe(`/v1/jobs/${json.id}`)
  })

  it('is in the OpenAPI document, that of the page too; without it they say where they are themselves', async () => {
    for (const path of ['/openapi.json', '/docs/json']) {
      expect((await ask(path)).json).toMatchObject({ servers: [{ url: publicUrl }] })
      const { servers } = (await plain.call('GET', path)).json as unknown as { servers: { url: string }[] }
      const resolved = new URL(servers[0]?.url ?? '', `https://other.example.com/llm${path}`).href
      expect(resolved).toBe('https://other.example.com/llm/')
    }
  })

  it('is where the front page and a refusal point', async () => {
    const { text } = await ask('/', { accept: 'text/html' })
    expect(addressesIn(text, 'https://other.example.com/')).toEqual(
      ['/docs', '/readyz', '/metrics'].map((path) => publicUrl + path),
    )
    expect((await ask('/nothing')).json.detail).toContain(`${publicUrl}/docs lists what there is`)
    const found = await plain.call('GET', '/', { headers: { accept: 'text/html' } })
    expect(addressesIn(found.text, 'https://other.example.com/llm/')).toContain('https://other.example.com/llm/docs')
  })

  it.each(['/askonce', '//askonce/', '/askonce?x=1'])(
    '%s is the front page, for a proxy that leaves the path',
    async (path) => {
      expect((await ask(path)).json).toMatchObject({ name: 'askonce' })
    },
  )

  it('takes requests with its path and without it, and none that merely begins alike', async () => {
    for (const path of ['/v1/jobs?limit=1', '/askonce/v1/jobs?limit=1', '/askonce//v1/jobs/?limit=1']) {
      expect([path, (await ask(path)).status]).toEqual([path, 200])
    }
    for (const path of ['/askonces/v1/jobs', '/askonce/askonce/v1/jobs', '/other/askonce/v1/jobs']) {
      expect([path, (await ask(path)).status]).toEqual([path, 404])
    }
    // A path with the prefix is not another kind of path: an SDK's stays one.
    const { json } = await callApi(named.api.address, 'POST', '/askonce/anthropic/v1/messages', { body: '{}' })
    expect(json).toMatchObject({ type: 'error' })
  })

  it('refuses every path that the API has itself', async () => {
    const { paths } = (await ask('/openapi.json')).json as unknown as { paths: object }
    const first = Object.keys(paths).flatMap((path) => path.split('/')[1] ?? '')
    expect(ownPaths.toSorted()).toEqual([...new Set([...first.filter((part) => part !== ''), 'docs'])].toSorted())
  })

  it('is the base of clients: ours and the stock SDKs', async () => {
    const base = `${named.api.address}/askonce`
    const client = new Askonce({ baseUrl: base, apiKey: bootstrapKey })
    expect((await client.submit({ key: 'by-client', ...chat() } as never)).key).toBe('by-client')
    const openai = new OpenAI({ baseURL: `${base}/openai/v1`, apiKey: bootstrapKey, maxRetries: 0 })
    expect((await openai.files.list()).data).toEqual([])
    const anthropic = new Anthropic({ baseURL: `${base}/anthropic`, apiKey: bootstrapKey, maxRetries: 0 })
    expect((await anthropic.messages.batches.list()).data).toEqual([])
  })
})

describe('the page', () => {
  it.each(['/docs', '/docs/', '//docs//'])('at %s finds its parts below whatever path it is shown', async (path) => {
    for (const [server, at] of [
      [plain.api.address, 'https://other.example.com/llm/'],
      [named.api.address, 'https://host.example.com/askonce/'],
    ] as const) {
      const { status, text } = await callApi(server, 'GET', path, { key: null })
      expect(status).toBe(200)
      const parts = addressesIn(text, at + path.replaceAll('//', '/').slice(1))
      expect(parts.length).toBeGreaterThan(5)
      for (const part of parts) {
        expect(part.startsWith(`${at}docs/static/`)).toBe(true)
        const arrives = part.replace(at, '/')
        expect([part, (await callApi(server, 'GET', arrives, { key: null })).status]).toEqual([part, 200])
      }
    }
  })

  it('is where its other name leads', async () => {
    const response = await fetch(`${plain.api.address}/docs/static/index.html`, { redirect: 'manual' })
    expect(response.headers.get('location')).toBe('../')
  })
})

/** The last line of this request in the log. */
async function lineOf({ headers }: Reply, event: string, lines = named.lines): Promise<Record<string, unknown>> {
  const id = headers.get('x-request-id')
  await expect.poll(() => lines.some((line) => line['req_id'] === id && line['event'] === event)).toBe(true)
  return lines.findLast((line) => line['req_id'] === id && line['event'] === event) ?? {}
}

describe('ASKONCE_TRUST_PROXY', () => {
  it.each([
    ['one proxy', '203.0.113.9', '203.0.113.9'],
    ['a client that says it is another, before one proxy', '198.51.100.1, 203.0.113.9', '203.0.113.9'],
    ['two proxies that are trusted', '198.51.100.1, 203.0.113.9, 10.1.2.3', '203.0.113.9'],
    ['a port behind it', '203.0.113.9:4711', '203.0.113.9'],
    ['IPv6 with a port', '[2001:db8::9]:4711', '2001:db8::9'],
    ['no address at all', 'x" secret', '127.0.0.1'],
    ['nothing', '', '127.0.0.1'],
  ])('logs the client: %s', async (_what, forwarded, client) => {
    const reply = await ask('/v1/jobs', { 'x-forwarded-for': forwarded })
    expect(await lineOf(reply, 'request.ended')).toMatchObject({ client })
  })

  it('believes nobody unless told to: a header changes nothing', async () => {
    const forged = {
      'x-forwarded-for': '203.0.113.9',
      'x-forwarded-proto': 'https',
      'x-forwarded-host': 'evil.example',
    }
    const reply = await plain.call('GET', '/v1/jobs', { headers: forged })
    expect(await lineOf(reply, 'request.ended', plain.lines)).toMatchObject({ client: '127.0.0.1' })
  })

  it('names a client whose key is refused, once a minute, with their count', async () => {
    const from = (address: string): Promise<Reply> =>
      callApi(named.api.address, 'GET', '/v1/jobs', { key: 'ak_of_nobody', headers: { 'x-forwarded-for': address } })
    const first = await from('203.0.113.20')
    for (let index = 0; index < 5; index += 1) await from('203.0.113.20')
    await from('203.0.113.21')
    const lines = named.lines.filter((line) => line['event'] === 'api.key_refused')
    expect(lines.map((line) => line['client'])).toEqual(['203.0.113.20', '203.0.113.21'])
    expect(await lineOf(first, 'api.key_refused')).toMatchObject({
      level: 'warn',
      route: 'GET /v1/jobs',
      status: 401,
      error_code: 'unauthorized',
      count: 1,
    })
    expect(JSON.stringify(named.lines)).not.toContain('ak_of_nobody')
  })

  it('names the address of a socket of both families as IPv4', async () => {
    const both = await startOn(plain.databaseUrl, { env: { HOST: '::' } })
    const { port } = new URL(both.api.address)
    const socket = connect(Number(port), '127.0.0.1')
    socket.write('GET /v1/jobs HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n')
    socket.resume()
    await once(socket, 'close')
    await both.api.close()
    const line = both.lines.find(({ event }) => event === 'api.key_refused')
    expect(line).toMatchObject({ client: '127.0.0.1' })
  })
})
