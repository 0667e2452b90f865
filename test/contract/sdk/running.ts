import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startApi } from '@askonce/api'
import { redisAddress } from '@askonce/address'
import { loadConfig } from '@askonce/config'
import { startJanitor } from '@askonce/janitor'
import { createLog, createMetrics } from '@askonce/telemetry'
import { leakCheck, startTestPostgres, startTestRedisForm } from '@askonce/testkit'
import { startWorker } from '@askonce/worker'
import pg from 'pg'
import { migratedDatabase } from '../../migrated-database.ts'

export const apiKey = 'stock-sdk-key-0123456789'

export type Running = Awaited<ReturnType<typeof startRunning>>

/** The whole of Askonce in this process, on real servers, with its providers at the addresses given. `lanes`: more of them, as in the configuration file. */
export async function startRunning(providers: { openai: string; anthropic: string }, lanes: object[] = []) {
  const directory = await mkdtemp(join(tmpdir(), 'askonce-sdk-'))
  const configFile = join(directory, 'config.json')
  await writeFile(configFile, JSON.stringify({ lanes }))
  const [postgres, redis] = await Promise.all([startTestPostgres(), startTestRedisForm()])
  const { url, adminUrl } = await migratedDatabase(postgres)
  const env = {
    PORT: '0',
    DATABASE_URL: url,
    REDIS_URL: redis.url,
    ASKONCE_BOOTSTRAP_KEY: apiKey,
    ASKONCE_CONFIG: configFile,
    ASKONCE_DATA_DIR: directory,
    OPENAI_BASE_URL: providers.openai,
    OPENAI_API_KEY: 'upstream-key-0123456789',
    ANTHROPIC_BASE_URL: providers.anthropic,
    ANTHROPIC_API_KEY: 'upstream-key-0123456789',
  }
  const context = {
    config: loadConfig(env),
    databaseUrl: url,
    queue: { ...redisAddress(redis.url), prefix: '{askonce}' },
    log: createLog({ level: 'silent', role: 'start' }),
    metrics: createMetrics(),
  }
  const hasty = { ...context, config: loadConfig({ ...env, ASKONCE_SDK_WAIT_SECONDS: '1' }) }
  const [api, hastyApi, worker, janitor] = await Promise.all([
    startApi(context),
    startApi(hasty),
    startWorker(context),
    startJanitor(context),
  ])
  const pool = new pg.Pool({ connectionString: adminUrl, max: 1 })
  pool.on('error', () => undefined)
  return {
    address: api.address,
    /** Of an API that waits for answers one second long. */
    hastyAddress: hastyApi.address,
    sql: async (text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> =>
      (await pool.query<Record<string, unknown>>(text, values)).rows,
    async stop() {
      await Promise.all([api.close(), hastyApi.close(), worker.stop()])
      await janitor.stop()
      await pool.end()
      await Promise.all([redis.stop(), postgres.stop()])
      await rm(directory, { recursive: true, force: true })
      await leakCheck()
    },
  }
}
