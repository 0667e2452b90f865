import { connect, type Socket } from 'node:net'
import { gzipSync } from 'node:zlib'
import { errorRegistry } from '@askonce/core'
import { leakCheck } from '@askonce/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bootstrapKey, chat, startHarness, type Harness, type Reply } from './harness.ts'

// FAULTS 11 below HTTP: bytes that are late, missing, too many or no HTTP at all. Whatever comes in, what goes out is an answer in our shape
// or the end of the connection, and the server goes on. What these do not cover: the 120 s for a body that never ends (only that nobody else
// waits for it; test/unit/api-arrivals.test.ts has them), and a flood of connections beyond the limit of 10,000.
let harness: Harness
let slow: { kind: 'headers' | 'body'; heard: Promise<Heard> }[]

beforeAll(async () => {
  harness = await startHarness()
  slow = await Promise.all(
    Array.from({ length: 300 }, (_, index) => dribble(index % 2 === 0 ? 'headers' : 'body', index)),
  )
})
afterAll(async () => {
  await harness.stop()
  await leakCheck()
})

interface Heard {
  text: string
  /** Everything that it said as answers: their status and body. */
  answers: { status: number; body: string }[]
}

function open(): Promise<Socket> {
  const { hostname, port } = new URL(harness.api.address)
  return new Promise((resolve, reject) => {
    const socket: Socket = connect({ port: Number(port), host: hostname, allowHalfOpen: true }, () => resolve(socket))
    socket.once('error', reject)
  })
}

/** Listens until the server ends the connection. Rejects when it does not within the time. */
function hear(socket: Socket, withinMs = 10_000): Promise<Heard> {
  return new Promise((resolve, reject) => {
    let text = ''
    const timer = setTimeout(() => {
      socket.destroy()
      reject(new Error(`the connection hangs after: ${text}`))
    }, withinMs)
    socket.on('data', (data) => {
      text += data.toString('latin1')
    })
    socket.on('error', () => socket.destroy())
    socket.on('end', () => socket.end())
    socket.on('close', () => {
      clearTimeout(timer)
      resolve({ text, answers: parseAnswers(text) })
    })
  })
}

function parseAnswers(text: string): Heard['answers'] {
  return text
    .split(/(?=HTTP\/1\.1 \d{3} )/)
    .filter((part) => part !== '')
    .map((part) => ({ status: Number(part.slice(9, 12)), body: part.slice(part.indexOf('\r\n\r\n') + 4) }))
}

async function say(bytes: string | Buffer, { end = false } = {}): Promise<Heard> {
  const socket = await open()
  const heard = hear(socket)
  socket.write(bytes)
  if (end) socket.end()
  return heard
}

const body = JSON.stringify(chat())
const head = (key: string, ...more: string[]): string =>
  [
    'POST /v1/jobs HTTP/1.1',
    'Host: x',
    `Authorization: Bearer ${bootstrapKey}`,
    `Idempotency-Key: ${key}`,
    'Content-Type: application/json',
    'Connection: close',
    ...more,
    '',
    '',
  ].join('\r\n')
