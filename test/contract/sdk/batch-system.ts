import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Anthropic from '@anthropic-ai/sdk'
import { allScopes, hashKey, startApi } from '@askonce/api'
import { redisAddress } from '@askonce/address'
import { loadConfig } from '@askonce/config'
import { startJanitor } from '@askonce/janitor'
import { createApiKey, openDatabase, type Scope } from '@askonce/store'
import { createLog, createMetrics } from '@askonce/telemetry'
import { leakCheck, startTestPostgres, startTestRedisForm, startUpstream } from '@askonce/testkit'
import { startWorker } from '@askonce/worker'
import OpenAI, { toFile } from 'openai'
import pg from 'pg'
import { migratedDatabase } from '../../migrated-database.ts'

const bootstrapKey = 'batch-test-key-0123456789'

export type BatchSystem = Awaited<ReturnType<typeof startBatchSystem>>

/** Everything in one process over real servers: the API, a worker, a janitor, and an upstream that counts. */
export async function startBatchSystem(env: Record<string, string> = {}) {
  const directory = await mkdtemp(join(tmpdir(), 'askonce-batch-'))
  const postgres = await startTestPostgres({})
  const redis = await startTestRedisForm()
  const upstream = await startUpstream()
  const { url, adminUrl } = await migratedDatabase(postgres)
  const config = loadConfig({
    PORT: '0',
    ASKONCE_BOOTSTRAP_KEY: bootstrapKey,
    DATABASE_URL: url,
    REDIS_URL: redis.url,
    OPENAI_BASE_URL: upstream.openaiBaseUrl,
    OPENAI_API_KEY: 'test-key',
    ANTHROPIC_BASE_URL: upstream.anthropicBaseUrl,
    ANTHROPIC_API_KEY: 'test-key',
    ASKONCE_DATA_DIR: directory,
    ASKONCE_CONCURRENCY: '10',
    ...env,
  })
  const context = {
    config,
    databaseUrl: url,
    queue: { ...redisAddress(redis.url), prefix: '{askonce}' },
    log: createLog({ level: 'silent', role: 'start' }),
    metrics: createMetrics(),
  }
  const api = await startApi(context)
  const worker = await startWorker(context)
  const janitor = await startJanitor(context)
  const pool = new pg.Pool({ connectionString: adminUrl, max: 2 })
  const database = openDatabase({ url, name: 'test', poolSize: 2 })
  const clients = (key: string) => ({
    openai: new OpenAI({ apiKey: key, baseURL: `${api.address}/openai/v1`, maxRetries: 0 }),
    anthropic: new Anthropic({ apiKey: key, baseURL: `${api.address}/anthropic`, maxRetries: 0 }),
  })
  return {
    api,
    upstream,
    db: database.db,
    key: bootstrapKey,
    ...clients(bootstrapKey),
    /** The SDKs with a new key of a tenant. */
    async tenant(name: string, scopes: Scope[] = allScopes) {
      const key = `key-of-${name}-0123456789`
      await createApiKey(database.db, { tenantId: name, name: 'test', keyHash: hashKey(key), hint: 'key-', scopes })
      return clients(key)
    },
    async sql<Row extends pg.QueryResultRow>(text: string, values: unknown[] = []): Promise<Row[]> {
      return (await pool.query<Row>(text, values)).rows
    },
    async stop() {
      await api.close()
      await worker.stop()
      await janitor.stop()
      await database.close()
      await pool.end()
      await upstream.close()
      await redis.stop()
      await postgres.stop()
      await rm(directory, { recursive: true, force: true })
      await leakCheck()
    },
  }
}

/** A line for chat completions, whose marker at the upstream is its custom_id. */
export function chatLine(customId: string, given: { content?: string; body?: object } = {}): string {
  const { content = 'hello', body = {} } = given
  return JSON.stringify({
    custom_id: customId,
    method: 'POST',
    url: '/v1/chat/completions',
    body: { model: 'gpt-test', user: customId, messages: [{ role: 'user', content }], ...body },
  })
}

export function lines(count: number, prefix = 'line'): string {
  return Array.from({ length: count }, (_, index) => `${chatLine(`${prefix}-${index}`)}\n`).join('')
}

export async function upload({ openai }: { openai: OpenAI }, content: string | Buffer): Promise<string> {
  const file = await toFile(Buffer.from(content), 'input.jsonl')
  return (await openai.files.create({ file, purpose: 'batch' })).id
}

/** Uploads a file and makes a batch of it. */
export async function batchOf(
  clients: { openai: OpenAI },
  content: string | Buffer,
  metadata: Record<string, string> | null = null,
  endpoint: OpenAI.BatchCreateParams['endpoint'] = '/v1/chat/completions',
): Promise<OpenAI.Batch> {
  return clients.openai.batches.create({
    input_file_id: await upload(clients, content),
    endpoint,
    completion_window: '24h',
    ...(metadata === null ? {} : { metadata }),
  })
}

/** Polls a batch until it is in one of these states. */
export async function until(
  { openai }: { openai: OpenAI },
  id: string,
  states: readonly OpenAI.Batch['status'][],
  timeoutMs = 20_000,
): Promise<OpenAI.Batch & { askonce: { replayed: number; cost_usd: number } }> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const batch = await openai.batches.retrieve(id)
    if (states.includes(batch.status)) return batch as Awaited<ReturnType<typeof until>>
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${JSON.stringify(batch)}`)
    await new Promise((resolve) => setTimeout(resolve, 30))
  }
}

export interface OutputLine {
  id: string
  custom_id: string
  response: { status_code: number; request_id: string; body: Record<string, unknown> } | null
  error: { code: string; message: string } | null
}

/** The lines of a file of results; none without a file. */
export async function results({ openai }: { openai: OpenAI }, id: string | null | undefined): Promise<OutputLine[]> {
  if (id === null || id === undefined) return []
  const text = await (await openai.files.content(id)).text()
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as OutputLine)
}
