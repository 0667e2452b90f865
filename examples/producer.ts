// A producer that may crash at any moment. It submits every line of its work under a stable key and appends the
// answers to a file; started again, it submits everything again, and only what has no answer yet is run.
//
//   ASKONCE_API_KEY=… node --import tsx examples/producer.ts --crash-after 12
//   ASKONCE_API_KEY=… node --import tsx examples/producer.ts
//
// No dependencies: Node ≥ 20.19 with tsx, or plain node from 22.18 on.
import { createHash } from 'node:crypto'
import { appendFileSync, existsSync, readFileSync, truncateSync } from 'node:fs'
import { basename } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const usage = `usage: node --import tsx examples/producer.ts [options] [FILE]

Submits each line of FILE (JSONL, the forms of examples/README.md) and appends the answers to a file.
Run it again after a crash: finished keys are replayed, running ones attached, only missing ones run.
FILE is examples/prompts.jsonl unless given, and then only its first 40 lines are used.

  --out FILE               append answers here (default producer-ts.answers.jsonl)
  --limit N                use the first N lines only
  --concurrency N          lines in flight at once (default 8)
  --crash-after N          kill -9 this process after N new lines in the output, to see a resume
  --give-up-after SECONDS  stop retrying a line after this long (default 600)
  --help                   print this text

ASKONCE_API_KEY  the key npm start prints (required)
ASKONCE_URL      where the server is (default http://127.0.0.1:8787)

Exit code: 0 every line answered, 1 some failed, 2 wrong usage.`

type Json = Record<string, unknown>
type Work = { lineNumber: number; key: string; submission: Json }
type Job = { id: string; state: string; response: unknown; error: unknown }
type Reply = { status: number; headers: Headers; body: Json }
type Outcome = 'new' | 'attached' | 'replayed'

const waitSeconds = 30
const requestDeadlineMs = 20_000
const firstBackoffMs = 500
const longestBackoffMs = 20_000
const operations: Record<string, string> = {
  '/v1/chat/completions': 'chat.completions',
  '/v1/responses': 'responses',
  '/v1/embeddings': 'embeddings',
}

/** Thrown for what asking again cannot mend. */
class Refused extends Error {}

function usageError(message: string): never {
  console.error(`${message} (--help says more)`)
  process.exit(2)
}

function positive(name: string, text: string): number {
  const n = Number(text)
  return Number.isSafeInteger(n) && n > 0 ? n : usageError(`${name} must be a whole number above 0, not "${text}"`)
}

function readOptions() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        out: { type: 'string', default: 'producer-ts.answers.jsonl' },
        limit: { type: 'string' },
        concurrency: { type: 'string', default: '8' },
        'crash-after': { type: 'string' },
        'give-up-after': { type: 'string', default: '600' },
        help: { type: 'boolean', default: false },
      },
    })
    if (values.help) {
      console.log(usage)
      process.exit(0)
    }
    if (positionals.length > 1) usageError('one FILE at a time')
    const limit = values.limit ?? (positionals[0] === undefined ? '40' : undefined)
    return {
      file: positionals[0] ?? fileURLToPath(new URL('prompts.jsonl', import.meta.url)),
      out: values.out,
      limit: limit === undefined ? Infinity : positive('--limit', limit),
      concurrency: positive('--concurrency', values.concurrency),
      crashAfter: values['crash-after'] === undefined ? Infinity : positive('--crash-after', values['crash-after']),
      giveUpAfterMs: positive('--give-up-after', values['give-up-after']) * 1000,
    }
  } catch (error) {
    return usageError(messageOf(error))
  }
}

const options = readOptions()
const apiKey = process.env['ASKONCE_API_KEY'] ?? usageError('ASKONCE_API_KEY is not set')
const server = (process.env['ASKONCE_URL'] ?? 'http://127.0.0.1:8787').replace(/\/+$/, '')
if (!/^https?:/.test(server) || !URL.canParse(server)) usageError(`ASKONCE_URL is not an http address: ${server}`)

function parseObject(text: string): Json {
  const value: unknown = JSON.parse(text)
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Refused('not a JSON object')
  return { ...value }
}

function messageOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  // fetch says only "fetch failed"; what happened is in its cause.
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message
}

