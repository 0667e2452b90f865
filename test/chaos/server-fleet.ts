import { join } from 'node:path'
import { migrateQueueSchema } from '@askonce/queue'
import { migrate } from '@askonce/store'
import {
  startTcpProxy,
  startTestPostgres,
  startTestRedis,
  type TcpProxy,
  type TestPostgres,
  type TestRedis,
} from '@askonce/testkit'
import {
  finish,
  freePorts,
  makeDirectory,
  producerCount,
  providerEnv,
  query,
  removeDirectory,
  spawnRole,
  startProducers,
  startUpstreamProcess,
  type Fleet,
} from './fleet.ts'
import { Supervised } from './supervised.ts'
import { Teams, writePrices } from './tenants.ts'

/** Postgres and Redis as servers, each behind a proxy, and every role as processes. */
export interface ServerFleet extends Fleet {
  readonly form: 'redis'
  readonly postgres: TestPostgres
  readonly redis: TestRedis
  readonly postgresProxy: TcpProxy
  readonly redisProxy: TcpProxy
  readonly apis: readonly Supervised[]
  readonly workers: readonly Supervised[]
  readonly janitors: readonly Supervised[]
}

export interface FleetOptions {
  seed: number
  rate: number
  latencyMs: number
  settleMs: number
}

const counts = { apis: 2, workers: 3, janitors: 2 }

/** Starts all of it and waits until both APIs are ready. */
export async function startServerFleet({ seed, rate, latencyMs, settleMs }: FleetOptions): Promise<ServerFleet> {
  const directory = await makeDirectory()
  const upstream = await startUpstreamProcess(latencyMs)
  const postgres = await startTestPostgres({ fsync: true })
  const redis = await startTestRedis({ appendonly: true })
  const database = await postgres.createDatabase()
  await migrate(database.url)
  await migrateQueueSchema(database.url)
  const sql: ServerFleet['sql'] = (text, values) => query(database.url, text, values)
  const teams = new Teams(rate / producerCount)
  await teams.create(sql)
  const postgresProxy = await startTcpProxy(postgres.port)
  const redisProxy = await startTcpProxy(redis.port)

  const shared = {
    ...providerEnv(upstream),
    ASKONCE_CONFIG: writePrices(directory),
    DATABASE_URL: throughProxy(database.url, postgresProxy),
    REDIS_URL: throughProxy(redis.url, redisProxy),
    ASKONCE_DRAIN_SECONDS: '10',
  }
  // A data directory, and so a spool, stays with its process, as a volume does.
  const role = (name: string, index: number, port?: number): Supervised =>
    new Supervised(`${name} ${index + 1}`, () =>
      spawnRole(name, {
        ...shared,
        ASKONCE_DATA_DIR: join(directory, `${name}-${index + 1}`),
        ...(port === undefined ? {} : { PORT: String(port) }),
      }),
    )
  const several = (count: number, name: string): Supervised[] =>
    Array.from({ length: count }, (_, index) => role(name, index))

  const ports = await freePorts(counts.apis)
  const apis = ports.map((port, index) => role('api', index, port))
  const workers = several(counts.workers, 'worker')
  const janitors = several(counts.janitors, 'janitor')
  const addresses = ports.map((port) => `http://127.0.0.1:${port}`)
  await untilReady(addresses)
  const { producers, records } = startProducers({ directory, addresses, seed, rate, teams, settleMs })

  const program = [...apis, ...workers, ...janitors]
  return {
    form: 'redis',
    directory,
    addresses,
    producers,
    records,
    upstream,
    teams,
    postgres,
    redis,
    postgresProxy,
    redisProxy,
    apis,
    workers,
    janitors,
    processes: () => [...program, ...producers],
    sql,
    finishProducers: () => finish(producers, settleMs),
    async stop() {
      await Promise.all([...producers, ...program].map((process) => process.stop(0)))
      await upstream.child.kill()
      await Promise.all([postgresProxy.close(), redisProxy.close()])
      await Promise.all([postgres.stop(), redis.stop()])
      await removeDirectory(directory)
    },
  }
}

function throughProxy(url: string, proxy: TcpProxy): string {
  const changed = new URL(url)
  changed.port = String(proxy.port)
  return changed.href
}

/** Waits until every API says that it is ready; a minute at most. */
export async function untilReady(addresses: readonly string[]): Promise<void> {
  const giveUpAt = performance.now() + 60_000
  for (const address of addresses) {
    for (;;) {
      const ready = await fetch(`${address}/readyz`).then(
        (reply) => reply.ok,
        () => false,
      )
      if (ready) break
      if (performance.now() > giveUpAt) throw new Error(`${address} is not ready after a minute`)
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
}
