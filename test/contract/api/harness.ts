import { randomUUID } from 'node:crypto'
import { redisAddress } from '@askonce/address'
import { allScopes, hashKey, startApi, type RunningApi } from '@askonce/api'
import { loadConfig, type Config } from '@askonce/config'
import type { EndAction, Outcome } from '@askonce/core'
import type { QueueConnection, Waker } from '@askonce/queue'
import {
  beatWorker,
  createApiKey,
  endAttempts,
  openDatabase,
  registerWorker,
  type AttemptEndRecord,
  type Claim,
  type Database,
  type EndedAttempt,
  type Scope,
} from '@askonce/store'
import { createLog, createMetrics, type Metrics } from '@askonce/telemetry'
import { startTestPostgres, type TestPostgres, type TestPostgresOptions } from '@askonce/testkit'
import pg from 'pg'
import { claimThese } from '../../claim-these.ts'
import { migratedDatabase } from '../../migrated-database.ts'
import type { Body } from './body.ts'

export const bootstrapKey = 'contract-test-key-0001'

export interface HarnessOptions {
  env?: Record<string, string>
  postgres?: TestPostgresOptions
  /** A Redis for wake-ups; absent: they are only recorded. */
  redisUrl?: string
}

export interface Reply {
  status: number
  headers: Headers
  text: string
  /** The body, if it is JSON. */
  json: Body
}

export interface CallOptions {
  key?: string | null
  headers?: Record<string, string>
  /** Objects are sent as JSON, texts and bytes as they are. */
  body?: object | string | Buffer
  signal?: AbortSignal
}

/** An API over a database of its own, without worker and janitor: tests end attempts themselves. */
export interface Harness {
  readonly api: RunningApi
  readonly config: Config
  readonly metrics: Metrics
  readonly postgres: TestPostgres
  readonly database: Database
  readonly databaseUrl: string
  /** For what the processes may not do. */
  readonly adminUrl: string
  /** Lanes whose workers were woken, in order. */
  readonly woken: string[]
  /** Log lines, parsed. */
  readonly lines: Record<string, unknown>[]
  call(method: string, path: string, options?: CallOptions): Promise<Reply>
  submit(idempotencyKey: string, body: object, headers?: Record<string, string>): Promise<Reply>
  /** A new key of a tenant. */
  keyFor(tenant: string, scopes?: Scope[]): Promise<string>
  claim(id: string): Promise<Claim>
  end(claim: Claim, end: Partial<AttemptEndRecord> & { action: EndAction; outcome: Outcome }): Promise<EndedAttempt>
  answer(claim: Claim, response: string, contentType?: string): Promise<EndedAttempt>
  sql(text: string, values?: unknown[]): Promise<Record<string, unknown>[]>
  stop(): Promise<void>
}

/** A chat submission that asks about `content`. */
export function chat(content = 'hello', extra: object = {}): { operation: string; request: Record<string, unknown> } {
  return {
    operation: 'chat.completions',
    request: { model: 'simulated/small', messages: [{ role: 'user', content }] },
    ...extra,
  }
}

