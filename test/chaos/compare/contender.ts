import { join } from 'node:path'
import { migrateQueueSchema } from '@askonce/queue'
import { migrate } from '@askonce/store'
import {
  spawnNode,
  startTestPostgres,
  startTestRedis,
  type Child,
  type TestPostgres,
  type TestRedis,
} from '@askonce/testkit'
import { callTimeoutSeconds, freePorts, providerEnv, spawnRole, type UpstreamProcess } from '../fleet.ts'
import type { Policy } from '../record.ts'
import { untilReady } from '../server-fleet.ts'
import { Supervised } from '../supervised.ts'
import { createPgBossQueue } from './pg-boss.ts'

export const systems = ['BullMQ', 'pg-boss', 'Askonce', 'Askonce, policy hold'] as const
export type SystemName = (typeof systems)[number]

/** One of the systems, running, with what the faults may break. */
export interface Contender {
  name: SystemName
  workers: readonly Supervised[]
  /** The producer, and what stands between it and the queue. */
  producerSide: readonly Supervised[]
  producer: Supervised
  postgres: TestPostgres | null
  redis: TestRedis | null
  stop(): Promise<void>
}

export interface ContenderOptions {
  directory: string
  upstream: UpstreamProcess
  record: string
  rate: number
  drainMs: number
}

const workerMain = new URL('worker-main.ts', import.meta.url).pathname
const producerMain = new URL('producer-main.ts', import.meta.url).pathname
const workerCount = 3
/** Calls at once and worker process: the default of Askonce. */
const concurrency = 50
/** Of pg-boss: each is a loop that asks Postgres twice a second, so fewer; enough for the load ten times over. */
const loops = 15

export function startContender(name: SystemName, options: ContenderOptions): Promise<Contender> {
  switch (name) {
    case 'BullMQ':
      return startBullmq(options)
    case 'pg-boss':
      return startPgBoss(options)
    case 'Askonce':
      return startAskonce(name, 'rerun', options)
    case 'Askonce, policy hold':
      return startAskonce(name, 'hold', options)
  }
}

async function startBullmq(options: ContenderOptions): Promise<Contender> {
  const redis = await startTestRedis({ appendonly: true })
  const workers = startWorkers('bullmq', redis.url, options, concurrency)
  const producer = startProducer('bullmq', redis.url, options)
  return assembled({ name: 'BullMQ', workers, producer, beside: [], postgres: null, redis })
}

async function startPgBoss(options: ContenderOptions): Promise<Contender> {
  const postgres = await startTestPostgres({ fsync: true })
  const { url } = await postgres.createDatabase()
  await createPgBossQueue(url)
  const workers = startWorkers('pg-boss', url, options, loops)
  const producer = startProducer('pg-boss', url, options)
  return assembled({ name: 'pg-boss', workers, producer, beside: [], postgres, redis: null })
}

async function startAskonce(name: SystemName, policy: Policy, options: ContenderOptions): Promise<Contender> {
  const { directory, upstream } = options
  const postgres = await startTestPostgres({ fsync: true })
  const redis = await startTestRedis({ appendonly: true })
  const { url } = await postgres.createDatabase()
  await migrate(url)
  await migrateQueueSchema(url)
  const [port = 0] = await freePorts(1)
  const start = (role: string, index: number, env: Record<string, string> = {}): Supervised =>
    new Supervised(`${role} ${index}`, () =>
      spawnRole(role, {
        ...providerEnv(upstream),
        DATABASE_URL: url,
        REDIS_URL: redis.url,
        ASKONCE_DATA_DIR: join(directory, `${role}-${index}`),
        ...env,
      }),
    )
  const api = start('api', 0, { PORT: String(port) })
  const workers = Array.from({ length: workerCount }, (_, index) => start('worker', index))
  const janitor = start('janitor', 0)
  const address = `http://127.0.0.1:${port}`
  await untilReady([address])
  const producer = startProducer('askonce', address, options, policy)
  return assembled({ name, workers, producer, beside: [api], postgres, redis, others: [janitor] })
}

interface Parts {
  name: SystemName
  workers: readonly Supervised[]
  producer: Supervised
  /** Killed together with the producer. */
  beside: readonly Supervised[]
  others?: readonly Supervised[]
  postgres: TestPostgres | null
  redis: TestRedis | null
}

function assembled({ name, workers, producer, beside, others = [], postgres, redis }: Parts): Contender {
  return {
    name,
    workers,
    producer,
    producerSide: [producer, ...beside],
    postgres,
    redis,
    async stop() {
      await Promise.all([producer, ...workers, ...beside, ...others].map((process) => process.stop(0)))
      await postgres?.stop()
      await redis?.stop()
    },
  }
}

function startWorkers(system: string, server: string, options: ContenderOptions, atOnce: number): Supervised[] {
  const env = {
    COMPARE_SYSTEM: system,
    COMPARE_SERVER: server,
    COMPARE_UPSTREAM: options.upstream.url,
    COMPARE_CONCURRENCY: String(atOnce),
    COMPARE_TIMEOUT_MS: String(callTimeoutSeconds * 1000),
  }
  const spawn = (): Child => spawnNode(workerMain, { env })
  return Array.from({ length: workerCount }, (_, index) => new Supervised(`${system} worker ${index}`, spawn))
}

function startProducer(
  system: string,
  server: string,
  options: ContenderOptions,
  policy: Policy = 'rerun',
): Supervised {
  const { record, rate, drainMs } = options
  const env = {
    COMPARE_SYSTEM: system,
    COMPARE_SERVER: server,
    COMPARE_RECORD: record,
    COMPARE_RATE: String(rate),
    COMPARE_DRAIN_MS: String(drainMs),
    COMPARE_POLICY: policy,
  }
  return new Supervised(`${system} producer`, () => spawnNode(producerMain, { env }))
}
