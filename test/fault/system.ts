import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { migrateQueueSchema } from '@askonce/queue'
import { migrate } from '@askonce/store'
import {
  leakCheck,
  reapAll,
  spawnNode,
  startTestPostgres,
  startTestRedisForm,
  type Child,
  type ChildOptions,
  type TestRedisForm,
} from '@askonce/testkit'
import pg from 'pg'

/** `redis`: Postgres and Redis. `embedded`: Postgres alone, with BullMQ on it, as on a laptop. */
export type Form = 'redis' | 'embedded'

/**
 * For attacks that take minutes: one form in a run. `npm test` tries the Redis form, `npm run test:embedded` the embedded one, and
 * .ci/run both.
 */
export const formOfRun: Form = process.env['ASKONCE_TEST_FORM'] === 'embedded' ? 'embedded' : 'redis'

const askonce = new URL('../../apps/cli/bin/askonce.js', import.meta.url).pathname
const upstreamMain = new URL('../../packages/testkit/src/upstream-main.ts', import.meta.url).pathname
export const apiKey = 'fault-test-key-0123456789'

/** What a job looks like to these tests. */
export interface JobView {
  id: string
  state: string
  attempts: number
  generation: number
  replayed: boolean
  error: { code: string } | null
  response: unknown
  usage: { paid_attempts: number; maybe_paid_attempts: number }
}

export interface Reply {
  status: number
  headers: Headers
  body: JobView & { code?: string; detail?: string }
}

export type System = Awaited<ReturnType<typeof startSystem>>

/** Real servers and an upstream in a process of its own; the roles are started by each test, as processes that it can kill. `upstreamEnv`: see the testkit's upstream-main.ts. */
export async function startSystem(
  form: Form,
  upstreamEnv: Record<string, string> = {},
  startRedis: () => Promise<TestRedisForm> = startTestRedisForm,
) {
  const directory = await mkdtemp(join(tmpdir(), 'askonce-fault-'))
  const postgres = await startTestPostgres({ fsync: true })
  const redis = form === 'redis' ? await startRedis() : null
  const database = await postgres.createDatabase()
  await migrate(database.url)
  await migrateQueueSchema(database.url)
  const upstream = await startUpstreamProcess(upstreamEnv)
  const pool = new pg.Pool({ connectionString: database.url, max: 2 })
  pool.on('error', () => undefined)
  let spawned = 0

  /** Starts a role as a process. Its data directory, and so its spool, is its own unless given. `program`: of another version. */
  const spawn = (
    role: string,
    env: Record<string, string> = {},
    args: string[] = [],
    { program = askonce, ...limits }: Pick<ChildOptions, 'fileBlocks' | 'openFiles'> & { program?: string } = {},
  ): Child => {
    spawned += 1
    return spawnNode(program, {
      ...limits,
      args: [role, ...args],
      env: {
        DATABASE_URL: database.url,
        ...(redis === null ? {} : { REDIS_URL: redis.url }),
        OPENAI_BASE_URL: `${upstream.url}/v1`,
        OPENAI_API_KEY: 'test-key',
        ANTHROPIC_BASE_URL: upstream.url,
        ANTHROPIC_API_KEY: 'test-key',
        ASKONCE_BOOTSTRAP_KEY: apiKey,
        ASKONCE_DATA_DIR: join(directory, String(spawned)),
        PORT: '0',
        ...env,
      },
    })
  }
  /** Starts an API and waits until it listens. */
  const api = async (
    env: Record<string, string> = {},
    limits: Pick<ChildOptions, 'openFiles'> = {},
  ): Promise<{ child: Child; address: string }> => {
    const child = spawn('api', env, [], limits)
    const line = await child.waitForLine(/"event":"api\.started"/, 60_000)
    return { child, address: (JSON.parse(line.input) as { address: string }).address }
  }
  /** Starts a worker or a janitor and waits until it works. */
  const started = async (role: 'worker' | 'janitor', env: Record<string, string> = {}): Promise<Child> => {
    const child = spawn(role, env)
    await child.waitForLine(new RegExp(`"event":"${role}\\.started"`), 60_000)
    return child
  }

  return {
    form,
    directory,
    postgres,
    redis,
    database,
    upstream,
    spawn,
    api,
    started,
    sql: async <Row extends pg.QueryResultRow>(text: string, values: unknown[] = []): Promise<Row[]> =>
      (await pool.query<Row>(text, values)).rows,
    async stop() {
      await pool.end().catch(() => undefined)
      await reapAll()
      await redis?.stop()
      await postgres.stop()
      await rm(directory, { recursive: true, force: true })
      await leakCheck()
    },
  }
}

