import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** How the fake provider treats a key. */
export type Fate = 'answer' | 'fail' | 'uncertain' | 'refuse' | 'hang'

export interface FakeJob {
  id: string
  key: string
  operation: string
  model: string
  request: string
  state: string
  settlesAt: number
  fate: Fate
  replayed: boolean
  /** Attempts; each one was paid. */
  paid: number
}

/** A stand-in for the API: enough of it, in memory, and it counts. */
export interface FakeServer {
  url: string
  apiKey: string
  jobs: Map<string, FakeJob>
  /** Keys of each bulk submission. */
  bulks: string[][]
  /** Method and path of each request. */
  requests: string[]
  /** Bodies of the decisions, and what each was. */
  decisions: ({ action: Verb } & Decision)[]
  /** Ids that a decision by filter goes through, until it is through. */
  matching: string[] | null
  /** Bodies of the single submissions. */
  bodies: string[]
  /** How long a job takes from its submission. */
  latencyMs: number
  fateOf: (key: string) => Fate
  /** Text of an answer. */
  answerOf: (key: string) => string
  /** Streams of keys, as they are stored. */
  streams: Map<string, string>
  /** Answered 503 before anything else, so many times. */
  unavailable: number
  /** Reason that unfinished jobs show. */
  waitingFor: { lane: string; reason: string; until: null } | null
  simulated: boolean
  /** Runs of a key: what a provider would have charged for. */
  calls(key: string): number
  /** Closes the port and cuts every connection; the jobs stay. */
  pause(): Promise<void>
  resume(): Promise<void>
  close(): Promise<void>
}

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
    bulks: [],
    decisions: [],
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

  const asked = /^\/v1\/jobs\/bulk\/(retry|fail|cancel)$/.exec(url.pathname)?.[1] as Verb | undefined
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
  if (url.pathname === '/v1/spend') return send(200, spendText(url.search))
  if (url.pathname === '/v1/jobs/bulk') {
    const { jobs } = JSON.parse(body) as { jobs: { key: string; operation: string; request: object }[] }
    fake.bulks.push(jobs.map(({ key }) => key))
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
    const lane = { name: 'openai', state: 'stopped', reason: 'The provider refused the credentials', until: null }
    return send(
      200,
      JSON.stringify({ object: 'list', data: [lane, { name: 'simulated', state: 'open', reason: null, until: null }] }),
    )
  }
  if (url.pathname === '/v1/lanes/openai/resume')
    return send(200, '{"name":"openai","state":"open","reason":null,"until":null}')

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

type Verb = 'retry' | 'fail' | 'cancel'

interface Decision {
  ids?: string[]
  filter?: { state?: string; created_before?: string; metadata?: object }
  cursor?: string
  reason?: string
  accept_duplicate_charge?: boolean
}

/** By filter two at a time, so that a client has to come back. */
function decideMany(fake: FakeServer, verb: Verb, decision: Decision): { data: string[]; next: string | null } {
  const { ids, filter, cursor = '0', accept_duplicate_charge: consent = false } = decision
  const outcomeOf = (id: string): string => `"id":${JSON.stringify(id)},${decide(fake, verb, id, consent)}`
  if (ids !== undefined) return { data: ids.map(outcomeOf), next: null }
  fake.matching ??= [...fake.jobs.values()]
    .filter((job) => {
      settle(fake, job)
      return filter?.state === undefined || job.state === filter.state
    })
    .map(({ id }) => id)
  const [from, all] = [Number(cursor), fake.matching]
  const more = all.length > from + 2
  if (!more) fake.matching = null
  return { data: all.slice(from, from + 2).map(outcomeOf), next: more ? String(from + 2) : null }
}

function decide(fake: FakeServer, verb: Verb, id: string, consent: boolean): string {
  const refused = (status: number, code: string, message: string): string =>
    `"status":${status},"error":${JSON.stringify({ code, message, retryable: false })}`
  const job = fake.jobs.get(id)
  if (job === undefined) return refused(404, 'not_found', 'There is no such job.')
  settle(fake, job)
  if (verb === 'retry' && !consent) return refused(400, 'consent_required', 'It may be charged twice.')
  if (verb !== 'retry' && !isOpen(job)) return refused(409, 'state_conflict', `The job is ${job.state}.`)
  job.state = { cancel: 'cancelled', retry: 'queued', fail: 'failed' }[verb]
  return `"status":200,"job":${jobText(fake, job)}`
}

function decisionsAbout(fake: FakeServer, id: string): object[] {
  const about = fake.decisions.filter(({ ids = [] }) => ids.includes(id))
  return about.map(({ action, reason, accept_duplicate_charge: consent }, index) => ({
    id: index,
    at: '2026-03-01T10:20:30.456Z',
    action,
    accept_duplicate_charge: consent ?? false,
    reason: reason ?? null,
    by: { key_id: 'k', key_name: 'night shift' },
    from_state: 'uncertain',
    to_state: 'queued',
    attempts: 1,
    generation: 1,
    paid_attempts: 1,
  }))
}

const noSpend = {
  calls: 0,
  billed: 0,
  maybe: 0,
  none: 0,
  open: 0,
  unpriced: 0,
  input_tokens: 0,
  output_tokens: 0,
  duplicates: 0,
  possible_duplicates: 0,
  cost_usd: 0,
  duplicate_cost_usd: 0,
  possible_duplicate_cost_usd: 0,
}

