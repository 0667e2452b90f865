import {
  claimJobs,
  giveProbeBack,
  GroupCommit,
  retryContention,
  takeProbe,
  type Claim,
  type Db,
  type LaneWatch,
} from '@askonce/store'
import { errorReason, type Log, type Metrics } from '@askonce/telemetry'
import type { HeldAttempt, HeldAttempts } from './held.ts'

/** A claimed job and the attempt that the worker now answers for. */
export interface HeldClaim {
  claim: Claim
  held: HeldAttempt
}

interface Delivery {
  jobId: string
  lane: string
}

export interface ClaimsOptions {
  db: Db
  held: HeldAttempts
  watch: LaneWatch
  log: Log
  metrics: Metrics
  workerId: () => string
  /** Whether claims may be made now. */
  mayClaim: () => boolean
}

/** Few enough that what follows for all of them, the calls, holds up the event loop for milliseconds only. */
const maxRows = 100
/** After this long another worker may probe a breaker: the prober has died, or its call is slow. */
const probeMs = 60_000

/** Claims deliveries in groups: one statement and one fsync for all that arrive at the same time. */
export class Claims {
  private readonly options: ClaimsOptions
  private readonly group: GroupCommit<Delivery, HeldClaim | null>

  constructor(options: ClaimsOptions) {
    this.options = options
    this.group = new GroupCommit({
      commit: (deliveries) => this.commit(deliveries),
      maxRows,
      maxBytes: Number.POSITIVE_INFINITY,
      maxWaiting: Number.POSITIVE_INFINITY, // bounded by the consumers' concurrency
      concurrency: 2,
      bytesOf: () => 0,
      identityOf: ({ jobId }) => jobId,
      onBatch: (rows) => options.metrics.groupRows.observe({ group: 'claim' }, rows),
    })
  }

  /**
   * Null: nothing to do here. The job is not queued any more, not due yet, its lane is closed, this worker may not claim, or the
   * claim's reply was lost. In every case the row says what is next, and the janitor sees to it.
   */
  claim(jobId: string, lane: string): Promise<HeldClaim | null> {
    return this.options.mayClaim() ? this.group.submit({ jobId, lane }) : Promise.resolve(null)
  }

  private async commit(deliveries: Delivery[]): Promise<(HeldClaim | null)[]> {
    const { held, log } = this.options
    const ids = deliveries.map(({ jobId }) => jobId)
    // From before the claim is sent: an open attempt of these jobs may appear in the ledger at any moment now.
    for (const id of ids) held.beginClaim(id)
    try {
      const claims = await this.claimByLane(deliveries)
      const byId = new Map(claims.map((claim) => [claim.id, { claim, held: held.hold(claim.id, claim.attempt) }]))
      for (const { claim } of byId.values()) {
        this.options.metrics.queueWait.observe({ lane: claim.lane }, claim.queue_ms / 1000)
      }
      return ids.map((id) => byId.get(id) ?? null)
    } catch (error) {
      // Unknown whether it committed. These attempts are never sent; the next beat that sees them ends them as unsent.
      log.event('loop.failed', { loop: 'claim', count: ids.length, reason: errorReason(error) })
      return ids.map(() => null)
    } finally {
      for (const id of ids) held.endClaim(id)
    }
  }

  private async claimByLane(deliveries: Delivery[]): Promise<Claim[]> {
    const { db, watch, workerId } = this.options
    const breakers = new Set(deliveries.map(({ lane }) => lane).filter((lane) => watch.get(lane)?.state === 'breaker'))
    const probes: string[] = []
    const probing: string[] = []
    for (const lane of breakers) {
      const first = deliveries.find((delivery) => delivery.lane === lane)
      if (first !== undefined && (await takeProbe(db, lane, probeMs))) {
        probes.push(lane)
        probing.push(first.jobId)
      }
    }
    const rest = deliveries.map(({ jobId }) => jobId).filter((id) => !probing.includes(id))
    const claim = (ids: string[], lanes: string[]): Promise<Claim[]> =>
      ids.length === 0 ? Promise.resolve([]) : retryContention(() => claimJobs(db, workerId(), ids, lanes))
    const probed = await claim(probing, probes)
    for (const lane of probes) if (!probed.some((row) => row.lane === lane)) await giveProbeBack(db, lane)
    return [...probed, ...(await claim(rest, []))]
  }
}
