import type { TlsFiles } from '@askonce/address'
import type { OnUncertain } from '@askonce/core'
import type { Secret } from './secret.ts'

/**
 * One provider endpoint. `models` are the patterns (`*` stands for any characters) that the configuration file gives it;
 * the built-in lanes have none, routing knows them by name. Lanes are in order of preference.
 */
export type LaneConfig = {
  readonly name: string
  readonly kind: 'openai' | 'anthropic' | 'simulated'
  /** Without a trailing slash; null for the simulated lane. */
  readonly baseUrl: string | null
  readonly apiKey: Secret | null
  readonly models: readonly string[]
  /** Whether stored completions are looked up before a call whose fate is unknown is made again. */
  readonly lookUp: boolean
}

/** A price of the configuration file, which wins over the built-in ones. */
export type PriceConfig = {
  readonly model: string
  readonly inputPerMillionUsd: number
  readonly outputPerMillionUsd: number
  /** The most that the model writes in one answer; null: nobody said. */
  readonly maxOutputTokens: number | null
}

/** Everything that can be set, read once and frozen. Durations are milliseconds; docs/config.md describes each. */
export type Config = {
  /** `port` and `healthPort` may be 0: pick a free one. */
  readonly http: {
    readonly host: string
    readonly port: number
    readonly healthPort: number | null
    /** The address of the API as clients write it, without a trailing slash; null: nobody said. */
    readonly publicUrl: string | null
    /** Addresses and networks whose forwarding headers are believed. */
    readonly trustProxy: readonly string[]
  }
  readonly log: { readonly level: 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace' | 'silent' }
  /** Absolute. */
  readonly dataDir: string
  readonly database: {
    /** null: embedded. */
    readonly url: Secret | null
    /** Of the server itself, where `url` is a pooler in transaction mode; null: `url` is the server. */
    readonly directUrl: Secret | null
    readonly poolSize: number
    /** Variables of libpq (PGHOST …) that are set, and mean nothing because `url` is null. */
    readonly unread: readonly string[]
  }
  /** `url` null: BullMQ on Postgres. `files` are those of its TLS. All keys begin with `prefix`, braces included. */
  readonly redis: { readonly url: Secret | null; readonly files: TlsFiles; readonly prefix: string }
  readonly bootstrapKey: Secret | null
  readonly worker: {
    /** Concurrent calls per lane and process. */
    readonly concurrency: number
    readonly drainMs: number
    readonly leaseMs: number
    /** Absolute. */
    readonly spoolDir: string
  }
  readonly janitor: { readonly sweepIntervalMs: number }
  readonly limits: {
    readonly defaultTtlMs: number
    readonly maxTtlMs: number
    readonly uncertainTtlMs: number
    readonly ledgerRetentionMs: number
    readonly batchRetentionMs: number
    readonly defaultDeadlineMs: number
    readonly defaultTimeoutMs: number
    readonly defaultOnUncertain: OnUncertain
    readonly defaultMaxAttempts: number
    readonly defaultMaxPaidAttempts: number
    readonly maxBodyBytes: number
    readonly maxRequestBytes: number
    readonly maxFileBytes: number
    readonly sdkWaitMs: number
    readonly maxQueuedSubmissions: number
  }
  /** Headers of a stock SDK's request that go to the provider with it, in lower case. */
  readonly forwardHeaders: readonly string[]
  readonly simulated: { readonly latencyMs: number; readonly tokens: number; readonly failureRate: number }
  readonly lanes: readonly LaneConfig[]
  /** Whether any lane but the simulated one is on. */
  readonly providersOn: boolean
  readonly prices: readonly PriceConfig[]
  /** Where the command line finds its server, if the environment says so. */
  readonly client: { readonly url: string | null; readonly apiKey: Secret | null }
}

/** Freezes plain objects and lists all the way down; secrets freeze themselves. */
export function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    for (const member of Object.values(value)) deepFreeze(member)
  }
  return value
}
