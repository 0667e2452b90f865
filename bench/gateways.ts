import type { Child } from '@askonce/testkit'
import type { Bench, Logged } from './bench.ts'
import type { Provider } from './upstream.ts'

/** What stands between callers and a provider, and stores nothing. */
export interface Gateway {
  address: string
  child: Child
  /** What its requests say of where they go. */
  request: { path?: string; headers?: Record<string, string> }
}

const proxy = new URL('peers/proxy.ts', import.meta.url).pathname
const portkey = new URL('node_modules/@portkey-ai/gateway/build/start-server.js', import.meta.url).pathname
const onLoopback = new URL('peers/on-loopback.js', import.meta.url).href

async function addressOf({ line }: Logged): Promise<string> {
  return (JSON.parse(await line(/^\{"address"/, 60_000)) as { address: string }).address
}

/** Hands on bytes. */
export async function startProxy(bench: Bench, provider: Provider): Promise<Gateway> {
  const process = bench.spawn(proxy, { args: [provider.url] })
  return { address: await addressOf(process), child: process.child, request: {} }
}

/** Portkey's gateway as its package starts it, without its console: in production, no page and no stream of logs. */
export async function startPortkey(bench: Bench, provider: Provider): Promise<Gateway> {
  const process = bench.spawn(portkey, {
    args: ['--port=0', '--headless'],
    env: { NODE_ENV: 'production', NODE_OPTIONS: `--import ${onLoopback}` },
  })
  return {
    address: await addressOf(process),
    child: process.child,
    request: { headers: { 'x-portkey-provider': 'openai', 'x-portkey-custom-host': `${provider.url}/v1` } },
  }
}
