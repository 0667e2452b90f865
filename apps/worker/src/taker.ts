import { pauseAt } from '@askonce/config'
import { claimJobs, retryContention, type Claim, type Claimed, type Db } from '@askonce/store'
import { errorReason, type Log, type Metrics } from '@askonce/telemetry'
import type { HeldAttempt, HeldAttempts } from './held.ts'
import { Turns } from './turns.ts'

/** Few enough that what follows for all of them, the calls, holds up the event loop for milliseconds only. */
const maxClaims = 100
/** How long another claim may be with a tenant that has limits. */
const contendedMs = 10
/** Jobs that come due again are looked for at that moment; not all of very many. */
const longestTimerMs = 60_000
const mostTimers = 200
/** A worker looks by itself about so often: a lost wake-up costs no more. Not all workers at the same moment. */
const lookEveryMs = 1_000

/** A claimed job and the attempt that the worker now answers for. */
interface HeldClaim {
  claim: Claim
  held: HeldAttempt
}

export interface TakerOptions {
  db: Db
  lane: string
  /** Calls under way at once. */
  concurrency: number
  held: HeldAttempts
  log: Log
  metrics: Metrics
  workerId: () => string
  /** Whether claims may be made now. */
  mayClaim: () => boolean
  /** Carries a claimed attempt to its end. Does not reject. Milliseconds: the job is queued again, and due after that. */
  run: (claim: Claim, held: HeldAttempt) => Promise<number | null>
  /** There is more than this worker has places for: others are to be woken. */
  passOn: () => void
  /** Whether somebody else's wake-ups are of use has changed: see {@link Taker.wantsWakeUps}. */
  onChange: () => void
}

/**
 * Takes the jobs of one lane: it claims as many as it has free places, whenever somebody says that there is work, when a place gets free
 * after it could not take all, and once a second. One claim is under way at a time; what happens meanwhile is taken by the next.
 */
export class Taker {
  private readonly options: TakerOptions
  private readonly turns = new Turns()
  private readonly timers = new Set<NodeJS.Timeout>()
  /** Calls under way. */
  private inHand = 0
  private claiming = false
  private scheduled = false
  /** There may be something to claim. */
  private wanted = false
  /** A tenant had as much running as it may have: the end of a call may make room for it. */
  private atLimit = false
  private stopped = false

  constructor(options: TakerOptions) {
    this.options = options
    this.lookLater()
  }

  /** Whether it has free places and does not go on by itself. */
  get wantsWakeUps(): boolean {
    return !this.wanted && this.inHand < this.options.concurrency
  }

  /** Somebody says that there is work. */
  wake(): void {
    if (this.inHand >= this.options.concurrency) this.options.passOn()
    this.look()
  }

  /** Claims now, or as soon as a place is free and claims may be made. */
  look(): void {
    this.wanted = true
    this.schedule()
  }

  /** Makes no more claims. */
  stop(): void {
    this.stopped = true
    for (const timer of this.timers) clearTimeout(timer)
  }

  /** Places that get free in the same turn of the event loop are filled by one claim. */
  private schedule(): void {
    if (this.scheduled || this.claiming || !this.wanted || this.stopped) return
    this.scheduled = true
    setImmediate(() => {
      this.scheduled = false
      const { concurrency, mayClaim } = this.options
      const places = Math.min(maxClaims, concurrency - this.inHand)
      if (!this.wanted || this.stopped || places <= 0 || !mayClaim()) return
      void this.claim(places)
    })
  }

  private async claim(places: number): Promise<void> {
    const { concurrency, passOn, onChange } = this.options
    this.claiming = true
    this.wanted = false
    const { claims, more, atLimit } = await this.ask(places)
    this.claiming = false
    this.atLimit = atLimit
    if (more) {
      // Another claim is with a tenant that has limits: it is over in a moment.
      if (claims.length < places) this.lookIn(contendedMs)
      else this.wanted = true
      // Before the calls begin: they take the event loop.
      if (this.inHand + claims.length >= concurrency) passOn()
    }
    for (const { claim, held } of claims) void this.carry(claim, held)
    onChange()
    this.schedule()
  }

  private async carry(claim: Claim, held: HeldAttempt): Promise<void> {
    this.inHand += 1
    const againInMs = await this.options.run(claim, held)
    this.inHand -= 1
    if (againInMs !== null) this.lookIn(againInMs)
    if (this.atLimit) this.wanted = true
    this.options.onChange()
    this.schedule()
  }

  private async ask(places: number): Promise<Omit<Claimed, 'claims' | 'turn'> & { claims: HeldClaim[] }> {
    const { db, lane, held, log, metrics, workerId } = this.options
    if (pauseAt !== null) await pauseAt('worker.claiming')
    // From before the claim is sent: open attempts of it may appear in the ledger at any moment now.
    const number = held.beginClaim()
    const startedAt = performance.now()
    const beginning = this.turns.begin(startedAt)
    try {
      const claimed = await retryContention(() =>
        claimJobs(db, { workerId: workerId(), number, lane, places, ...beginning }),
      )
      this.turns.end(beginning, claimed, startedAt, performance.now())
      if (claimed.claims.length > 0) metrics.groupRows.observe({ group: 'claim' }, claimed.claims.length)
      for (const claim of claimed.claims) metrics.queueWait.observe({ lane }, claim.queue_ms / 1000)
      const claims = claimed.claims.map((claim) => ({ claim, held: held.hold(claim.id, claim.attempt, number) }))
      return { ...claimed, claims }
    } catch (error) {
      // Unknown whether it committed. Its attempts are never sent; a beat that sees them ends them as unsent.
      held.loseClaim(number)
      log.event('loop.failed', { loop: 'claim', lane, reason: errorReason(error) })
      return { claims: [], more: false, atLimit: false }
    } finally {
      held.endClaim(number)
    }
  }

  private lookLater(): void {
    this.after(lookEveryMs * (0.8 + 0.4 * Math.random()), () => {
      this.look()
      this.lookLater()
    })
  }

  private lookIn(ms: number): void {
    // What is due later is found by the look of the second in which it is.
    if (ms < longestTimerMs && this.timers.size < mostTimers) this.after(ms, () => this.look())
  }

  private after(ms: number, run: () => void): void {
    if (this.stopped) return
    const timer = setTimeout(() => {
      this.timers.delete(timer)
      run()
    }, ms)
    this.timers.add(timer)
  }
}
