import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { decideMany, decisionsAbout } from './fake-decisions.ts'
import { isOpen, jobText, settle, submitOne, waitFor } from './fake-jobs.ts'
import { keyLedgerText, ledgerText, spendText } from './fake-spend.ts'
import type { Decision, FakeJob, FakeServer, Verb } from './fake-state.ts'

const apiKey = 'fake-key-0123456789'

/** Numbers and escapes that JSON.parse would not give back as they are. */
export const exactAnswer = (key: string): string =>
  `{"id":"a-${key}","seed":12345678901234567890,"cost":1.50,"choices":[{"index":0,"message":{"role":"assistant","content":"caf\\u00e9 for ${key}"}}]}`

export async function startFakeServer(): Promise<FakeServer> {
  let server: Server
  let port = 0
  const byKey = new Map<string, FakeJob>()
  const listen = async (): Promise<void> => {
    server = createServer((request, response) => {
      void handle(fake, byKey, request, response).catch(() => response.destroy())
    })
    await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
    port = (server.address() as AddressInfo).port
  }
  const close = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve())
      server.closeAllConnections()
    })
  const fake: FakeServer = {
    url: '',
    apiKey,
    jobs: new Map(),
    gone: [],
    bulks: [],
    items: [],
    decisions: [],
    erased: [],
    matching: null,
    requests: [],
    bodies: [],
    latencyMs: 20,
    fateOf: () => 'answer',
    answerOf: exactAnswer,
    streams: new Map(),
    unavailable: 0,
    waitingFor: null,
    simulated: true,
    calls: (key) => byKey.get(key)?.paid ?? 0,
    pause: close,
    resume: listen,
    close,
  }
  await listen()
  fake.url = `http://127.0.0.1:${port}`
  return fake
}

