import { hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { version, type Config } from '@askonce/config'
import { jobError } from '@askonce/core'
import { openWaker, type QueueConnection } from '@askonce/queue'
import {
  batchesChannel,
  failForgotten,
  failOverdue,
  notify,
  openDatabase,
  readDatabaseId,
  readOverdueAttempts,
  reclaimAttempts,
  Session,
  settledChannel,
  StoreProbe,
  sweepsOf,
  type Swept,
} from '@askonce/store'
import { errorReason, Outage, tellQueueShared, type Log, type Metrics } from '@askonce/telemetry'
import { within } from '@askonce/timing'
import { BatchDriver } from './batches/driver.ts'
import { startLoop, type Loop, type LoopOptions } from './loop.ts'
import { watchEveryMs, WorkerWatch } from './watch-workers.ts'

export interface JanitorContext {
  config: Config
  /** Of the server itself. */
  databaseUrl: string
  /** Of a pooler in transaction mode for the statements that it can carry; null or absent: none. */
  poolerUrl?: string | null
  queue: QueueConnection
  log: Log
  metrics: Metrics
}

export interface Janitor {
  /** Why its loops cannot work at this moment; empty: they can. */
  problems(): Promise<string[]>
  stop(): Promise<void>
}

/** A stop waits no longer for a sweep that rests. */
const longestRestMs = 1_000
const batch = 500
/** A worker that is declared dead wakes the reclaim; this is for what another janitor declared, and did not live to reclaim. */
const reclaimEveryMs = 2_000
/** How long rounds under way may take when the janitor stops. */
const roundEndsMs = 5_000
/** A server that does not answer must not keep the process from its end. */
const closeLimitMs = 2_000
/** A worker ends its call for its timeout; this long after that something is wrong with it. */
const overdueGraceMs = 60_000

/** Starts the loops. Any number of janitors run side by side; correctness is in the statements' predicates. */
export function startJanitor(context: JanitorContext): Promise<Janitor> {
  const { config, databaseUrl, poolerUrl = null, queue, log, metrics } = context
  const { db, close } = openDatabase({
    url: databaseUrl,
    poolerUrl,
    name: 'askonce janitor',
    poolSize: config.database.poolSize,
  })
  const probe = new StoreProbe(db)
  const queueOutage = new Outage(log, 'queue')
  const waker = openWaker(queue, {
    onError: () => undefined,
    onSent: (error) => (error === null ? queueOutage.worked() : queueOutage.failed(error)),
    databaseId: () => readDatabaseId(databaseUrl),
    onShared: (reason) => tellQueueShared(log, reason),
  })
  const uncertainTtlSeconds = Math.round(config.limits.uncertainTtlMs / 1000)
  // One session: what it hears of ends with it, and the watch knows that the server went on.
  const listener = new Session({
    url: databaseUrl,
    name: 'askonce janitor listener',
    channels: [batchesChannel, settledChannel],
    onNotification: (channel, payload) => {
      if (channel === batchesChannel) return drive.wake()
      batches.hint(payload.split(','))
      results.wake()
    },
    queryTimeoutMs: 5_000,
  })
  const workers = new WorkerWatch(listener.db, config.worker.leaseMs, log)
  const batches = new BatchDriver({ db, config, waker, log })
  const loops: Loop[] = []
  const loop = (name: string, everyMs: LoopOptions['everyMs'], round: () => Promise<boolean>): Loop => {
    const started = startLoop({ name, everyMs, round, log, metrics })
    loops.push(started)
    return started
  }

  const reclaim = loop('reclaim', reclaimEveryMs, async () => {
    const ended = await reclaimAttempts(db, JSON.stringify(jobError('worker_lost')), batch, uncertainTtlSeconds)
    const reclaimed = ended.filter(({ recorded }) => recorded)
    metrics.reclaimed.inc(reclaimed.length)
    for (const { jobId, attempt, tenant, lane, state } of reclaimed) {
      metrics.attempts.inc({ outcome: 'lost', billing: 'maybe', lane })
      log.event('attempt.reclaimed', {
        tenant,
        job_id: jobId,
        attempt,
        lane,
        state,
        outcome: 'lost',
        error_code: 'worker_lost',
      })
    }
    const settled = reclaimed.filter(({ movedTo }) => movedTo !== null && movedTo !== 'queued')
    await notify(
      db,
      settledChannel,
      settled.map(({ jobId }) => jobId),
    )
    waker.wake([...new Set(reclaimed.filter(({ movedTo }) => movedTo === 'queued').map(({ lane }) => lane))])
    return reclaimed.length > 0
  })
  loop('watch workers', watchEveryMs, async () => {
    if ((await workers.look()) > 0) reclaim.wake()
    return false
  })
  loop('overdue', 60_000, async () => {
    for (const { jobId, attempt, tenant, lane, worker, runningMs } of await readOverdueAttempts(
      db,
      overdueGraceMs,
      batch,
    )) {
      log.event('attempt.overdue', {
        tenant,
        job_id: jobId,
        attempt,
        lane,
        worker,
        duration_ms: Math.round(runningMs),
      })
    }
    return false
  })
  loop('deadlines', 1_000, async () => {
    const ids = await failOverdue(db, JSON.stringify(jobError('deadline_exceeded')), batch, uncertainTtlSeconds)
    if (ids.length > 0) log.event('job.deadline_exceeded', { count: ids.length, error_code: 'deadline_exceeded' })
    await notify(db, settledChannel, ids)
    return ids.length >= batch
  })
  loop('held too long', 30_000, async () => {
    const ids = await failForgotten(db, JSON.stringify(jobError('uncertain_expired')), batch, uncertainTtlSeconds)
    if (ids.length > 0) log.event('job.uncertain_expired', { count: ids.length, error_code: 'uncertain_expired' })
    return ids.length >= batch
  })
  const sweeps = sweepsOf(db, {
    ledgerSeconds: Math.floor(config.limits.ledgerRetentionMs / 1000),
    batchSeconds: Math.floor(config.limits.batchRetentionMs / 1000),
  })
  const sweep =
    (...names: readonly Swept[]) =>
    async (): Promise<boolean> => {
      let isMore = false
      for (const what of names) {
        const startedAt = performance.now()
        const { count, more, skipped } = await sweeps[what].run()
        const tookMs = performance.now() - startedAt
        if (count > 0) {
          metrics.swept.inc({ what }, count)
          log.event('sweep.done', { loop: `sweep ${what}`, count, duration_ms: Math.round(tookMs) }, 'debug')
        }
        if (skipped !== null) {
          const reason = `${skipped.id}: ${errorReason(skipped.error)}`
          log.event('sweep.skipped', { loop: `sweep ${what}`, reason })
        }
        if (!more) continue
        isMore = true
        // Nobody waits for a sweep, and others wait for what it keeps busy: it rests as long as it works.
        await sleep(Math.min(tookMs, longestRestMs))
      }
      return isMore
    }
  loop('sweep jobs', config.janitor.sweepIntervalMs, sweep('jobs'))
  loop('sweep streams', 60_000, sweep('stream chunks', 'large answers', 'forgotten jobs'))
  const drive = loop(
    'batches',
    () => batches.everyMs,
    () => batches.round(),
  )
  const results = loop('batch results', 60_000, () => batches.collectHinted())
  loop('sweep files', 30_000, sweep('files', 'batches'))
  loop('sweep ledger', 60_000, sweep('attempts', 'decisions', 'workers'))

  log.event('janitor.started', { version, pid: process.pid, host: hostname() })

  return Promise.resolve({
    async problems() {
      const [database, queueTrouble] = await Promise.all([
        probe.problem(),
        waker.ping().then(
          () => null,
          (error: unknown) => `the queue: ${errorReason(error)}`,
        ),
      ])
      return [database, queueTrouble].filter((trouble) => trouble !== null)
    },
    async stop() {
      const startedAt = performance.now()
      log.event('janitor.stopping')
      // What a round has begun and Postgres does not answer is rolled back there.
      await atMost(roundEndsMs, Promise.all(loops.map((running) => running.stop())))
      await Promise.all([atMost(closeLimitMs, batches.close()), atMost(closeLimitMs, listener.close()), waker.close()])
      await atMost(closeLimitMs, close())
      log.event('janitor.stopped', { duration_ms: Math.round(performance.now() - startedAt) })
    },
  })
}

/** Waits at most so long for something whose failure does not matter any more. */
async function atMost(limitMs: number, step: Promise<unknown>): Promise<void> {
  await within(step, limitMs, () => new Error('too late')).catch(() => undefined)
}
