import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Pool, type Dispatcher } from 'undici'
import {
  apiKeyOf,
  promptOf,
  submissionOf,
  type LoadRequest,
  type LoadResult,
  type LoadSpec,
  type Tenants,
} from './spec.ts'

/**
 * The load generator: a process of its own, the same for every contender that speaks HTTP. Its argument is a file with a
 * {@link LoadSpec}; its last line is a {@link LoadResult}.
 */
const spec = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')) as LoadSpec
const pool = new Pool(spec.address, { connections: spec.connections, pipelining: 1, bodyTimeout: 0, headersTimeout: 0 })
const authorization = `Bearer ${spec.apiKey}`

let sent = 0
let accepted = 0
const refused: Record<string, number> = {}
const latencies: number[] = []
const startedAt = performance.now()
const countFrom = startedAt + spec.warmUpMs
const countTo = countFrom + spec.durationMs

function next(request: LoadRequest, n: number): Dispatcher.DispatchOptions {
  switch (request.kind) {
    case 'submit': {
      const wait = request.waitSeconds === undefined ? {} : { prefer: `wait=${request.waitSeconds}` }
      return post(
        '/v1/jobs',
        { ...submissionOf(request.prefix, n, request.model), ...delayOf(request) },
        {
          'idempotency-key': `${request.prefix}-${n}`,
          ...wait,
          ...senderOf(request, n),
        },
      )
    }
    case 'replay': {
      // All over the table: no two neighbours follow each other.
      const known = ((n * 7_919) % request.count) * (request.every ?? 1)
      return post('/v1/jobs', submissionOf(request.prefix, known), { 'idempotency-key': `${request.prefix}-${known}` })
    }
    case 'bulk': {
      const first = n * request.items
      const jobs = Array.from({ length: request.items }, (_, index) => ({
        key: `${request.prefix}-${first + index}`,
        ...submissionOf(request.prefix, first + index, request.model),
        ...delayOf(request),
      }))
      return post('/v1/jobs/bulk', { jobs }, senderOf(request, n))
    }
    case 'get':
      return { method: 'GET', path: request.paths[n % request.paths.length] ?? '/', headers: { authorization } }
    case 'complete': {
      const messages = [{ role: 'user', content: promptOf(request.prefix, n) }]
      const headers = { 'idempotency-key': `${request.prefix}-${n}`, ...request.headers }
      return post(request.path ?? '/v1/chat/completions', { model: 'gpt-test', messages }, headers)
    }
  }
}

function delayOf({ delaySeconds }: { delaySeconds?: number }): object {
  return delaySeconds === undefined ? {} : { delay_seconds: delaySeconds }
}

function senderOf({ tenants }: { tenants?: Tenants }, n: number): Record<string, string> {
  const tenant = tenants?.[n % tenants.length]
  return tenant === undefined ? {} : { authorization: `Bearer ${apiKeyOf(tenant)}` }
}

function post(path: string, body: object, headers: Record<string, string>): Dispatcher.DispatchOptions {
  return {
    method: 'POST',
    path,
    body: JSON.stringify(body),
    headers: { authorization, 'content-type': 'application/json', ...headers },
  }
}

/** Sends one request and settles when its answer is whole. Undici's lowest interface: the generator shares the cores. */
function send(options: Dispatcher.DispatchOptions, dueAt: number): Promise<void> {
  return new Promise((resolve) => {
    let status = 0
    const end = (): void => {
      const now = performance.now()
      if (status >= 200 && status < 300) {
        accepted += 1
        if (now >= countFrom && now < countTo) latencies.push(now - dueAt)
      } else refused[status] = (refused[status] ?? 0) + 1
      resolve()
    }
    pool.dispatch(options, {
      onRequestStart: () => undefined,
      onResponseStart: (_, statusCode) => {
        status = statusCode
      },
      onResponseData: () => undefined,
      onResponseEnd: end,
      onResponseError: () => {
        status = 0
        end()
      },
    })
  })
}

function mayGoOn(): boolean {
  return performance.now() < countTo && (spec.limit === null || sent < spec.limit)
}

async function closedLoop(): Promise<void> {
  while (mayGoOn()) {
    const n = sent
    sent += 1
    await send(next(spec.request, n), performance.now())
  }
}

async function openLoop(rate: number): Promise<void> {
  const underWay: Promise<void>[] = []
  while (mayGoOn()) {
    const dueAt = startedAt + (sent * 1000) / rate
    const early = dueAt - performance.now()
    if (early > 0) await sleep(early)
    underWay.push(send(next(spec.request, sent), dueAt))
    sent += 1
  }
  await Promise.all(underWay)
}

const cpuBefore = process.cpuUsage()
await (spec.rate === null ? Promise.all(Array.from({ length: spec.connections }, closedLoop)) : openLoop(spec.rate))
const wallMs = performance.now() - startedAt
const { user, system } = process.cpuUsage(cpuBefore)
await pool.close()

latencies.sort((a, b) => a - b)
const at = (share: number): number =>
  latencies[Math.min(latencies.length - 1, Math.ceil(share * latencies.length) - 1)] ?? Number.NaN
const result: LoadResult = {
  perSecond: latencies.length / ((Math.min(countTo, startedAt + wallMs) - countFrom) / 1000),
  accepted,
  refused,
  p50: at(0.5),
  p99: at(0.99),
  max: at(1),
  cpuShare: (user + system) / 1000 / wallMs,
}
process.stdout.write(`${JSON.stringify(result)}\n`)