/** The submission that a line of work stands for, whichever of the three forms it has. */
function toSubmission(line: Json): Json {
  if (line['prompt'] !== undefined) {
    const system = line['system'] === undefined ? [] : [{ role: 'system', content: line['system'] }]
    const messages = [...system, { role: 'user', content: line['prompt'] }]
    return { operation: 'chat.completions', request: { model: line['model'], messages } }
  }
  if (line['body'] !== undefined) {
    const operation = operations[String(line['url'])]
    if (operation === undefined) throw new Refused(`unknown url ${JSON.stringify(line['url'])}`)
    return { operation, request: line['body'] }
  }
  const { key: _ownKey, ...submission } = line
  return submission
}

/**
 * The key comes from the content of the line: the same line has the same key in every run, wherever it stands in
 * the file, and an edited line is a new question. A random key or a counter would pay again after each crash.
 */
function stableKey(line: string): string {
  const name = basename(options.file)
    .replace(/[^\x21-\x7e]/g, '_')
    .slice(0, 100)
  return `producer-ts/${name}/${createHash('sha256').update(line).digest('hex').slice(0, 32)}`
}

/**
 * Keys already in the output file. A last line cut short by a crash is removed: its answer is asked for again.
 * A file that is not such an output is left alone, or a slip in --out would cut somebody's text.
 */
function readAnswered(): Set<string> {
  if (!existsSync(options.out)) return new Set()
  const bytes = readFileSync(options.out)
  const whole = bytes.subarray(0, bytes.lastIndexOf(0x0a) + 1)
  const rest = bytes.subarray(whole.length).toString('utf8')
  const lines = whole.toString('utf8').split('\n').filter(Boolean)
  const start = '{"key":"producer-ts/'
  if (![...lines, rest].every((line) => line.startsWith(start) || start.startsWith(line))) {
    usageError(`${options.out} exists and is not an output of this program`)
  }
  if (rest !== '') truncateSync(options.out, whole.length)
  return new Set(lines.map((line) => String(parseObject(line)['key'])))
}

function readLines(): string[] {
  try {
    return readFileSync(options.file, 'utf8').split('\n').slice(0, options.limit)
  } catch (error) {
    return usageError(messageOf(error))
  }
}

/** One HTTP request with a deadline on everything, body included. Throws when no whole reply came. */
async function call(
  method: 'GET' | 'POST',
  path: string,
  headers: Record<string, string>,
  submission?: Json,
): Promise<Reply> {
  const response = await fetch(server + path, {
    method,
    headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/json', ...headers },
    ...(submission === undefined ? {} : { body: JSON.stringify(submission) }),
    signal: AbortSignal.timeout(requestDeadlineMs + (method === 'GET' ? waitSeconds * 1000 : 0)),
  })
  const text = await response.text()
  const reply: Reply = { status: response.status, headers: response.headers, body: {} }
  try {
    reply.body = parseObject(text)
  } catch {
    // A proxy's own error page: its status is all there is to go by.
    if (response.ok) throw new Refused(`${server} answers ${response.status} without JSON: is this an Askonce server?`)
  }
  return reply
}

/** What the server says comes first (x-should-retry, then retryable); the status decides where it says nothing. */
function mayRetry({ status, headers, body }: Reply): boolean {
  const said = headers.get('x-should-retry')
  if (said === 'true' || said === 'false') return said === 'true'
  if (typeof body['retryable'] === 'boolean') return body['retryable']
  return status === 429 || status >= 500
}

/** Full jitter, doubling to a cap, so that many producers do not come back together. Retry-After is the minimum. */
function backoffMs(failures: number, retryAfter: string | null): number {
  const jitterMs = Math.random() * Math.min(longestBackoffMs, firstBackoffMs * 2 ** failures)
  const askedMs = Number(retryAfter ?? 0) * 1000
  return askedMs > 0 ? askedMs + Math.min(jitterMs, 1000) : jitterMs
}

/**
 * Asks until there is a 2xx, with the same key each time: a request whose reply was lost may well have been
 * accepted, and then the next one attaches to that job. Gives up at the line's deadline.
 */
