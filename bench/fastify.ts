import type { Child } from '@askonce/testkit'
import type { Bench } from './bench.ts'
import { apiKey } from './load/spec.ts'
import type { Sample } from './peers/fastify.ts'

const program = new URL('peers/fastify.ts', import.meta.url).pathname

/** Not part of the answer: each server writes its own. */
const ofTheConnection = new Set([
  'connection',
  'content-length',
  'date',
  'keep-alive',
  'transfer-encoding',
  'content-encoding',
])

/** Asks once, and keeps what a bare server has to answer to send the same bytes. */
export async function takeSample(
  url: string,
  init: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Sample> {
  const response = await fetch(url, { ...init, headers: { ...init.headers, authorization: `Bearer ${apiKey}` } })
  const body = await response.text()
  if (!response.ok) throw new Error(`${url} answered ${response.status}: ${body}`)
  const headers = Object.fromEntries([...response.headers].filter(([name]) => !ofTheConnection.has(name)))
  return { status: response.status, headers, body }
}

export interface Floor {
  address: string
  processes: readonly Child[]
  stop(): Promise<void>
}

/** Starts a bare Fastify that gives this answer to every request, and resolves with its address. */
export async function startFastify(bench: Bench, sample: Sample): Promise<Floor> {
  const { child, line } = bench.spawn(program, { args: [await bench.file(sample)] })
  const { address } = JSON.parse(await line(/"address"/, 60_000)) as { address: string }
  return { address, processes: [child], stop: async () => void (await child.kill()) }
}