/** One day, with an amount that has more digits than a double. */
function spendText(query: string): string {
  const day = {
    date: '2026-03-01',
    ...noSpend,
    calls: 4,
    billed: 3,
    maybe: 1,
    unpriced: 1,
    duplicates: 1,
    cost_usd: 1.5,
  }
  const rows = query.includes('group_by=model') ? [{ ...day, provider: 'openai', model: 'gpt-test' }] : [day]
  const data = query.includes('from=2020') ? [] : rows
  const summary = { ...day, from: '2026-02-01', to: '2026-03-02', duplicate_cost_usd: 0.25, possible_duplicates: 2 }
  const text = JSON.stringify({ object: 'list', data, has_more: false, next_cursor: null, summary })
  return text.replaceAll('"cost_usd":1.5', '"cost_usd":1.50000000000000000001')
}

function submitOne(
  fake: FakeServer,
  byKey: Map<string, FakeJob>,
  key: string,
  operation: string,
  request: string,
): FakeJob | 'mismatch' | 'refused' {
  const known = byKey.get(key)
  if (known !== undefined) {
    settle(fake, known)
    if (known.request !== request) return 'mismatch'
    known.replayed = known.state !== 'failed'
    if (known.state === 'failed') start(fake, known)
    return known
  }
  if (fake.fateOf(key) === 'refuse') return 'refused'
  // By key, so that a file compares equal whatever the order of submission was.
  const id = `0199c0de-0000-7000-8000-${createHash('sha256').update(key).digest('hex').slice(0, 12)}`
  const model = (JSON.parse(request) as { model: string }).model
  const fate = fake.fateOf(key)
  const job: FakeJob = {
    id,
    key,
    operation,
    model,
    request,
    state: 'queued',
    settlesAt: 0,
    fate,
    replayed: false,
    paid: 0,
  }
  start(fake, job)
  byKey.set(key, job)
  fake.jobs.set(id, job)
  return job
}

function start(fake: FakeServer, job: FakeJob): void {
  job.fate = fake.fateOf(job.key)
  job.state = 'running'
  job.paid += 1
  job.settlesAt = Date.now() + (job.fate === 'hang' ? 1e9 : fake.latencyMs)
}

function settle(fake: FakeServer, job: FakeJob): void {
  if (job.state === 'running' && fake.fateOf(job.key) === 'answer' && job.fate === 'hang') start(fake, job)
  if (job.state !== 'running' || Date.now() < job.settlesAt) return
  job.state = { answer: 'succeeded', fail: 'failed', uncertain: 'uncertain', refuse: 'failed', hang: 'running' }[
    job.fate
  ]
}

async function waitFor(fake: FakeServer, job: FakeJob, seconds: number): Promise<void> {
  const until = Date.now() + seconds * 1000
  for (settle(fake, job); job.state === 'running' && Date.now() < until; settle(fake, job)) await sleep(5)
}

function isOpen({ state }: FakeJob): boolean {
  return ['queued', 'running', 'uncertain'].includes(state)
}

function jobText(fake: FakeServer, job: FakeJob): string {
  const { id, key, operation, model, state, replayed, paid } = job
  const error =
    state === 'failed' || state === 'uncertain'
      ? {
          code: state === 'failed' ? 'provider_rejected' : 'timeout',
          message: 'No.',
          retryable: false,
          provider_status: 400,
        }
      : null
  const now = new Date().toISOString()
  const text = JSON.stringify({
    id,
    object: 'job',
    key,
    operation,
    model,
    state,
    generation: 1,
    attempts: paid,
    replayed,
    error,
    flags: fake.simulated && state === 'succeeded' ? ['simulated'] : [],
    waiting_for: state === 'running' ? fake.waitingFor : null,
    usage: {
      input_tokens: 10,
      output_tokens: 5,
      cost_usd: fake.simulated ? null : 0.25,
      paid_attempts: paid,
      maybe_paid_attempts: 0,
    },
    metadata: null,
    created_at: now,
    run_at: now,
    started_at: now,
    completed_at: null,
    deadline_at: now,
    expires_at: null,
  })
  return `${text.slice(0, -1)},"response":${state === 'succeeded' && !fake.streams.has(key) ? fake.answerOf(key) : 'null'}}`
}

function ledgerText({ paid, model }: FakeJob): string {
  const data = Array.from({ length: paid }, (_, index) => ({
    attempt: index + 1,
    generation: 1,
    outcome: 'answered',
    billing: 'billed',
    provider: 'simulated',
    model,
    worker: 'w',
    provider_status: 200,
    error_code: null,
    provider_request_id: null,
    started_at: new Date().toISOString(),
    finished_at: null,
    input_tokens: 10,
    output_tokens: 5,
    cost_usd: 0.25,
  }))
  const summary = {
    duplicate: paid > 1 ? 'yes' : 'no',
    ...noSpend,
    calls: paid,
    billed: paid,
    cost_usd: paid / 4,
    duplicates: Math.max(0, paid - 1),
    duplicate_cost_usd: Math.max(0, paid - 1) / 4,
  }
  return JSON.stringify({ object: 'list', data, has_more: false, next_cursor: null, summary })
}
