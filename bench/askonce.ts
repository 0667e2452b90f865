import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { migrateQueueSchema } from '@askonce/queue'
import { migrate } from '@askonce/store'
import type { Child } from '@askonce/testkit'
import pg from 'pg'
import type { Bench } from './bench.ts'
import { load } from './load.ts'
import { apiKey, apiKeyOf, type Tenants } from './load/spec.ts'
import { serverCosts } from './server-costs.ts'

/** `redis`: BullMQ on Redis, as in production. `embedded`: BullMQ on the same PostgreSQL, as on a laptop. */
export type Form = 'redis' | 'embedded'
export const nameOf = { redis: 'Askonce', embedded: 'Askonce without Redis' } as const

/** Accepts jobs that may run in an hour, so that BullMQ has nothing to do: what is left of a rate without it. */
export const nothingDue = { name: 'Askonce, nothing due', delaySeconds: 3_600 } as const

const program = new URL('../apps/cli/bin/askonce.js', import.meta.url).pathname
const profiler = new URL('profiler.js', import.meta.url).href

/** How long a process may take to start, and what was submitted to be handed over, on a machine that is busy. */
const startMs = 60_000

/** How long a million of them may take to be submitted. */
const fillMs = 600_000

type Role = 'api' | 'worker' | 'janitor'
type Env = Record<string, string>

export interface Tenant {
  id: string
  weight: number
}

/** Askonce on a database of its own; its roles are processes, as users run them. */
export interface Askonce {
  databaseUrl: string
  /** Starts an API and resolves with its address. */
  api(env?: Env): Promise<string>
  worker(env?: Env): Promise<Child>
  janitor(env?: Env): Promise<Child>
  processes(): readonly Child[]
  sql<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]>
  /** Makes tenants, each with a key (`apiKeyOf`) and a weight. */
  addTenants(tenants: readonly Tenant[]): Promise<void>
  /** Submits so many new keys in bulk, the same number for each tenant. */
  fill(address: string, count: number, options?: { model?: string; tenants?: Tenants }): Promise<void>
  /** How many jobs have this state. */
  count(state: string): Promise<number>
  /** Ends its processes in good order. */
  end(): Promise<void>
  stop(): Promise<void>
}

/** Makes a database with the schema; nothing is started. */
export async function prepareAskonce(bench: Bench, form: Form): Promise<Askonce> {
  const database = await bench.cleanDatabase()
  await migrate(database.url)
  await migrateQueueSchema(database.url)
  const pool = new pg.Pool({ connectionString: database.url, max: 2 })
  pool.on('error', () => undefined)
  const children: Child[] = []
  const sql: Askonce['sql'] = async <Row extends pg.QueryResultRow>(text: string, values: unknown[] = []) =>
    (await pool.query<Row>(text, values)).rows

  const start = async (role: Role, env: Env): Promise<{ child: Child; line: string }> => {
    const { profile } = bench.options
    const { child, line } = bench.spawn(program, {
      args: [role],
      env: {
        DATABASE_URL: database.url,
        ...(form === 'redis' ? { REDIS_URL: bench.redis.url } : {}),
        ASKONCE_BOOTSTRAP_KEY: apiKey,
        ASKONCE_DATA_DIR: join(bench.directory, bench.fresh(role)),
        PORT: '0',
        ...(profile === null ? {} : profiled(join(profile, `${bench.fresh(`${role}-${form}`)}.cpuprofile`))),
        ...env,
      },
    })
    children.push(child)
    return { child, line: await line(new RegExp(`"event":"${role}\\.started"`), startMs) }
  }

  const end = async (): Promise<void> => {
    for (const child of children) child.signal('SIGTERM')
    await Promise.race([Promise.all(children.map(({ exited }) => exited)), new Promise((r) => setTimeout(r, 15_000))])
  }

  return {
    databaseUrl: database.url,
    api: async (env = {}) => (JSON.parse((await start('api', env)).line) as { address: string }).address,
    worker: async (env = {}) => (await start('worker', env)).child,
    janitor: async (env = {}) => (await start('janitor', env)).child,
    processes: () => children,
    sql,
    async addTenants(tenants) {
      const ids = tenants.map(({ id }) => id)
      await sql(
        `with made as (
           insert into tenants (id, weight) select * from unnest($1::text[], $2::int[]) returning id
         )
         insert into api_keys (tenant_id, name, key_hash, hint, scopes)
         select id, 'bench', sha256(convert_to(key, 'UTF8')), left(key, 4), '{submit,read}'
         from made join unnest($1::text[], $3::text[]) as keys (id, key) using (id)`,
        [ids, tenants.map(({ weight }) => weight), ids.map(apiKeyOf)],
      )
    },
    async fill(address, count, { model, tenants } = {}) {
      const senders = tenants?.length ?? 1
      const requests = senders * evenParts(count / senders)
      const items = count / requests
      const { accepted, refused } = await load(bench, address, {
        connections: 2,
        limit: requests,
        durationMs: fillMs,
        request: {
          kind: 'bulk',
          prefix: bench.fresh('fill'),
          items,
          ...(model === undefined ? {} : { model }),
          ...(tenants === undefined ? {} : { tenants }),
        },
      })
      if (accepted !== requests) throw new Error(`not everything was accepted: ${JSON.stringify(refused)}`)
    },
    async count(state) {
      const [row] = await sql<{ count: string }>('select count(*) from jobs where state = $1', [state])
      return Number(row?.count)
    },
    end,
    async stop() {
      // A profile is written at the end of a process that ends by itself.
      if (bench.options.profile !== null) {
        await end()
        const costs = await serverCosts(bench.postgres.url, bench.redis.port, new URL(database.url).pathname.slice(1))
        await writeFile(join(bench.options.profile, `${bench.fresh(`servers-${form}`)}.txt`), `${costs}\n`)
      }
      await Promise.all(children.map(async (child) => await child.kill()))
      await pool.end().catch(() => undefined)
      await database.drop()
    },
  }
}

/** The fewest equal parts of at most a thousand. */
function evenParts(count: number): number {
  let parts = Math.ceil(count / 1_000)
  while (count % parts !== 0) parts += 1
  return parts
}

function profiled(file: string): Env {
  return { NODE_OPTIONS: `--import ${profiler}`, BENCH_PROFILE: file }
}

/** Prepares, runs and stops, whatever happens. */
export async function withAskonce<T>(bench: Bench, form: Form, run: (askonce: Askonce) => Promise<T>): Promise<T> {
  const askonce = await prepareAskonce(bench, form)
  try {
    return await run(askonce)
  } finally {
    await askonce.stop()
  }
}
