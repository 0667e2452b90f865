import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { apiKey, chat, startSystem, type System } from './system.ts'

const mib = 1024 * 1024
/** What deploy/ gives the API. */
const memoryLimit = 1024 * mib

/** The largest that a process has been. */
function peakOf(pid: number): number {
  const [, kib = '0'] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? []
  return Number(kib) * 1024
}

/** Submits and asks for the readiness, one after the other, until it is asked for its times, and then from the beginning. */
const probeSource = `
  const { parentPort, workerData: { address, apiKey, body } } = require('node:worker_threads')
  let times = []
  let wanted = null
  parentPort.on('message', (least) => { wanted = least })
  const ask = async (path, init) => {
    const started = performance.now()
    const response = await fetch(address + path, init)
    await response.text()
    if (!response.ok) throw new Error(path + ' answered ' + response.status)
    times.push(performance.now() - started)
  }
  const go = async () => {
    for (let index = 0; ; index += 1) {
      const headers = { authorization: 'Bearer ' + apiKey, 'content-type': 'application/json', 'idempotency-key': 'other ' + Math.random() }
      await ask('/v1/jobs', { method: 'POST', headers, body: JSON.stringify(body) })
      await ask('/readyz')
      if (wanted === null || times.length < wanted) continue
      parentPort.postMessage(times)
      times = []
      wanted = null
    }
  }
  void go()`

async function timesUntil(probe: Worker, least: number): Promise<number[]> {
  const told = once(probe, 'message')
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, no window
  probe.postMessage(least)
  const [times] = (await told) as [number[]]
  return times
}

function ninetyNinth(times: number[]): number {
  return times.toSorted((a, b) => a - b)[Math.floor(times.length * 0.99)] ?? 0
}

interface Case {
  name: string
  path?: string
  headers?: Record<string, string>
  body: () => string
  status: number
}

const embedding = (input: string): string =>
  `{"operation":"embeddings","request":{"model":"text-embedding-x","input":${input}}}`
const cases: Case[] = [
  { name: '10 MB of numbers', body: () => embedding(`[${'1,'.repeat(5_000_000)}1]`), status: 413 },
  { name: 'as many numbers as are accepted', body: () => embedding(`[${'1,'.repeat(990_000)}1]`), status: 202 },
  { name: '300,000 tokens', body: () => embedding(`[${'1234, '.repeat(299_999)}1]`), status: 202 },
  { name: 'deep nesting', body: () => embedding('['.repeat(10_000_000)), status: 400 },
  {
    name: 'half a million bad messages',
    body: () => `{"operation":"chat.completions","request":{"model":"x","messages":[${'{},'.repeat(400_000)}{}]}}`,
    status: 400,
  },
  { name: '10 MB of text', body: () => JSON.stringify(chat('text', 'x'.repeat(10_000_000))), status: 202 },
  { name: 'more than the body limit', body: () => ' '.repeat(34 * mib), status: 413 },
  {
    name: '32 MB of empty items',
    path: '/v1/jobs/bulk',
    body: () => `{"jobs":[${'{},'.repeat(11_000_000)}{}]}`,
    status: 400,
  },
  {
    name: '32 MB of empty lines',
    path: '/v1/jobs/bulk',
    headers: { 'content-type': 'application/x-ndjson' },
    body: () => '\n'.repeat(32 * mib),
    status: 400,
  },
  {
    name: 'a Prefer of quotes',
    headers: { prefer: '"'.repeat(15_000) },
    body: () => JSON.stringify(chat('prefer')),
    status: 202,
  },
  {
    name: 'an SDK call of numbers',
    path: '/openai/v1/embeddings',
    body: () => `{"model":"text-embedding-x","input":[${'1,'.repeat(5_000_000)}1]}`,
    status: 413,
  },
  {
    name: 'ten thousand ids and a million numbers',
    path: '/v1/jobs/bulk/cancel',
    body: () => `{"ids":[${'1,'.repeat(1_000_000)}1]}`,
    status: 413,
  },
]

