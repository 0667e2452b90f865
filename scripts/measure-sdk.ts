import { once } from 'node:events'
import { Agent, request as httpRequest } from 'node:http'
import { cpus, totalmem } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { apiKey, startSystem, type System } from '../test/fault/system.ts'

/**
 * What Askonce adds to a call of a stock SDK: a keyed chat completion through it beside the same call to the upstream itself, which takes
 * 50 ms. API, worker, janitor and upstream are processes, Postgres and Redis real. Direct calls and those through Askonce take turns, so that
 * whatever else the machine does falls on both. Ends with 1 when a limit is missed.
 */
const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '20' }, rate: { type: 'string', default: '20' } },
})
const seconds = Number(values.seconds)
const rate = Number(values.rate)
const upstreamMs = 50
const limits = { p50: 15, p99: 60, firstTokenP50: 20 }

/** Kept open, as every SDK does. */
const agent = new Agent({ keepAlive: true, maxSockets: 256 })

interface Target {
  url: string
  headers: Record<string, string>
}

interface Timing {
  /** Milliseconds until the first byte of the body, and until the last. */
  firstMs: number
  lastMs: number
}

async function post(target: Target, body: object): Promise<Timing> {
  const startedAt = performance.now()
  const request = httpRequest(target.url, {
    agent,
    method: 'POST',
    headers: { 'content-type': 'application/json', ...target.headers },
  })
  request.end(JSON.stringify(body))
  const [response] = (await once(request, 'response')) as [AsyncIterable<Buffer> & { statusCode: number }]
  let firstMs = 0
  for await (const _ of response) firstMs ||= performance.now() - startedAt
  if (response.statusCode !== 200) throw new Error(`${target.url}: ${response.statusCode}`)
  return { firstMs, lastMs: performance.now() - startedAt }
}

/** Calls at an even pace, by turns to each target; the timings of each. */
async function interleave(targets: Target[], body: (index: number) => object, count: number): Promise<Timing[][]> {
  const startedAt = performance.now()
  const timings: Promise<Timing>[][] = targets.map(() => [])
  for (let index = 0; index < count; index += 1) {
    for (const [turn, target] of targets.entries()) {
      const at = startedAt + ((index + turn / targets.length) * 1000) / rate
      await sleep(Math.max(0, at - performance.now()))
      const headers = { ...target.headers, 'idempotency-key': `measured/${startedAt}/${index}` }
      timings[turn]?.push(post({ ...target, headers }, body(index)))
    }
  }
  return Promise.all(timings.map((list) => Promise.all(list)))
}

function percentile(numbers: readonly number[], share: number): number {
  const sorted = numbers.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

function bodyOf(stream: boolean): (index: number) => object {
  return (index) => ({
    model: 'gpt-4o-mini',
    stream,
    messages: [{ role: 'user', content: `Question ${index} of ${stream ? 'the streamed' : 'the plain'} ones` }],
  })
}

function last(timings: Timing[]): number[] {
  return timings.map(({ lastMs }) => lastMs)
}

function first(timings: Timing[]): number[] {
  return timings.map(({ firstMs }) => firstMs)
}

async function measure(system: System): Promise<boolean> {
  const { address } = await system.api({ LOG_LEVEL: 'info' })
  const [worker] = await Promise.all([system.started('worker'), system.started('janitor')])
  const direct = { url: `${system.upstream.url}/v1/chat/completions`, headers: {} }
  const through = { url: `${address}/openai/v1/chat/completions`, headers: { authorization: `Bearer ${apiKey}` } }
  // Code is compiled and connections are open before anything counts.
  for (const stream of [false, true]) await interleave([direct, through], bodyOf(stream), rate * 2)
  const [plainDirect = [], plain = []] = await interleave([direct, through], bodyOf(false), seconds * rate)
  const [streamDirect = [], stream = []] = await interleave([direct, through], bodyOf(true), (seconds / 2) * rate)

  const rows: [string, number[], number[], number, number][] = [
    ['chat completion, p50', last(plainDirect), last(plain), 0.5, limits.p50],
    ['chat completion, p99', last(plainDirect), last(plain), 0.99, limits.p99],
    ['first streamed token, p50', first(streamDirect), first(stream), 0.5, limits.firstTokenP50],
  ]
  const [cpu] = cpus()
  console.log(`${cpus().length} × ${cpu?.model}, ${Math.round(totalmem() / 2 ** 30)} GiB, Node ${process.version}`)
  console.log(
    `${rate} requests/s, upstream ${upstreamMs} ms, Redis form, ${plain.length} plain and ${stream.length} streamed\n`,
  )
  console.log('| milliseconds | direct | through | added | limit |  |\n|---|---|---|---|---|---|')
  const met = rows.map(([name, before, after, share, limit]) => {
    const [without, withIt] = [percentile(before, share), percentile(after, share)]
    const added = withIt - without
    const cells = [without, withIt, added].map((number) => number.toFixed(1)).join(' | ')
    console.log(`| ${name} | ${cells} | ${limit} | ${added <= limit ? 'met' : 'MISSED'} |`)
    return added <= limit
  })
  const ended = worker.stdout
    .filter((line) => line.includes('"event":"attempt.ended"'))
    .map((line) => JSON.parse(line) as { queue_ms: number; duration_ms: number })
  const stage = (name: 'queue_ms' | 'duration_ms'): number =>
    percentile(
      ended.map((line) => line[name]),
      0.5,
    )
  console.log(
    `\nIn the middle a claim began ${stage('queue_ms')} ms after its submission, and ended ${stage('duration_ms')} ms later with the stored answer.`,
  )
  return met.every(Boolean)
}

const system = await startSystem('redis', { UPSTREAM_LATENCY_MS: String(upstreamMs) })
try {
  if (!(await measure(system))) process.exitCode = 1
} finally {
  agent.destroy()
  await system.stop()
}
