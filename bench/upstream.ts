import type { Child } from '@askonce/testkit'
import type { Bench } from './bench.ts'

const program = new URL('../packages/testkit/src/upstream-main.ts', import.meta.url).pathname

export interface Provider {
  child: Child
  url: string
  /** For a worker or an API: calls go to it. */
  env: Record<string, string>
}

/** The model that goes to {@link Provider}. */
export const upstreamModel = 'gpt-test'

/** A stand-in for a provider, as a process, that answers each call after `latencyMs`. */
export async function startProvider(bench: Bench, latencyMs: number): Promise<Provider> {
  const { child, line } = bench.spawn(program, { env: { UPSTREAM_LATENCY_MS: String(latencyMs) } })
  const { url } = JSON.parse(await line(/"url"/, 60_000)) as { url: string }
  return { child, url, env: { OPENAI_BASE_URL: `${url}/v1`, OPENAI_API_KEY: 'bench-provider-key' } }
}
