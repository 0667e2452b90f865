import { mkdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from '@askonce/embedded'
import { spawnNode, type Child, type LogLine } from '@askonce/testkit'
import pg from 'pg'
import { Supervised } from './supervised.ts'
import type { Teams } from './tenants.ts'

export const apiKey = 'chaos-key-0123456789'
/** Of a call to the provider: longer than any fault, so that a worker that thaws still takes the answer that came meanwhile. */
export const callTimeoutSeconds = 12
/** Each submits as many new keys as the others. */
export const producerCount = 4

const askonce = new URL('../../apps/cli/bin/askonce.js', import.meta.url).pathname
const upstreamMain = new URL('../../packages/testkit/src/upstream-main.ts', import.meta.url).pathname
const producerMain = new URL('producer-main.ts', import.meta.url).pathname

/** What both forms have. */
export interface Fleet {
  readonly directory: string
  /** Base addresses of the APIs. */
  readonly addresses: readonly string[]
  readonly producers: readonly Supervised[]
  /** Paths of the producers' records. */
  readonly records: readonly string[]
  readonly upstream: UpstreamProcess
  /** The tenants with limits. */
  readonly teams: Teams
  /** Every process of the product, and the producers. */
  readonly processes: () => readonly Supervised[]
  /** One statement on a connection of the harness's own, which no fault touches but the server's own absence. */
  readonly sql: <Row extends pg.QueryResultRow>(text: string, values?: unknown[]) => Promise<Row[]>
  /** The producers finish and end; true when all their keys have settled. */
  readonly finishProducers: () => Promise<boolean>
  readonly stop: () => Promise<void>
}

export interface UpstreamProcess {
  readonly url: string
  /** Calls that it would bill, in all and by key. */
  readonly calls: () => Promise<{ all: number; byKey: Map<string, number> }>
  /** Its log of the requests whose markers begin so, in the order of their arrival. */
  readonly log: (prefix: string) => Promise<LogLine[]>
  /** What it does with the next requests; an empty list: answers all of them. */
  readonly script: (steps: readonly unknown[]) => Promise<void>
  readonly child: Child
}

/** The counting upstream. It is never killed: it is the witness. */
export async function startUpstreamProcess(latencyMs: number): Promise<UpstreamProcess> {
  const child = spawnNode(upstreamMain, { env: { UPSTREAM_LATENCY_MS: String(latencyMs) } })
  const { url } = JSON.parse((await child.waitForLine(/"url"/, 60_000)).input) as { url: string }
  return {
    url,
    child,
    async calls() {
      const reply = await fetch(`${url}/__calls`)
      const { calls, by_marker } = (await reply.json()) as { calls: number; by_marker: Record<string, number> }
      return { all: calls, byKey: new Map(Object.entries(by_marker)) }
    },
    async log(prefix) {
      const reply = await fetch(`${url}/__log?prefix=${encodeURIComponent(prefix)}`)
      return (await reply.json()) as LogLine[]
    },
    async script(steps) {
      await fetch(`${url}/__script`, { method: 'POST', body: JSON.stringify(steps) })
    },
  }
}

/** A role of the real program. */
export function spawnRole(role: string, env: Record<string, string>): Child {
  return spawnNode(askonce, { args: [role], env: { ASKONCE_BOOTSTRAP_KEY: apiKey, LOG_LEVEL: 'warn', ...env } })
}

export function providerEnv(upstream: UpstreamProcess): Record<string, string> {
  return { OPENAI_BASE_URL: `${upstream.url}/v1`, OPENAI_API_KEY: 'chaos-provider-key' }
}

export async function makeDirectory(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'askonce-chaos-'))
}

export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>()
  while (ports.size < count) ports.add(await freePort())
  return [...ports]
}

export interface ProducerOptions {
  directory: string
  addresses: readonly string[]
  seed: number
  /** New keys a second, of all producers together. */
  rate: number
  teams: Teams
  settleMs: number
}

/** Two of the tenant without limits, and one of each with limits. */
export function startProducers(options: ProducerOptions): { producers: Supervised[]; records: string[] } {
  const { directory, addresses, seed, rate, teams, settleMs } = options
  mkdirSync(join(directory, 'records'), { recursive: true })
  const identities = [
    { name: 'p1', key: apiKey },
    { name: 'p2', key: apiKey },
    ...teams.list.map((team) => ({ name: team.tenant, key: team.apiKey })),
  ]
  const records = identities.map(({ name }) => join(directory, 'records', `${name}.ndjson`))
  const producers = identities.map(({ name, key }, index) => {
    const env = {
      CHAOS_NAME: name,
      CHAOS_SEED: String(seed * 100 + index),
      CHAOS_RECORD: records[index] ?? '',
      CHAOS_ADDRESSES: addresses.join(','),
      CHAOS_API_KEY: key,
      CHAOS_RATE: String(rate / producerCount),
      CHAOS_TIMEOUT_SECONDS: String(callTimeoutSeconds),
      CHAOS_SETTLE_MS: String(settleMs),
    }
    return new Supervised(name, () => spawnNode(producerMain, { env }))
  })
  return { producers, records }
}

/** Lets the producers settle all their keys; they have `settleMs` for it, and a little more. */
export async function finish(producers: readonly Supervised[], settleMs: number): Promise<boolean> {
  const ends = await Promise.all(producers.map((producer) => producer.stop(settleMs + 60_000)))
  return ends.every(({ code }) => code === 0)
}

/** A connection that is made anew for each statement: the server comes and goes. */
export async function query<Row extends pg.QueryResultRow>(
  url: string,
  text: string,
  values: unknown[] = [],
): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 3_000, query_timeout: 30_000 })
  // A server that dies under the statement rejects it; the connection's own event adds nothing.
  client.on('error', () => undefined)
  try {
    await client.connect()
    return (await client.query<Row>(text, values)).rows
  } finally {
    await client.end().catch(() => undefined)
  }
}

export async function removeDirectory(directory: string): Promise<void> {
  await rm(directory, { recursive: true, force: true })
}
