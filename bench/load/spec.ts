/** Of the Askonce that is measured, and of its tenant `default`. */
export const apiKey = 'bench-key-0123456789'

/** The API key of another tenant. */
export function apiKeyOf(tenant: string): string {
  return `${apiKey}-${tenant}`
}

/** What the load generator sends. Keys are `<prefix>-<n>`, n from 0. */
export type LoadRequest =
  /** POST /v1/jobs, each with a new key. */
  | { kind: 'submit'; prefix: string; waitSeconds?: number; delaySeconds?: number; model?: string; tenants?: Tenants }
  /** POST /v1/jobs with `count` known keys, over and over: the first, and then every so-manieth. */
  | { kind: 'replay'; prefix: string; count: number; every?: number }
  /** POST /v1/jobs/bulk, each with `items` new keys. */
  | { kind: 'bulk'; prefix: string; items: number; delaySeconds?: number; model?: string; tenants?: Tenants }
  /** GET of these paths, over and over. */
  | { kind: 'get'; paths: readonly string[] }
  /** POST of a chat completion to a provider, or to what stands before one, each with a new key and a new prompt. */
  | { kind: 'complete'; prefix: string; path?: string; headers?: Record<string, string> }

/** They submit in turns, in this order; left out: the tenant of the key in {@link LoadSpec}. */
export type Tenants = readonly string[]

export interface LoadSpec {
  address: string
  apiKey: string
  connections: number
  warmUpMs: number
  durationMs: number
  /** Requests a second, sent on time whatever is still under way; null: each connection sends as soon as it is answered. */
  rate: number | null
  /** No more requests than this, warm-up included; null: until the time is over. */
  limit: number | null
  request: LoadRequest
}

/** What was seen between the end of the warm-up and the end. */
export interface LoadResult {
  /** Answers a second with a status below 300. */
  perSecond: number
  /** All such answers since the start, warm-up included. */
  accepted: number
  /** Other answers and broken requests since the start, by status; 0: broken. */
  refused: Record<string, number>
  /** Milliseconds; of an open load from the time at which the request was due. */
  p50: number
  p99: number
  max: number
  /** Of the generator itself, as a share of one core. */
  cpuShare: number
}

/** The prompt of the nth request, about 200 bytes long. */
export function promptOf(prefix: string, n: number): string {
  return `Sum up, in one sentence, what a reader should remember of document ${prefix}-${n}. `.padEnd(
    200,
    'lorem ipsum ',
  )
}

/** The submission's body, and what peers store as their payload. */
export function submissionOf(prefix: string, n: number, model = 'simulated/small'): object {
  const messages = [{ role: 'user', content: promptOf(prefix, n) }]
  return { operation: 'chat.completions', request: { model, messages } }
}
