import { setTimeout as sleep } from 'node:timers/promises'
import { Client, isSettled, type JobReply, type Submission } from './client.ts'
import { seededRandom, type Random } from './random.ts'
import { followRecord, openRecord } from './record.ts'

/**
 * A producer as a process of its own, which may be killed at any moment: its record is all that it remembers, and after a
 * start it submits everything again that it finds there. SIGTERM: no new keys; it waits until all of its keys have ended or
 * are held, writes down what the API says of each, and ends with code 0 (1: some did not come so far).
 *
 * Environment: CHAOS_NAME, CHAOS_SEED, CHAOS_RECORD (path), CHAOS_ADDRESSES (comma separated), CHAOS_API_KEY,
 * CHAOS_RATE (new keys a second), CHAOS_TIMEOUT_SECONDS (of a call), CHAOS_SETTLE_MS.
 */
const env = process.env
const need = (name: string): string => {
  const value = env[name]
  if (value === undefined) throw new Error(`${name} is not set`)
  return value
}
const name = need('CHAOS_NAME')
const seed = Number(need('CHAOS_SEED'))
const path = need('CHAOS_RECORD')
const rate = Number(need('CHAOS_RATE'))

const before = followRecord(path)()
const client = new Client({
  addresses: need('CHAOS_ADDRESSES').split(','),
  apiKey: need('CHAOS_API_KEY'),
  record: openRecord(path),
  callTimeoutSeconds: Number(need('CHAOS_TIMEOUT_SECONDS')),
})
const mine: Submission[] = before.flatMap((entry) =>
  entry.type === 'asked' ? [{ key: entry.key, policy: entry.policy, maxPaid: entry.maxPaid }] : [],
)
const random = seededRandom(seed + mine.length)
const stopping = new AbortController()
process.once('SIGTERM', () => stopping.abort())

/** Keys of which this process has not seen an end yet, oldest first, with the time of their invention. */
const unseen = new Map<string, { one: Submission; at: number }>()
for (const one of mine) unseen.set(one.key, { one, at: 0 })
/** Younger ones are mostly under way: asking for them would only cost. */
const askAfterMs = 1_500

/** How many requests may wait for their answer at once; with that many, no new keys until some are answered. */
const maxOpen = 60
let open = 0

function invent(count: number): Submission[] {
  const list = Array.from({ length: count }, (_, index): Submission => {
    const kind = random.next()
    const policy = kind < 0.6 ? 'rerun' : kind < 0.85 ? 'hold' : 'fail'
    return { key: `${name}-${mine.length + index}`, policy, maxPaid: random.integer(1, 2) }
  })
  mine.push(...list)
  for (const one of list) unseen.set(one.key, { one, at: performance.now() })
  return list
}

/** Runs one request beside the others. */
function start(run: () => Promise<unknown>): void {
  open += 1
  void run().finally(() => (open -= 1))
}

/** Submits until there is a 2xx: a key that was begun is never given up. */
async function insist(one: Submission, waitSeconds: number): Promise<void> {
  for (;;) {
    const job = await client.submit(one, waitSeconds)
    if (job !== null) return await lookAt(job)
    await sleep(200 + 300 * Math.random())
  }
}

async function insistOnMany(list: Submission[]): Promise<void> {
  let left = list
  while (left.length > 0) {
    const replies = await client.submitMany(left)
    for (const job of replies ?? []) await lookAt(job)
    const done = new Set(replies?.map(({ key }) => key))
    left = left.filter(({ key }) => !done.has(key))
    if (left.length > 0) await sleep(200 + 300 * Math.random())
  }
}

/** Notes that a key has come to an end. Somebody looks at some of the held jobs and accepts a second charge. */
async function lookAt(job: JobReply): Promise<void> {
  if (isSettled(job)) unseen.delete(job.key)
  if (job.state === 'uncertain' && Math.random() < 0.3) await client.consent(job)
}

/**
 * Asks for what has no end yet by submitting it again, as a producer does that keeps no ids. So an answer is seen soon after it
 * was stored, and the checker notices if another one takes its place.
 */
async function askAgain(): Promise<void> {
  const due = [...unseen.values()].filter(({ at }) => performance.now() - at > askAfterMs).slice(0, 300)
  if (due.length === 0) return
  const replies = await client.submitMany(due.map(({ one }) => one))
  for (const job of replies ?? []) await lookAt(job)
}

/** Everything from before the crash, again. */
async function repeatAll(list: readonly Submission[]): Promise<void> {
  for (let from = 0; from < list.length; from += 500) await insistOnMany(list.slice(from, from + 500))
}

/** Ten times a second: single keys, of which some wait for their answer, and an old key again; once a second a bulk, and what has no end yet. */
async function produce(): Promise<void> {
  const bulkShare = 0.5
  for (let tick = 0; !stopping.signal.aborted; tick += 1) {
    const singles = (rate * (1 - bulkShare)) / 10
    const count = Math.floor(singles) + (random.next() < singles % 1 ? 1 : 0)
    if (open < maxOpen && count > 0) await startSingles(count, random)
    if (open < maxOpen && tick % 10 === 0) {
      const list = invent(Math.round(rate * bulkShare))
      await client.plan(list)
      start(() => insistOnMany(list))
    }
    if (open < maxOpen && tick % 10 === 5 && unseen.size > 0) start(askAgain)
    const old = mine[random.integer(0, Math.max(0, mine.length - 1))]
    if (open < maxOpen && old !== undefined) start(() => insist(old, 0))
    await sleep(100)
  }
}

async function startSingles(count: number, from: Random): Promise<void> {
  const list = invent(count)
  await client.plan(list)
  for (const one of list) {
    const waitSeconds = from.next() < 0.3 ? 20 : 0
    start(() => insist(one, waitSeconds))
  }
}

const known = [...mine]
if (known.length > 0) start(() => repeatAll(known))
await produce()
const unsettled = await client.settle(mine, Number(need('CHAOS_SETTLE_MS')))
if (unsettled.length > 0) {
  process.stderr.write(
    `${unsettled.length} keys have not come to an end, among them ${unsettled.slice(0, 5).join(' ')}\n`,
  )
  process.exitCode = 1
}
