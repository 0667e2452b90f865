import { Intake } from '@askonce/intake'
import { createWorstCase } from '@askonce/providers'
import type { Waker } from '@askonce/queue'
import {
  batchesChannel,
  countWaiting,
  interruptedChannel,
  LaneWatch,
  lanesChannel,
  notify,
  explainRefusal,
  openDatabase,
  ReadPool,
  readStatistics,
  Session,
  settledChannel,
  StoreProbe,
  streamsChannel,
} from '@askonce/store'
import { Outage } from '@askonce/telemetry'
import { BodyDigests } from './body-digests.ts'
import type { ApiContext, Parts } from './context.ts'
import { CostlyReads, readConnections } from './costly-reads.ts'
import { JobReader } from './job-reader.ts'
import { KeyRing } from './key-ring.ts'
import { LaneBook } from './lane-book.ts'
import { atMost } from './patience.ts'
import { Readiness } from './readiness.ts'
import { Submissions } from './submissions.ts'
import { StreamHub } from './stream-hub.ts'
import { WaitHub } from './wait-hub.ts'
import { WaitReasons, waitingByKind } from './waiting.ts'

const channels = { settled: settledChannel, interrupted: interruptedChannel, batches: batchesChannel } as const
const listenTimeoutMs = 5_000
/** A server that does not answer must not keep the process from its end. */
const closeLimitMs = 2_000

export interface Assembly {
  parts: Parts
  /** A request found Postgres away. */
  unavailable: (error: unknown) => void
  close: () => Promise<void>
}

/** Builds what the routes work with. Nothing is connected before its first use, and everything comes back by itself. */
export function assemble(context: ApiContext, waker: Waker): Assembly {
  const { config, databaseUrl, poolerUrl = null, log, metrics, workerProblems = null } = context
  const outage = new Outage(log, 'store')
  let closing = false
  // A reading that meets the closed pool is no outage.
  const unavailable = (error: unknown): void => {
    if (closing) return
    probe.doubt()
    outage.failed(explainRefusal(error) ?? error)
  }
  const { db, close: closeDatabase } = openDatabase({
    url: databaseUrl,
    poolerUrl,
    name: 'askonce api',
    poolSize: config.database.poolSize,
    onError: unavailable,
  })
  const probe = new StoreProbe(db)
  const reads = new ReadPool({
    url: databaseUrl,
    poolerUrl,
    name: 'askonce api reads',
    poolSize: readConnections,
    onError: unavailable,
  })
  const answered = (): void => {
    // What can be read may take no writes.
    if (!probe.inTrouble) return outage.worked()
    probe.check().then(() => outage.worked(), unavailable)
  }
  const watch = watchLanes(db, { failed: unavailable, worked: answered })
  const streams = new StreamHub(db, metrics)
  const waits = new WaitHub(db, (waiters) => metrics.waiters.set(waiters))
  const session = new Session({
    url: databaseUrl,
    name: 'askonce api listens',
    channels: [settledChannel, streamsChannel, lanesChannel],
    onListening: () => void watch.refresh(),
    onNotification: (channel, payload) => {
      if (channel === lanesChannel) return void watch.refresh()
      const ids = payload.split(',')
      if (channel === settledChannel) waits.hint(ids)
      streams.hint(ids)
    },
    onError: unavailable,
    queryTimeoutMs: listenTimeoutMs,
  })
  const lanes = new LaneBook(config.lanes, watch)
  const intake = new Intake(config, createWorstCase(config.lanes, config.prices))
  const say = (channel: string, words: readonly string[]): void => {
    notify(db, channel, words).catch(unavailable)
  }
  metrics.collectFromDatabase(
    async () => {
      const [statistics, groups] = await Promise.all([readStatistics(db), countWaiting(db)])
      return { ...statistics, waiting: waitingByKind(groups) }
    },
    () => probe.check(),
  )
  void watch.refresh()

  const submissions = new Submissions({
    db,
    log,
    metrics,
    maxWaiting: config.limits.maxQueuedSubmissions,
    wake: (names) => waker.wake(names),
  })
  const parts: Parts = {
    config,
    log,
    metrics,
    db,
    keys: new KeyRing(db),
    intake,
    digests: new BodyDigests(intake.settingsText),
    submissions,
    jobs: new JobReader(db, metrics),
    reads: new CostlyReads(reads),
    waits,
    streams,
    lanes,
    waiting: new WaitReasons(db, lanes),
    readiness: new Readiness({
      probe,
      submissionTrouble: () => submissions.trouble,
      databaseUrl,
      waker,
      workerProblems,
    }),
    refreshLanes: () => watch.refresh(),
    announce: (news, ids) => {
      if (news === 'settled') {
        waits.hint(ids)
        streams.hint(ids)
      }
      say(channels[news], ids)
    },
    announceLane: (name) => {
      say(lanesChannel, [name])
      waker.wake([name])
    },
    wake: (names) => waker.wake(names),
  }
  const close = async (): Promise<void> => {
    closing = true
    watch.close()
    await Promise.all([atMost(closeLimitMs, session.close()), atMost(closeLimitMs, waker.close())])
    await Promise.all([atMost(closeLimitMs, closeDatabase()), atMost(closeLimitMs, reads.close()), intake.close()])
  }
  return { parts, unavailable, close }
}

/** The lanes are read every few seconds, and every second once that failed: the first to notice that Postgres is back. */
function watchLanes(db: Parts['db'], outage: Pick<Outage, 'failed' | 'worked'>): LaneWatch {
  let failed = false
  return new LaneWatch(db, {
    onError: (error) => {
      failed = true
      outage.failed(error)
    },
    onChange: () => {
      if (!failed) outage.worked()
      failed = false
    },
  })
}