const chunked = (key: string, chunks: string): string => head(key, 'Transfer-Encoding: chunked') + chunks
const chunk = (text: string): string => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`

/** A request of which a byte comes every 100 ms: headers that never end, or a body that needs about 15 s. */
async function dribble(kind: 'headers' | 'body', index: number): Promise<(typeof slow)[number]> {
  const socket = await open()
  // The server gives headers 20 s, and looks every 5 s.
  const heard = hear(socket, 35_000)
  const text = head(`slow-${kind}-${index}`, `Content-Length: ${body.length}`)
  socket.write(kind === 'headers' ? text.slice(0, -2) : text)
  const rest = kind === 'headers' ? `X-Slow: ${'x'.repeat(1_000)}` : body
  let sent = 0
  const drip = setInterval(() => {
    if (socket.writable && sent < rest.length) socket.write(rest[sent] ?? '')
    sent += 1
  }, 100)
  socket.once('close', () => clearInterval(drip))
  return { kind, heard }
}

/** No 5xx, and an error only as the registry has it. */
function expectSane({ answers, text }: Heard): void {
  for (const { status, body: said } of answers.filter((answer) => answer.status >= 400)) {
    const { code } = JSON.parse(said) as { code: keyof typeof errorRegistry }
    expect([status, text]).toEqual([errorRegistry[code].status, expect.stringContaining('application/problem+json')])
    expect(status).toBeLessThan(500)
  }
}

const rowsLike = (like: string): Promise<unknown[]> =>
  harness.sql('select idempotency_key from jobs where idempotency_key like $1', [like])

describe('bytes that are no good request', () => {
  it.each<[string, string]>([
    ['a chunk size that is none', chunked('bad-1', `zz\r\n${body}\r\n0\r\n\r\n`)],
    ['a negative chunk size', chunked('bad-2', `-5\r\n${body}\r\n0\r\n\r\n`)],
    ['a chunk size beyond 2^64', chunked('bad-3', `${'f'.repeat(17)}\r\n${body}\r\n0\r\n\r\n`)],
    ['a chunk that is longer than it says', chunked('bad-4', `5\r\n${body}\r\n0\r\n\r\n`)],
    ['an endless chunk extension', chunked('bad-5', `5;${'x'.repeat(70_000)}\r\n`)],
    ['a length that is none', `${head('bad-6', 'Content-Length: five')}${body}`],
    ['a negative length', `${head('bad-7', 'Content-Length: -5')}${body}`],
    ['two lengths', `${head('bad-8', 'Content-Length: 5', 'Content-Length: 6')}${body}`],
    [
      'a length and chunks',
      `${head('bad-9', 'Content-Length: 5', 'Transfer-Encoding: chunked')}${chunk(body)}0\r\n\r\n`,
    ],
    ['chunks that are not the last encoding', `${head('bad-11', 'Transfer-Encoding: chunked, gzip')}${body}`],
    ['a header of 20 KB', head('bad-12', `X-Long: ${'x'.repeat(20_000)}`)],
    ['5,000 headers', head('bad-13', ...Array.from({ length: 5_000 }, (_, index) => `X-${index}: x`))],
    ['a URL of 20 KB', `GET /v1/jobs?key=${'x'.repeat(20_000)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`],
    ['NUL in a header', head('bad-14', 'X-Nul: a\u0000b')],
    ['a header without a name', head('bad-15', ': x')],
    ['a header without a colon', head('bad-16', 'nonsense')],
    ['a folded header', head('bad-17', 'X-Folded: a', ' b')],
    ['no Host', 'GET /v1/jobs HTTP/1.1\r\nConnection: close\r\n\r\n'],
    ['HTTP/3.7', 'GET /healthz HTTP/3.7\r\nHost: x\r\n\r\n'],
    ['an unknown method', 'FETCH /v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['a TLS greeting', '\u0016\u0003\u0001\u0002\u0000\u0001\u0000'],
    ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
  ])('%s: refused in our shape, and the connection ends', async (_what, bytes) => {
    const heard = await say(bytes)
    expectSane(heard)
    expect(heard.answers.map(({ status }) => status >= 400)).toEqual([true])
  })

  it.each<[string, string]>([
    ['CONNECT', 'CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['a method that the server has no route for', 'PROPFIND /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'],
    ['OPTIONS *', 'OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'],
    ['the address of another server', 'GET http://elsewhere/v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'],
    ['an upgrade', 'GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n'],
    ['HTTP/0.9', 'GET /healthz\r\n'],
    ['chunks inside gzip', `${head('odd', 'Transfer-Encoding: gzip, chunked')}${chunk(body)}0\r\n\r\n`],
    ['an expectation that nobody has', `${head('odd', 'Expect: a-miracle', `Content-Length: ${body.length}`)}${body}`],
    ['TRACE', 'TRACE /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'],
  ])('%s: answered or ended, never a fault', async (_what, bytes) => {
    expectSane(await say(bytes, { end: true }))
  })

  it('left no row', async () => {
    expect(await rowsLike('bad-%')).toEqual([])
  })
})

describe('clients that stop', () => {
  it.each<[string, string]>([
    ['in the request line', 'POST /v1/jo'],
    ['in the headers', head('half-1').slice(0, -10)],
    ['before the body', head('half-2', `Content-Length: ${body.length}`)],
    ['in the body', `${head('half-3', `Content-Length: ${body.length}`)}${body.slice(0, -1)}`],
    ['in a chunk', chunked('half-4', chunk(body).slice(0, 30))],
    ['before the last chunk', chunked('half-5', chunk(body))],
  ])('%s, half-closed: the connection ends and nothing is accepted', async (_what, bytes) => {
    const heard = await say(bytes, { end: true })
    expectSane(heard)
    expect(heard.answers.filter(({ status }) => status < 300)).toEqual([])
    expect(await rowsLike('half-%')).toEqual([])
  })

  it('a whole request whose sender has closed its side is accepted once', async () => {
    const heard = await say(`${head('closed', `Content-Length: ${body.length}`)}${body}`, { end: true })
    expectSane(heard)
    expect(await rowsLike('closed')).toHaveLength(1)
    expect((await harness.submit('closed', chat())).headers.get('idempotent-replayed')).toBe('true')
  })

  it('thirty that vanish at a random byte of the body leave whole rows or none', async () => {
    const bytes = `${head('vanish', `Content-Length: ${body.length}`)}${body}`
    for (let cut = 0; cut < 30; cut += 1) {
      const socket = await open()
      socket.on('error', () => undefined)
      socket.write(bytes.slice(0, bytes.length - cut))
      socket.resetAndDestroy()
    }
    expect((await harness.call('GET', '/healthz')).status).toBe(200)
    const rows = await harness.sql(
      `select convert_from(request, 'UTF8') as text from jobs join requests on job_id = id where idempotency_key = 'vanish'`,
    )
    expect(rows.map(({ text }) => JSON.parse(text as string) as unknown)).toEqual(rows.map(() => chat().request))
  })
})

describe('requests in unusual pieces', () => {
  it('in chunks of one byte: one job, with the bytes of the whole', async () => {
    const heard = await say(chunked('bytewise', `${body.replaceAll(/./g, chunk)}0\r\n\r\n`))
    expect(heard.answers[0]?.status).toBe(202)
    const [row] = await harness.sql(
      `select convert_from(request, 'UTF8') as text from jobs join requests on job_id = id where idempotency_key = 'bytewise'`,
    )
    expect(row?.['text']).toBe(JSON.stringify(chat().request))
  })

  it('three in one packet: three answers, in order', async () => {
    const one = (key: string, last: boolean): string => {
      const text = `${head(key, `Content-Length: ${body.length}`)}${body}`
      return last ? text : text.replace('Connection: close\r\n', '')
    }
    const heard = await say(one('row-1', false) + one('row-2', false) + one('row-3', true))
    expect(heard.answers.map(({ status, body: said }) => [status, (JSON.parse(said) as { key: string }).key])).toEqual([
      [202, 'row-1'],
      [202, 'row-2'],
      [202, 'row-3'],
    ])
  })

  it('Expect: 100-continue is told to continue, unless it is refused before', async () => {
    const socket = await open()
    const heard = hear(socket)
    socket.write(head('continued', 'Expect: 100-continue', `Content-Length: ${body.length}`))
    await new Promise<void>((resolve) => socket.once('data', () => resolve()))
    socket.write(body)
    expect((await heard).answers.map(({ status }) => status)).toEqual([100, 202])
  })

  it('a compressed body is refused whether or not it says so', async () => {
    const bytes = gzipSync(body)
    const said = Buffer.concat([
      Buffer.from(head('zip', 'Content-Encoding: gzip', `Content-Length: ${bytes.length}`)),
      bytes,
    ])
    const silent = Buffer.concat([Buffer.from(head('zip', `Content-Length: ${bytes.length}`)), bytes])
    for (const [packet, status] of [
      [said, 415],
      [silent, 400],
    ] as const) {
      const heard = await say(packet)
      expectSane(heard)
      expect(heard.answers[0]?.status).toBe(status)
    }
    expect(await rowsLike('zip')).toEqual([])
  })

  it('10 MB are accepted whole, more than a request may have is refused', async () => {
    const limit = harness.config.limits.maxRequestBytes
    const sized = (bytes: number): string => {
      const text = JSON.stringify(chat('').request)
      return JSON.stringify(chat('x'.repeat(bytes - text.length)))
    }
    const send = (key: string, text: string): Promise<Reply> =>
      harness.call('POST', '/v1/jobs', { body: text, headers: { 'idempotency-key': key } })
    const taken = await send('ten', sized(limit))
    expect(taken.status).toBe(202)
    const [row] = await harness.sql(
      `select length(request) as bytes from jobs join requests on job_id = id where idempotency_key = 'ten'`,
    )
    expect(row?.['bytes']).toBe(limit)
    const refused = await send('eleven', sized(limit + 1))
    expect([refused.status, refused.json.code]).toEqual([413, 'payload_too_large'])
    const huge = await say(head('huge', `Content-Length: ${10 ** 12}`))
    expectSane(huge)
    expect(huge.answers[0]?.status).toBe(413)
    expect([await rowsLike('eleven'), await rowsLike('huge')]).toEqual([[], []])
  })
})

describe('slow clients', () => {
  it('300 that dribble held up none of the above; slow headers are ended after 20 s, a slow body is answered when it is whole', async () => {
    const times: number[] = []
    for (let index = 0; index < 100; index += 1) {
      const askedAt = performance.now()
      expect((await harness.submit(`quick-${index}`, chat())).status).toBe(202)
      times.push(performance.now() - askedAt)
    }
    expect(times.toSorted((a, b) => a - b)[50]).toBeLessThan(500)
    expect(slow).toHaveLength(300)
    for (const { kind, heard } of slow) {
      const said = await heard
      expectSane(said)
      expect([kind, said.answers.map(({ status }) => status)]).toEqual([kind, [kind === 'headers' ? 400 : 202]])
    }
    expect(await rowsLike('slow-headers%')).toEqual([])
    expect(await rowsLike('slow-body%')).toHaveLength(150)
  })
})