async function handle(
  fake: FakeServer,
  byKey: Map<string, FakeJob>,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  const body = Buffer.concat(chunks).toString('utf8')
  const url = new URL(request.url ?? '', 'http://fake')
  const send = (status: number, text: string, headers: Record<string, string> = {}): void => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(text)
  }
  const refuse = (status: number, code: string, detail: string): void =>
    send(status, JSON.stringify({ status, code, detail, retryable: false }), { 'x-should-retry': 'false' })
  fake.requests.push(`${request.method} ${url.pathname}`)

  if (url.pathname === '/readyz') return send(200, JSON.stringify({ status: 'ready', checks: {}, lanes: [] }))
  if (request.headers.authorization !== `Bearer ${apiKey}`)
    return refuse(401, 'unauthorized', 'The API key is unknown.')
  if (fake.unavailable > 0) {
    fake.unavailable -= 1
    const problem = { status: 503, code: 'overloaded', detail: 'Too much is waiting.', retryable: true }
    return send(503, JSON.stringify(problem), { 'retry-after': '1' })
  }

  const submit = (key: string, operation: string, text: string): { status: number; text: string } => {
    const outcome = submitOne(fake, byKey, key, operation, text)
    if (outcome === 'mismatch') {
      const error = {
        code: 'idempotency_key_reused',
        message: 'The key was used for a different request.',
        retryable: false,
        pointers: ['/model'],
      }
      return { status: 422, text: `"error":${JSON.stringify(error)}` }
    }
    if (outcome === 'refused') {
      return {
        status: 400,
        text: '"error":{"code":"invalid_request","message":"No provider is on for this model.","retryable":false}',
      }
    }
    settle(fake, outcome)
    return {
      status: ['queued', 'running', 'uncertain'].includes(outcome.state) ? 202 : 200,
      text: `"job":${jobText(fake, outcome)}`,
    }
  }

  const asked = /^\/v1\/jobs\/bulk\/(retry|fail|cancel|delete)$/.exec(url.pathname)?.[1] as Verb | undefined
  if (asked !== undefined) {
    const decision = JSON.parse(body) as Decision
    fake.decisions.push({ action: asked, ...decision })
    const { data, next } = decideMany(fake, asked, decision)
    const text = data.map((item, index) => `{"index":${index},${item}}`).join(',')
    return send(
      200,
      `{"object":"list","data":[${text}],"has_more":${next !== null},"next_cursor":${JSON.stringify(next)}}`,
    )
  }
  if (url.pathname === '/v1/attempts/erase') {
    fake.erased.push(JSON.parse(body) as object)
    return send(200, '{"object":"erased","erased":2,"has_more":false}')
  }
  if (url.pathname === '/v1/spend') return send(200, spendText(url.search))
  if (url.pathname === '/v1/attempts') {
    const key = url.searchParams.get('key')
    return send(200, keyLedgerText([...fake.gone, ...fake.jobs.values()].filter((one) => one.key === key)))
  }
  if (url.pathname === '/v1/jobs/bulk') {
    const { jobs } = JSON.parse(body) as { jobs: { key: string; operation: string; request: object }[] }
    fake.bulks.push(jobs.map(({ key }) => key))
    fake.items.push(...(jobs as unknown as Record<string, unknown>[]))
    const data = jobs.map(({ key, operation, request: wanted }, index) => {
      const { status, text } = submit(key, operation, JSON.stringify(wanted))
      return `{"index":${index},"status":${status},${text}}`
    })
    return send(200, `{"object":"list","data":[${data.join(',')}],"has_more":false,"next_cursor":null}`)
  }
  if (url.pathname === '/v1/jobs' && request.method === 'POST') {
    fake.bodies.push(body)
    const { operation, request: wanted } = JSON.parse(body) as { operation: string; request: object }
    const wait = Number(/wait=(\d+)/.exec(String(request.headers.prefer))?.[1] ?? 0)
    const key = String(request.headers['idempotency-key'])
    const { status, text } = submit(key, operation, JSON.stringify(wanted))
    if (status >= 400) {
      const { error } = JSON.parse(`{${text}}`) as { error: { code: string; message: string } }
      return refuse(status, error.code, error.message)
    }
    const job = byKey.get(key) as FakeJob
    await waitFor(fake, job, wait)
    return send(isOpen(job) ? 202 : 200, jobText(fake, job))
  }
  if (url.pathname === '/v1/jobs') {
    const [key, state] = [url.searchParams.get('key'), url.searchParams.get('state')]
    const limit = Number(url.searchParams.get('limit') ?? 20)
    const from = Number(url.searchParams.get('cursor') ?? 0)
    const all = [...fake.jobs.values()].toReversed()
    for (const job of all) settle(fake, job)
    const found = all.filter((job) => (key === null || job.key === key) && (state === null || job.state === state))
    const page = found.slice(from, from + limit).map((job) => jobText(fake, job))
    const more = found.length > from + limit
    return send(
      200,
      `{"object":"list","data":[${page.join(',')}],"has_more":${more},"next_cursor":${more ? `"${from + limit}"` : 'null'}}`,
    )
  }
  if (url.pathname === '/v1/lanes') {
    const until = new Date(Date.now() + 600_000).toISOString()
    const model = { model: 'gpt-paused', state: 'paused', reason: 'Rate limit reached', until }
    const lane = { name: 'openai', state: 'stopped', reason: 'The provider refused the credentials', until: null }
    const other = { name: 'simulated', state: 'open', reason: null, until: null, models: [] }
    return send(200, JSON.stringify({ object: 'list', data: [{ ...lane, models: [model] }, other] }))
  }
  if (url.pathname === '/v1/lanes/openai/resume')
    return send(200, '{"name":"openai","state":"open","reason":null,"until":null,"models":[]}')

  const [, id = '', verb = ''] = /^\/v1\/jobs\/([^/]+)\/?(\w*)$/.exec(url.pathname) ?? []
  const job = fake.jobs.get(id)
  if (job === undefined) return refuse(404, 'not_found', 'There is no such job.')
  settle(fake, job)
  if (verb === '') {
    await waitFor(fake, job, Number(url.searchParams.get('wait') ?? 0))
    return send(200, jobText(fake, job))
  }
  if (verb === 'response') {
    const stream = fake.streams.get(job.key)
    if (stream !== undefined) return send(200, stream, { 'content-type': 'text/event-stream' })
    return send(200, fake.answerOf(job.key))
  }
  if (verb === 'attempts') return send(200, ledgerText(job))
  if (verb === 'decisions') return send(200, JSON.stringify({ object: 'list', data: decisionsAbout(fake, id) }))
  return refuse(404, 'not_found', 'There is nothing at this address.')
}