async function startUpstreamProcess(env: Record<string, string>) {
  const child = spawnNode(upstreamMain, { env })
  const line = await child.waitForLine(/"url"/, 60_000)
  const { url } = JSON.parse(line.input) as { url: string }
  return {
    child,
    url,
    /** Requests that it ran, which is what a provider would bill. */
    async calls(): Promise<number> {
      return ((await (await fetch(`${url}/__calls`)).json()) as { calls: number }).calls
    },
    async callsBy(): Promise<Record<string, number>> {
      return ((await (await fetch(`${url}/__calls`)).json()) as { by_marker: Record<string, number> }).by_marker
    },
    /** Behaviours for the next requests: see the testkit's upstream-script.ts. */
    async script(steps: unknown[]): Promise<void> {
      await fetch(`${url}/__script`, { method: 'POST', body: JSON.stringify(steps) })
    },
  }
}

/** A chat request whose marker at the upstream is `user`. */
export function chat(user: string, content = 'hello') {
  return {
    operation: 'chat.completions',
    request: { model: 'gpt-test', user, messages: [{ role: 'user', content }] },
  }
}

/** One request to an API. */
export async function call(
  address: string,
  method: string,
  path: string,
  { body, key, wait }: { body?: unknown; key?: string; wait?: number } = {},
): Promise<Reply> {
  const response = await fetch(`${address}${path}`, {
    method,
    headers: {
      authorization: `Bearer ${apiKey}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...(key === undefined ? {} : { 'idempotency-key': key }),
      ...(wait === undefined ? {} : { prefer: `wait=${wait}` }),
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    signal: AbortSignal.timeout(90_000),
  })
  return { status: response.status, headers: response.headers, body: (await response.json()) as Reply['body'] }
}

export function submit(address: string, key: string, body: unknown, wait?: number): Promise<Reply> {
  return call(address, 'POST', '/v1/jobs', { body, key, ...(wait === undefined ? {} : { wait }) })
}

/** Asks again and again until `done` holds; rejects with what it saw last after `timeoutMs`. */
export async function until<T>(read: () => Promise<T>, done: (value: T) => boolean, timeoutMs: number): Promise<T> {
  const deadline = performance.now() + timeoutMs
  for (;;) {
    const value = await read()
    if (done(value)) return value
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms; last seen: ${JSON.stringify(value)}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** Runs a command of the command line to its end. */
export async function run(system: System, args: string[]): Promise<{ code: number | null; stdout: string }> {
  const [command = '', ...rest] = args
  const child = system.spawn(command, {}, rest)
  const { code } = await child.exited
  return { code, stdout: child.stdout.join('\n') }
}

/** Waits for a state of a job, over HTTP. */
export async function untilState(address: string, id: string, state: string, timeoutMs: number): Promise<JobView> {
  const read = async (): Promise<JobView> => (await call(address, 'GET', `/v1/jobs/${id}`)).body
  return until(read, (job) => job.state === state, timeoutMs)
}

export interface LedgerRow extends pg.QueryResultRow {
  attempt: number
  outcome: string | null
  billing: string | null
}

export function ledger(system: System, jobId: string): Promise<LedgerRow[]> {
  return system.sql<LedgerRow>('select attempt, outcome, billing from attempts where job_id = $1 order by attempt', [
    jobId,
  ])
}
