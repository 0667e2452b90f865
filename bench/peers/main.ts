import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { submissionOf } from '../load/spec.ts'
import { openBullmq } from './bullmq.ts'
import { openDbos } from './dbos.ts'
import { openGraphileWorker } from './graphile-worker.ts'
import {
  peerAnswer,
  type Peer,
  type PeerJob,
  type PeerResult,
  type PeerSpec,
  type PeerTask,
  type Progress,
} from './peer.ts'
import { openPgBoss } from './pg-boss.ts'

/** A peer in a process of its own. Its argument is a file with a {@link PeerSpec}; its last line is a {@link PeerResult}. */
const spec = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')) as PeerSpec

/** Longest time without progress. */
const stuckMs = 60_000

function open({ peer, databaseUrl, redisUrl }: PeerSpec): Promise<Peer> {
  switch (peer) {
    case 'bullmq-redis':
      return openBullmq({ kind: 'redis', url: redisUrl })
    case 'bullmq-postgres':
      return openBullmq({ kind: 'postgres', url: databaseUrl })
    case 'pg-boss':
      return openPgBoss(databaseUrl)
    case 'graphile-worker':
      return openGraphileWorker(databaseUrl)
    case 'dbos':
      return openDbos(databaseUrl)
  }
}

function jobAt(prefix: string, n: number): PeerJob {
  return { key: `${prefix}-${n}`, payload: submissionOf(prefix, n) }
}

/** Keeps `concurrency` calls under way and counts the jobs of those that end between the warm-up and the end. */
async function atOnce(
  task: Extract<PeerTask, { kind: 'submit' | 'bulk' }>,
  perCall: number,
  call: (first: number) => Promise<void>,
): Promise<PeerResult> {
  const countFrom = performance.now() + task.warmUpMs
  const countTo = countFrom + task.durationMs
  let next = 0
  let count = 0
  const one = async (): Promise<void> => {
    while (performance.now() < countTo) {
      const first = next
      next += perCall
      await call(first)
      const now = performance.now()
      if (now >= countFrom && now < countTo) count += perCall
    }
  }
  await Promise.all(Array.from({ length: task.concurrency }, one))
  return { count, seconds: task.durationMs / 1000 }
}

async function fill(peer: Peer, prefix: string, count: number, submitMany: Peer['submitMany']): Promise<PeerResult> {
  const startedAt = performance.now()
  const chunk = submitMany === null ? 50 : 1_000
  for (let first = 0; first < count; first += chunk) {
    const jobs = Array.from({ length: Math.min(chunk, count - first) }, (_, index) => jobAt(prefix, first + index))
    if (submitMany === null) await Promise.all(jobs.map((job) => peer.submit(job)))
    else await submitMany(jobs)
  }
  return { count, seconds: (performance.now() - startedAt) / 1000 }
}

/** From the first job that is started to the last one whose answer is recorded. */
async function drain(peer: Peer, task: Extract<PeerTask, { kind: 'drain' }>): Promise<PeerResult> {
  const { count, concurrency, limitMs = Infinity, pollMs = 50 } = task
  let firstAt = Number.NaN
  await peer.work(concurrency, peerAnswer, () => {
    if (Number.isNaN(firstAt)) firstAt = performance.now()
  })
  let finished = 0
  const beganAt = performance.now()
  let movedAt = beganAt
  const progress: Progress[] = []
  while (finished < count && performance.now() - beganAt < limitMs) {
    await sleep(pollMs)
    const now = await peer.finished()
    if (now > finished) movedAt = performance.now()
    if (performance.now() - movedAt > stuckMs) throw new Error(`stuck: ${now} of ${count} jobs are finished`)
    finished = now
    progress.push({ seconds: (performance.now() - firstAt) / 1000, finished })
  }
  return { count: finished, seconds: (performance.now() - firstAt) / 1000, progress }
}

function run(peer: Peer, task: PeerTask): Promise<PeerResult> {
  switch (task.kind) {
    case 'submit':
      return atOnce(task, 1, (n) => peer.submit(jobAt(task.prefix, n)))
    case 'bulk': {
      const { submitMany } = peer
      if (submitMany === null) throw new Error(`${spec.peer} has no way to add many jobs`)
      return atOnce(task, task.items, (first) =>
        submitMany(Array.from({ length: task.items }, (_, index) => jobAt(task.prefix, first + index))),
      )
    }
    case 'fill':
      return fill(peer, task.prefix, task.count, peer.submitMany)
    case 'fill-singly':
      return fill(peer, task.prefix, task.count, null)
    case 'drain':
      return drain(peer, task)
  }
}

const peer = await open(spec)
await peer.setUp()
const result = await run(peer, spec.task)
process.stdout.write(`${JSON.stringify({ result })}\n`)
await peer.close()
// Libraries keep timers and connections; the answer is out.
process.exit(0)
