import { setTimeout as sleep } from 'node:timers/promises'
import { version } from '@askonce/config'
import { createProvider, type Provider } from '@askonce/providers'
import { openConsumer, openWaker, type Consumer } from '@askonce/queue'
import {
  interruptedChannel,
  lanesChannel,
  LaneWatch,
  openDatabase,
  readDatabaseId,
  Session,
  StoreProbe,
  type OpenAttempt,
} from '@askonce/store'
import { errorReason, Outage, tellQueueShared } from '@askonce/telemetry'
import { within } from '@askonce/timing'
import { hostname } from 'node:os'
import { BackPressure } from './back-pressure.ts'
import type { WorkerContext } from './context.ts'
import { unsentEnd } from './end-record.ts'
import { Heartbeat } from './heartbeat.ts'
import { HeldAttempts } from './held.ts'
import { LookUps } from './look-up.ts'
import { LaneControl } from './lane-control.ts'
import { Leftovers } from './leftovers.ts'
import { runAttempt, type PipelineParts } from './pipeline.ts'
import { Recorder } from './recorder.ts'
import { Safekeeping } from './safekeeping.ts'
import { Spool } from './spool.ts'
import { StreamWriter } from './stream-writer.ts'
import { Taker } from './taker.ts'

/** How long the ends of aborted calls may take to be written when the worker stops. */
const lastWritesMs = 5_000
/** A server that does not answer must not keep the process from its end. */
const closeLimitMs = 2_000

export interface Worker {
  /** Attempts in hand. */
  inFlight(): number
  /** Why the worker cannot work at this moment; empty: it can. */
  problems(): Promise<string[]>
  /** Drains: no new claims, running calls may finish within the grace period, then they are aborted. */
  stop(): Promise<void>
  /** Ends a drain that is under way at once. */
  hurry(): void
  /** Once it has stopped: jobs whose paid answers it could neither store nor write to disk. */
  lost(): string[]
}