export async function startHarness(options: HarnessOptions = {}): Promise<Harness> {
  const postgres = await startTestPostgres(options.postgres)
  const { url, adminUrl } = await migratedDatabase(postgres)
  const database = openDatabase({ url, name: 'test', poolSize: 4 })
  const running = await startOn(url, options)
  const workerId = randomUUID()
  await registerWorker(database.db, { id: workerId, host: 'test', pid: 1, version: '0' })
  // Followers that begin look for its signs of life.
  const beats = setInterval(() => void beatWorker(database.db, workerId).catch(() => undefined), 500)
  let keys = 0

  const call = (method: string, path: string, given: CallOptions = {}): Promise<Reply> =>
    callApi(running.api.address, method, path, given)
  const end: Harness['end'] = async (claim, ended) => {
    return first(await endAttempts(database.db, [{ ...emptyEnd(claim), ...ended }], 3_600))
  }
  const sql: Harness['sql'] = async (text, values = []) => {
    const client = new pg.Client({ connectionString: adminUrl })
    await client.connect()
    try {
      return (await client.query<Record<string, unknown>>(text, values)).rows
    } finally {
      await client.end()
    }
  }
  return {
    ...running,
    postgres,
    database,
    databaseUrl: url,
    adminUrl,
    call,
    submit: (idempotencyKey, body, headers = {}) =>
      call('POST', '/v1/jobs', { body, headers: { 'idempotency-key': idempotencyKey, ...headers } }),
    async keyFor(tenant, scopes = allScopes) {
      keys += 1
      const key = `key-of-${tenant}-${keys}-0123456789`
      await createApiKey(database.db, { tenantId: tenant, name: 'test', keyHash: hashKey(key), hint: 'key-', scopes })
      return key
    },
    claim: async (id) => first(await claimThese(database.db, sql, workerId, [id])),
    end,
    answer: (claim, response, contentType = 'application/json') =>
      end(claim, {
        action: 'answer',
        outcome: 'answered',
        billing: 'billed',
        response: Buffer.from(response),
        contentType,
        providerStatus: 200,
        inputTokens: 11,
        outputTokens: 7,
        costUsd: 0.0025,
        error: null,
        errorCode: null,
      }),
    sql,
    async stop() {
      clearInterval(beats)
      await running.api.close()
      await database.close()
      await postgres.stop()
    },
  }
}

/** An API on a database that exists, for tests with several. */
export async function startOn(
  url: string,
  { env = {}, redisUrl }: HarnessOptions = {},
): Promise<Pick<Harness, 'api' | 'config' | 'metrics' | 'woken' | 'lines'>> {
  const woken: string[] = []
  const lines: Record<string, unknown>[] = []
  const waker: Waker = {
    wake: (lanes) => void woken.push(...lanes),
    ping: () => Promise.resolve(),
    close: () => Promise.resolve(),
  }
  const config = loadConfig({ PORT: '0', ASKONCE_BOOTSTRAP_KEY: bootstrapKey, DATABASE_URL: url, ...env })
  const destination = { write: (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>) }
  const metrics = createMetrics()
  const log = createLog({ level: 'debug', role: 'api', destination })
  const recorded = redisUrl === undefined
  const queue: QueueConnection = recorded
    ? { kind: 'postgres', url }
    : { ...redisAddress(redisUrl), prefix: config.redis.prefix }
  const api = await startApi({ config, databaseUrl: url, queue, log, metrics }, recorded ? waker : undefined)
  return { api, config, metrics, woken, lines }
}

export async function callApi(
  address: string,
  method: string,
  path: string,
  options: CallOptions = {},
): Promise<Reply> {
  const { key = bootstrapKey, headers = {}, body, signal } = options
  const raw = typeof body === 'string' || Buffer.isBuffer(body)
  const response = await fetch(address + path, {
    method,
    headers: {
      ...(key === null ? {} : { authorization: `Bearer ${key}` }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body === undefined ? {} : { body: raw ? body : JSON.stringify(body) }),
    ...(signal === undefined ? {} : { signal }),
  })
  const text = await response.text()
  const isJson = /[/+]json/.test(response.headers.get('content-type') ?? '') && text !== ''
  return { status: response.status, headers: response.headers, text, json: (isJson ? JSON.parse(text) : {}) as Body }
}

/** The first of a list that must have one. */
export function first<T>(list: readonly T[]): T {
  return at(list, 0)
}

/** One of a list that must be so long. */
export function at<T>(list: readonly T[], index: number): T {
  const item = list[index]
  if (item === undefined) throw new Error(`the list has ${list.length} items, no number ${index}`)
  return item
}

function emptyEnd({ id, attempt }: Claim): AttemptEndRecord {
  return {
    jobId: id,
    attempt,
    action: 'stop',
    outcome: 'rejected',
    billing: 'none',
    uncounted: false,
    onlyOpen: false,
    delayMs: 0,
    backoff: false,
    error: JSON.stringify({ code: 'provider_rejected', message: 'no', retryable: false, provider_status: 400 }),
    errorCode: 'provider_rejected',
    providerStatus: 400,
    providerRequestId: 'req_1',
    inputTokens: null,
    outputTokens: null,
    costUsd: null,
    response: null,
    responsePieces: null,
    responseBytes: null,
    contentType: null,
    answerId: null,
    errorResponse: null,
    errorContentType: null,
    flags: [],
  }
}
