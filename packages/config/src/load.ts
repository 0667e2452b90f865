import { resolve } from 'node:path'
import { type Config, deepFreeze, type LaneConfig } from './config.ts'
import { readEnvironment } from './environment.ts'
import { readConfigFile } from './file.ts'
import { builtInLanes, fileLanes } from './lanes.ts'
import { type Given, libpqVariables } from './libpq.ts'
import { ConfigError } from './problems.ts'
import { redisFiles } from './servers.ts'
import type { Environment } from './variables.ts'

/**
 * Reads the whole configuration: variables, and the file that ASKONCE_CONFIG names. Called once per process, in its
 * main.ts; this package is the only one that reads `process.env`.
 *
 * @throws ConfigError with every problem found.
 */
export function loadConfig(env: Given = process.env): Config {
  const { values, problems } = readEnvironment(env)
  const path = values.ASKONCE_CONFIG
  const file = path ? readConfigFile(path) : { lanes: [], prices: [], problems: [] }
  const extra = fileLanes(path ?? '', file.lanes, env)
  const all = [...problems, ...file.problems, ...extra.problems]
  if (all.length > 0) throw new ConfigError(all)

  // Lanes of the file come first: naming a model there is more specific than routing by provider.
  const lanes = [...extra.lanes, ...builtInLanes(values)]
  const prices = file.prices.map((price) => ({
    model: price.model,
    inputPerMillionUsd: price.input_per_million_usd,
    outputPerMillionUsd: price.output_per_million_usd,
    maxOutputTokens: price.max_output_tokens ?? null,
  }))
  return deepFreeze({ ...nest(values, env), lanes, providersOn: lanes.some(isReal), prices })
}

function isReal(lane: LaneConfig): boolean {
  return lane.kind !== 'simulated'
}

function nest(env: Environment, given: Given): Omit<Config, 'lanes' | 'providersOn' | 'prices'> {
  const dataDir = resolve(env.ASKONCE_DATA_DIR)
  return {
    http: {
      host: env.HOST,
      port: env.PORT,
      healthPort: env.ASKONCE_HEALTH_PORT,
      publicUrl: env.ASKONCE_PUBLIC_URL,
      trustProxy: env.ASKONCE_TRUST_PROXY,
    },
    log: { level: env.LOG_LEVEL },
    dataDir,
    database: {
      url: env.DATABASE_URL,
      directUrl: env.DATABASE_DIRECT_URL,
      poolSize: env.ASKONCE_DATABASE_POOL,
      unread: env.DATABASE_URL === null ? libpqVariables(given) : [],
    },
    redis: {
      url: env.REDIS_URL,
      files: redisFiles(env.ASKONCE_REDIS_CA_FILE, env.ASKONCE_REDIS_CERT_FILE, env.ASKONCE_REDIS_KEY_FILE),
      prefix: env.ASKONCE_REDIS_PREFIX,
    },
    bootstrapKey: env.ASKONCE_BOOTSTRAP_KEY,
    worker: {
      concurrency: env.ASKONCE_CONCURRENCY,
      drainMs: env.ASKONCE_DRAIN_SECONDS,
      leaseMs: env.ASKONCE_LEASE_SECONDS,
      spoolDir: resolve(env.ASKONCE_SPOOL_DIR ?? `${dataDir}/spool`),
    },
    janitor: { sweepIntervalMs: env.ASKONCE_SWEEP_INTERVAL_SECONDS },
    limits: {
      defaultTtlMs: env.ASKONCE_DEFAULT_TTL_SECONDS,
      maxTtlMs: env.ASKONCE_MAX_TTL_SECONDS,
      uncertainTtlMs: env.ASKONCE_UNCERTAIN_TTL_SECONDS,
      ledgerRetentionMs: env.ASKONCE_LEDGER_RETENTION_SECONDS,
      batchRetentionMs: env.ASKONCE_BATCH_RETENTION_SECONDS,
      defaultDeadlineMs: env.ASKONCE_DEFAULT_DEADLINE_SECONDS,
      defaultTimeoutMs: env.ASKONCE_DEFAULT_TIMEOUT_SECONDS,
      defaultOnUncertain: env.ASKONCE_DEFAULT_ON_UNCERTAIN,
      defaultMaxAttempts: env.ASKONCE_DEFAULT_MAX_ATTEMPTS,
      defaultMaxPaidAttempts: env.ASKONCE_DEFAULT_MAX_PAID_ATTEMPTS,
      maxBodyBytes: env.ASKONCE_MAX_BODY_BYTES,
      maxRequestBytes: env.ASKONCE_MAX_REQUEST_BYTES,
      maxFileBytes: env.ASKONCE_MAX_FILE_BYTES,
      sdkWaitMs: env.ASKONCE_SDK_WAIT_SECONDS,
      maxQueuedSubmissions: env.ASKONCE_MAX_QUEUED_SUBMISSIONS,
    },
    forwardHeaders: env.ASKONCE_FORWARD_HEADERS,
    simulated: {
      latencyMs: env.ASKONCE_SIMULATED_LATENCY_MS,
      tokens: env.ASKONCE_SIMULATED_TOKENS,
      failureRate: env.ASKONCE_SIMULATED_FAILURE_RATE,
    },
    client: { url: env.ASKONCE_URL, apiKey: env.ASKONCE_API_KEY },
  }
}