// DESIGN.md §1.6: nobody waits because of somebody else; an outsized request, or an expensive read, of one never stops another.
// Not covered: answers, which have a test of their own; sizes above the limits of the deployment.
describe('FAULTS 14, outsized requests and costly reads (redis form)', () => {
  let system: System
  let address: string
  let pid: number
  beforeAll(async () => {
    system = await startSystem('redis')
    const { child, address: at } = await system.api()
    address = at
    pid = child.pid
  })
  afterAll(() => system.stop())

  /** How long somebody else's small submissions and looks at the readiness take while `run` goes on, and before: the 99th of a hundred. */
  async function othersMeanwhile(run: () => Promise<unknown>): Promise<{ before: number; meanwhile: number }> {
    // In a thread: what this one sends must not count.
    const probe = new Worker(probeSource, { eval: true, workerData: { address, apiKey, body: chat('other') } })
    const first = await timesUntil(probe, 20)
    await run()
    const all = await timesUntil(probe, 20)
    await probe.terminate()
    return { before: ninetyNinth(first), meanwhile: ninetyNinth(all) }
  }

  test.each(cases)('$name: an answer for its sender, and nobody else waits', async (given) => {
    const { path = '/v1/jobs', headers = {}, body, status, name } = given
    const bytes = Buffer.from(body())
    const send = async (round: number): Promise<number> => {
      const response = await fetch(`${address}${path}`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${apiKey}`,
          'content-type': 'application/json',
          'idempotency-key': `${name} ${round}`,
          ...headers,
        },
        body: bytes,
      })
      await response.text()
      return response.status
    }
    let statuses: number[] = []
    const { before, meanwhile } = await othersMeanwhile(async () => {
      statuses = await Promise.all([send(1), send(2)])
    })
    expect(statuses).toEqual([status, status])
    expect(meanwhile).toBeLessThan(Math.max(500, 5 * before))
    expect(peakOf(pid)).toBeLessThan(memoryLimit)
  })

  test('sixty thousand stored completions, read by twenty-four at once: others submit, and the server is ready', async () => {
    await system.sql(
      `with made as (insert into jobs (id, tenant_id, idempotency_key, fingerprint, operation, model, lane, priority, timeout_ms, ttl_seconds,
         deadline_seconds, state, on_uncertain, max_attempts, max_paid_attempts, run_at, deadline_at, metadata, response_status,
         answer_attempt, attempt, completed_at, expires_at, created_at)
       select gen_random_uuid(), 'default', 'stored ' || n, sha256('x'), 'chat.completions', 'm', 'l',  5, 1000, 1000, 1000,
         'succeeded', 'rerun', 5, 2, now(), now() + interval '1 hour', jsonb_build_object('run', n::text), 200, 1, 1,
         now(), now() + interval '1 hour', now()
       from generate_series(1, 60000) n
     returning *
     ),
     asked as (insert into requests (job_id, request) select id, '{"store":true}' from made)
     insert into answers (job_id, tenant_id, attempt, response, answer_id, findable) select id, tenant_id, 1, '{}', id, true from made`,
    )
    const read = async (index: number): Promise<number> => {
      // Every other one looks for what is nowhere, which no index can make cheap.
      const filter = index % 2 === 0 ? '' : '&metadata[run]=none'
      const response = await fetch(`${address}/openai/v1/chat/completions?limit=1${filter}`, {
        headers: { authorization: `Bearer ${apiKey}` },
      })
      await response.text()
      return response.status
    }
    let statuses: number[] = []
    const { before, meanwhile } = await othersMeanwhile(async () => {
      statuses = await Promise.all(Array.from({ length: 24 }, (_, index) => read(index)))
    })
    expect(statuses.filter((status) => ![200, 429].includes(status))).toEqual([])
    expect(meanwhile).toBeLessThan(Math.max(500, 5 * before))
  })
})
