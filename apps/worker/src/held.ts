import { timeLimit } from '@askonce/timing'

/** Why a running call was aborted. */
export type AbortReason = 'cancelled' | 'drained'

/** An attempt that this process answers for, from its claim's reply until its end is committed. */
export interface HeldAttempt {
  jobId: string
  attempt: number
  /** Number of its claim. */
  claim: number
  abort: AbortController
  /** Set when the call is aborted; decides the outcome that is recorded. */
  abortedFor: AbortReason | null
}

/** How long a server may go on with a claim whose reply was lost. */
const lostForMs = 60_000

/**
 * Everything a worker has in hand. Claims are numbered: from before one is sent until its reply the ledger may show open attempts of it
 * that are not known here yet. An open attempt that is neither held nor of a claim under way was never sent.
 */
export class HeldAttempts {
  private readonly held = new Map<string, HeldAttempt>()
  private readonly claiming = new Set<number>()
  /** Claims whose reply was lost, and when, on the monotonic clock. */
  private readonly lost = new Map<number, number>()
  private numbers = 0
  private idle: (() => void)[] = []

  get size(): number {
    return this.held.size
  }

  /** Claims under way, and attempts that have not ended. */
  get busy(): number {
    return this.held.size + this.claiming.size
  }

  /** The number of a claim that is about to be sent. */
  beginClaim(): number {
    this.numbers += 1
    this.claiming.add(this.numbers)
    return this.numbers
  }

  endClaim(number: number): void {
    this.claiming.delete(number)
    this.wake()
  }

  /** It is not known whether it committed. */
  loseClaim(number: number): void {
    this.lost.set(number, performance.now())
  }

  /** No claim before this one has an open attempt: where a look at the open attempts may begin. */
  firstClaim(): number {
    for (const [number, at] of this.lost) if (performance.now() - at > lostForMs) this.lost.delete(number)
    let first = this.numbers + 1
    for (const number of this.claiming) first = Math.min(first, number)
    for (const number of this.lost.keys()) first = Math.min(first, number)
    for (const { claim } of this.held.values()) first = Math.min(first, claim)
    return first
  }

  hold(jobId: string, attempt: number, claim: number): HeldAttempt {
    const entry: HeldAttempt = { jobId, attempt, claim, abort: new AbortController(), abortedFor: null }
    this.held.set(nameOf(jobId, attempt), entry)
    return entry
  }

  release({ jobId, attempt }: HeldAttempt): void {
    this.held.delete(nameOf(jobId, attempt))
    this.wake()
  }

  /** Whether an open attempt of the ledger is, or may be about to become, one of ours. */
  mayHold({ jobId, attempt, claim }: { jobId: string; attempt: number; claim: number }): boolean {
    return this.claiming.has(claim) || this.held.has(nameOf(jobId, attempt))
  }

  /** Whether an attempt of one of these jobs is in hand. */
  holdsAny(jobIds: readonly string[]): boolean {
    return [...this.held.values()].some((entry) => jobIds.includes(entry.jobId))
  }

  abort(jobId: string, attempt: number, reason: AbortReason): void {
    const entry = this.held.get(nameOf(jobId, attempt))
    if (entry === undefined || entry.abortedFor !== null) return
    entry.abortedFor = reason
    entry.abort.abort()
  }

  abortAll(reason: AbortReason): number {
    const entries = [...this.held.values()]
    for (const { jobId, attempt } of entries) this.abort(jobId, attempt, reason)
    return entries.length
  }

  /** Resolves when nothing is in hand, or after `timeoutMs`; says which. */
  async untilIdle(timeoutMs: number): Promise<boolean> {
    if (this.busy === 0) return true
    await new Promise<void>((resolve) => {
      const cancel = timeLimit(timeoutMs, resolve)
      this.idle.push(() => {
        cancel()
        resolve()
      })
    })
    return this.busy === 0
  }

  private wake(): void {
    if (this.busy > 0) return
    const waiting = this.idle
    this.idle = []
    for (const resolve of waiting) resolve()
  }
}

/** How an attempt is named in memory. Providers know it by its mark. */
export function nameOf(jobId: string, attempt: number): string {
  return `${jobId}.${attempt}`
}