/** Starts taking jobs. Postgres and Redis may be away: it waits for them. */
export async function startWorker(context: WorkerContext): Promise<Worker> {
  const { config, databaseUrl, poolerUrl = null, queue, log, metrics } = context
  const { concurrency, drainMs, leaseMs, spoolDir } = config.worker
  const storeOutage = new Outage(log, 'store')
  let closing = false
  const storeFailed = (error: unknown): void => {
    // `askonce start` stops its database next: what still looks at it then meets no outage.
    if (!closing) storeOutage.failed(error)
  }
  const queueOutage = new Outage(log, 'queue')
  const { db, close } = openDatabase({
    url: databaseUrl,
    poolerUrl,
    name: 'askonce worker',
    poolSize: config.database.poolSize,
    onError: storeFailed,
  })
  const probe = new StoreProbe(db)
  const stopping = new AbortController()
  const hurrying = new AbortController()
  const held = new HeldAttempts()
  const providers = new Map<string, Provider>(
    config.lanes.map((lane) => [
      lane.name,
      createProvider(
        {
          name: lane.name,
          kind: lane.kind,
          baseUrl: lane.baseUrl,
          apiKey: lane.apiKey?.reveal() ?? null,
          lookUp: lane.lookUp,
        },
        { simulated: config.simulated, prices: config.prices },
      ),
    ]),
  )
  const databaseId = once(() => untilDone(() => readDatabaseId(databaseUrl), stopping.signal, storeFailed))
  const spool = new Spool(spoolDir)
  const backPressure = new BackPressure(log, metrics, () => {
    applyLanes()
    lookAgain()
  })
  const safekeeping = new Safekeeping({ spool, log, metrics, backPressure, databaseId })
  const recorder = new Recorder({ db, log, metrics, safekeeping, uncertainTtlMs: config.limits.uncertainTtlMs })
  const leftovers = new Leftovers({ spool, safekeeping, recorder, log, databaseId })
  // Said at once, whether or not Postgres is there. The worker works on: a spool is needed only where storing fails.
  void safekeeping.check()

  const waker = openWaker(queue, {
    onError: () => undefined,
    onSent: (error) => (error === null ? queueOutage.worked() : queueOutage.failed(error)),
    databaseId,
    onShared: (reason) => tellQueueShared(log, reason),
  })
  const takers = new Map<string, { taker: Taker; consumer: Consumer }>()
  const watch = new LaneWatch(db, { onChange: () => applyLanes(), onError: storeFailed })
  /** Wake-ups are for workers that have free places. */
  const applyPlaces = (lane: string): void => {
    const parts = takers.get(lane)
    if (parts === undefined) return
    const { taker, consumer } = parts
    const isClosed = watch.closedBy(lane) !== null || backPressure.heldBack !== null || stopping.signal.aborted
    if (isClosed || !taker.wantsWakeUps) consumer.pause()
    else consumer.resume()
  }
  const applyLanes = (): void => {
    for (const [lane, { taker }] of takers) {
      const isOpen = watch.closedBy(lane) === null
      if (isOpen && closedLanes.delete(lane)) taker.look()
      else if (!isOpen) closedLanes.add(lane)
      applyPlaces(lane)
    }
  }
  const closedLanes = new Set<string>()
  const lookAgain = (): void => takers.forEach(({ taker }) => taker.look())
  const listener = new Session({
    url: databaseUrl,
    name: 'askonce worker listener',
    channels: [lanesChannel, interruptedChannel],
    onListening: () => void watch.refresh(),
    onNotification: (channel, payload) => {
      if (channel === lanesChannel) void watch.refresh()
      else if (held.holdsAny(payload.split(','))) heartbeat.look()
    },
    queryTimeoutMs: leaseMs,
  })

  const ending = new Set<string>()
  /** Aborts what no longer owns its job, and ends what was claimed without our knowing: its reply was lost, it was never sent. */
  const onOpenAttempts = (attempts: readonly OpenAttempt[]): void => {
    storeOutage.worked()
    recorder.databaseAnswers()
    for (const { jobId, attempt, owned } of attempts) if (!owned) held.abort(jobId, attempt, 'cancelled')
    for (const open of attempts) {
      const { jobId, attempt } = open
      const name = `${jobId}.${attempt}`
      if (held.mayHold(open) || ending.has(name)) continue
      // Not awaited: beats go on whatever this takes.
      ending.add(name)
      void recorder.record('', unsentEnd({ id: jobId, attempt }, true)).finally(() => ending.delete(name))
    }
  }
  const heartbeat = new Heartbeat({
    databaseUrl,
    leaseMs,
    log,
    onFresh: lookAgain,
    firstClaim: () => held.firstClaim(),
    onOpenAttempts,
  })
  const maySend = (): boolean => heartbeat.fresh && !stopping.signal.aborted
  const lookUps = new LookUps({ db, providers, recorder, log, metrics, stopping: stopping.signal })
  const streams = new StreamWriter(db, log, metrics)
  const parts: PipelineParts = {
    held,
    streams,
    providers,
    laneControl: new LaneControl({ db, watch, log }),
    lookUps,
    recorder,
    log,
    metrics,
    maySend,
    workerId: () => heartbeat.id,
  }

  heartbeat.start()
  const ready = (async () => {
    await databaseId()
    await watch.refresh()
    if (stopping.signal.aborted) return
    leftovers.start()
    lookUps.start()
    for (const { name: lane } of config.lanes) {
      const taker = new Taker({
        db,
        lane,
        concurrency,
        held,
        log,
        metrics,
        workerId: () => heartbeat.id,
        mayClaim: () => maySend() && backPressure.heldBack === null && watch.closedBy(lane) === null,
        run: (claim, attempt) => runAttempt(parts, claim, attempt),
        passOn: () => waker.wake([lane]),
        onChange: () => applyPlaces(lane),
      })
      const onWake = (): void => {
        queueOutage.worked()
        taker.wake()
      }
      const consumer = openConsumer(queue, { lane, onWake, onError: (error) => queueOutage.failed(error) })
      takers.set(lane, { taker, consumer })
      taker.look()
    }
    applyLanes()
    log.event('worker.started', {
      worker: heartbeat.id,
      version,
      pid: process.pid,
      host: hostname(),
      count: config.lanes.length,
    })
  })()
  ready.catch(() => undefined)

  const lost: string[] = []
  const drain = async (): Promise<void> => {
    const startedAt = performance.now()
    log.event('worker.stopping', { worker: heartbeat.id, count: held.size })
    stopping.abort()
    for (const { taker, consumer } of takers.values()) {
      taker.stop()
      consumer.pause()
    }
    leftovers.stop()
    await Promise.race([held.untilIdle(drainMs), aborted(hurrying.signal)])
    const count = held.abortAll('drained')
    await held.untilIdle(lastWritesMs)
    recorder.stop()
    safekeeping.stop()
    await atMost(closeLimitMs, streams.stop())
    for (const { fields } of safekeeping.unsafe) {
      const reason = 'the process ended, and neither Postgres nor the spool had taken it'
      log.event('answer.lost', { ...fields, worker: heartbeat.id, reason })
      lost.push(fields.job_id)
    }
    await Promise.all([...takers.values()].map(({ consumer }) => consumer.close()))
    await waker.close()
    watch.close()
    closing = true
    await Promise.all([atMost(closeLimitMs, heartbeat.stop()), atMost(closeLimitMs, listener.close())])
    await Promise.all([...providers.values()].map((provider) => atMost(closeLimitMs, provider.close())))
    await atMost(closeLimitMs, close())
    log.event('worker.stopped', { worker: heartbeat.id, count, duration_ms: Math.round(performance.now() - startedAt) })
  }
  return {
    inFlight: () => held.size,
    async problems() {
      const [database, queueTrouble] = await Promise.all([
        probe.problem(),
        waker.ping().then(
          () => null,
          (error: unknown) => `the queue: ${errorReason(error)}`,
        ),
      ])
      if (queueTrouble === null) queueOutage.worked()
      return [
        ...(database === null ? [] : [database]),
        ...(heartbeat.fresh ? [] : ['the last heartbeat is older than half the lease: Postgres is away or slow']),
        ...(queueTrouble === null ? [] : [queueTrouble]),
        ...(backPressure.heldBack === null ? [] : [`no new calls are made: ${backPressure.heldBack}`]),
        ...(safekeeping.trouble === null ? [] : [safekeeping.trouble]),
      ]
    },
    stop: once(drain),
    hurry: () => hurrying.abort(),
    lost: () => lost,
  }
}

/** Waits at most so long for something whose failure does not matter any more. */
async function atMost(limitMs: number, step: Promise<unknown>): Promise<void> {
  await within(step, limitMs, () => new Error('too late')).catch(() => undefined)
}

function once<T>(run: () => Promise<T>): () => Promise<T> {
  let result: Promise<T> | undefined
  return () => (result ??= run())
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

/** Tries every half second until it works or `signal` aborts. */
async function untilDone<T>(run: () => Promise<T>, signal: AbortSignal, onError: (error: unknown) => void): Promise<T> {
  for (;;) {
    try {
      return await run()
    } catch (error) {
      if (signal.aborted) throw error
      onError(error)
      await sleep(500, undefined, { signal }).catch(() => undefined)
    }
  }
}