async function persist(what: string, giveUpAt: number, attempt: () => Promise<Reply>): Promise<Reply> {
  for (let failures = 0; ; failures++) {
    let problem: string
    let retryAfter: string | null = null
    try {
      const reply = await attempt()
      if (reply.status < 300 || reply.status === 404) return reply
      const { code, detail } = reply.body
      problem = [`${reply.status}`, code, detail].filter((part) => typeof part === 'string').join(' ')
      if (!mayRetry(reply)) throw new Refused(problem)
      retryAfter = reply.headers.get('retry-after')
    } catch (error) {
      if (error instanceof Refused) throw error
      problem = messageOf(error)
    }
    const pauseMs = backoffMs(failures, retryAfter)
    if (performance.now() + pauseMs > giveUpAt) throw new Refused(`gave up: ${problem}`)
    console.error(`${what}: ${problem}; again in ${(pauseMs / 1000).toFixed(1)} s`)
    await sleep(pauseMs)
  }
}

function readJob({ id, state, response, error }: Json): Job {
  if (typeof id === 'string' && typeof state === 'string') return { id, state, response, error }
  throw new Refused(`${server} answers without a job: is this an Askonce server?`)
}

/** Submits one line and waits until its job has ended. Throws Refused when there will be no answer by itself. */
async function ask(work: Work): Promise<{ outcome: Outcome; job: Job }> {
  const giveUpAt = performance.now() + options.giveUpAfterMs
  const what = `line ${work.lineNumber}`
  let outcome: Outcome | undefined
  while (performance.now() < giveUpAt) {
    // Submitted without Prefer: wait on purpose: 200 then means that the answer was there already, 202 that it was not.
    const submit = { 'idempotency-key': work.key }
    let reply = await persist(what, giveUpAt, () => call('POST', '/v1/jobs', submit, work.submission))
    if (reply.status === 404) throw new Refused(`404 from ${server}: is this an Askonce server?`)
    const started = reply.headers.get('idempotent-replayed') !== 'true'
    outcome ??= started ? 'new' : reply.status === 200 ? 'replayed' : 'attached'
    while (reply.status !== 404) {
      const job = readJob(reply.body)
      if (job.state === 'succeeded') return { outcome, job }
      if (job.state === 'uncertain') {
        throw new Refused(`job ${job.id} is held: it may have been paid. POST its /retry with consent, or its /fail`)
      }
      if (job.state === 'failed' || job.state === 'cancelled') {
        throw new Refused(`job ${job.id} ${job.state}: ${JSON.stringify(job.error)}`)
      }
      if (performance.now() > giveUpAt) throw new Refused(`gave up: job ${job.id} is still ${job.state}`)
      const wait = { prefer: `wait=${waitSeconds}` }
      reply = await persist(what, giveUpAt, () => call('GET', `/v1/jobs/${job.id}`, wait))
    }
    // 404 while waiting: expired or deleted meanwhile. The key is free, so the question is asked anew.
  }
  throw new Refused('gave up: its job was deleted again and again')
}

const counts = { new: 0, attached: 0, replayed: 0, failed: 0 }
const answered = readAnswered()
const found = answered.size
const lines = readLines().entries()

/** Appends an answer that the file does not have yet. Errors are not caught: without its output this must not go on. */
function append(key: string, job: Job): void {
  if (answered.has(key)) return
  // One write per answer, whole lines. No fsync: what a power cut takes from this file, the server still has.
  appendFileSync(options.out, `${JSON.stringify({ key, job_id: job.id, response: job.response })}\n`)
  answered.add(key)
  if (answered.size - found < options.crashAfter) return
  console.error(`killing this process after ${options.crashAfter} answers; run it again without --crash-after`)
  process.kill(process.pid, 'SIGKILL')
}

/** Takes lines until none is left; several of these run side by side and share the iterator. */
async function runLines(): Promise<void> {
  for (const [index, line] of lines) {
    if (line.trim() === '') continue
    const lineNumber = index + 1
    const key = stableKey(line)
    let answer: Awaited<ReturnType<typeof ask>>
    try {
      answer = await ask({ lineNumber, key, submission: toSubmission(parseObject(line)) })
    } catch (error) {
      counts.failed++
      console.error(`line ${lineNumber}: ${messageOf(error)}`)
      continue
    }
    counts[answer.outcome]++
    append(key, answer.job)
  }
}

await Promise.all(Array.from({ length: options.concurrency }, runLines))
const { new: ran, attached, replayed, failed } = counts
console.log(`new ${ran}  attached ${attached}  replayed ${replayed}  failed ${failed}  (${options.out})`)
process.exitCode = failed > 0 ? 1 : 0
