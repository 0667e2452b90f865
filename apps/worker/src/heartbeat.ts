import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { version } from '@askonce/config'
import { beatWorker, readOpenAttempts, registerWorker, retireWorker, Session, type OpenAttempt } from '@askonce/store'
import { errorReason, type Log } from '@askonce/telemetry'

/** Should a cancellation not be heard of otherwise, its call is aborted at the next beat: beats also bound how long it goes on. */
const beatEveryMs = 500
/** While there is no call to lose or to abort. A short lease has no room for that. */
const idleBeatMs = (leaseMs: number): number => Math.max(beatEveryMs, Math.min(2 * beatEveryMs, leaseMs / 6))

export interface HeartbeatOptions {
  /** Claims may be made again. */
  onFresh: () => void
  databaseUrl: string
  leaseMs: number
  log: Log
  /** No claim before this one has open attempts. */
  firstClaim: () => number
  /** The attempts that the ledger holds open under this worker's id, after every beat. */
  onOpenAttempts: (attempts: readonly OpenAttempt[]) => void
}

/**
 * The worker's sign of life, on a connection of its own, so that beats wait behind nothing. Janitors declare a worker dead after a
 * whole lease without a new beat (a third of it where the end of that connection shows that the process died); it learns that from its next beat and goes on under a new id.
 */
export class Heartbeat {
  /** Under which claims are made. */
  id = randomUUID() as string
  private readonly options: HeartbeatOptions
  private readonly session: Session
  private readonly stopping = new AbortController()
  private registered = false
  private acknowledgedAt = -Infinity
  private lateSince: number | null = performance.now() // the connection is still being made
  private loop: Promise<void> | null = null
  private idle = false
  private looking = false
  private lookAgain = false

  constructor(options: HeartbeatOptions) {
    this.options = options
    this.session = new Session({
      url: options.databaseUrl,
      name: 'askonce heartbeat',
      queryTimeoutMs: options.leaseMs / 3,
    })
  }

  /** Whether the last acknowledged beat is young enough to claim and to send: half the lease. */
  get fresh(): boolean {
    return performance.now() - this.acknowledgedAt < this.options.leaseMs / 2
  }

  /**
   * Looks at the open attempts now, not only after the next beat: somebody says that a call in hand has lost its job. The saying is a
   * hint and the row decides: the job may have been made to run again since, and then its new call must not be aborted.
   */
  look(): void {
    // What is said during a reading may be younger than it.
    this.lookAgain = this.looking
    if (this.looking) return
    this.looking = true
    readOpenAttempts(this.session.db, this.id, this.options.firstClaim())
      .then(this.options.onOpenAttempts)
      // The next beat looks again.
      .catch(() => undefined)
      .finally(() => {
        this.looking = false
        if (this.lookAgain) this.look()
      })
  }

  start(): void {
    this.loop = this.run()
  }

  /** The last beat of a worker that holds nothing; what it left open after all is reclaimed at once. */
  async stop(): Promise<void> {
    this.stopping.abort()
    await this.loop
    await retireWorker(this.session.db, this.id).catch(() => undefined)
    await this.session.close()
  }

  private async run(): Promise<void> {
    while (!this.stopping.signal.aborted) {
      await this.beat().catch((error: unknown) => this.late(error))
      const waitMs = this.idle ? idleBeatMs(this.options.leaseMs) : beatEveryMs
      await sleep(waitMs, undefined, { signal: this.stopping.signal }).catch(() => undefined)
    }
  }

  private async beat(): Promise<void> {
    const { firstClaim, leaseMs, log, onOpenAttempts } = this.options
    // Counted from before the statement: the janitor sees the beat later than that, so our half lease ends first.
    const sentAt = performance.now()
    const { db, localEnd } = this.session
    const session = { localEnd, leaseMs }
    if (!this.registered) {
      await registerWorker(db, { id: this.id, host: hostname(), pid: process.pid, version }, session)
      this.registered = true
    } else if (!(await beatWorker(db, this.id, session))) {
      this.acknowledgedAt = -Infinity
      this.registered = false
      this.id = randomUUID()
      log.event('worker.id_changed', { worker: this.id, reason: 'declared dead by a janitor' })
      return this.beat()
    }
    const wasFresh = this.fresh
    this.acknowledgedAt = sentAt
    this.lateSince = null
    if (!wasFresh) this.options.onFresh()
    const open = await readOpenAttempts(db, this.id, firstClaim())
    this.idle = open.length === 0
    onOpenAttempts(open)
  }

  private late(error: unknown): void {
    if (this.fresh || this.lateSince !== null) return
    this.lateSince = performance.now()
    this.options.log.event('worker.beat_late', { worker: this.id, reason: errorReason(error) })
  }
}
