import { timeLimit } from '@askonce/timing'

/** Why a running call was aborted. */
export type AbortReason = 'cancelled' | 'drained'

/** An attempt that this process answers for, from its claim's reply until its end is committed. */
export interface HeldAttempt {
  jobId: string
  attempt: number
  abort: AbortController
  /** Set when the call is aborted; decides the outcome that is recorded. */
  abortedFor: AbortReason | null
}

/**
 * Everything a worker has in hand. A job is *claiming* from before its claim is sent until the reply: the ledger may show an open
 * attempt of it that is not known here yet. An open attempt that is neither held nor being claimed was never sent.
 */
export class HeldAttempts {
  private readonly held = new Map<string, HeldAttempt>()
  private readonly claiming = new Map<string, number>()
  private idle: (() => void)[] = []

  get size(): number {
    return this.held.size
  }

  /** Deliveries between the start of their claim and the end of their attempt. */
  get busy(): number {
    return this.held.size + this.claiming.size
  }

  beginClaim(jobId: string): void {
    this.claiming.set(jobId, (this.claiming.get(jobId) ?? 0) + 1)
  }

  endClaim(jobId: string): void {
    const left = (this.claiming.get(jobId) ?? 1) - 1
    if (left > 0) this.claiming.set(jobId, left)
    else this.claiming.delete(jobId)
    this.wake()
  }

  hold(jobId: string, attempt: number): HeldAttempt {
    const entry: HeldAttempt = { jobId, attempt, abort: new AbortController(), abortedFor: null }
    this.held.set(nameOf(jobId, attempt), entry)
    return entry
  }

  release({ jobId, attempt }: HeldAttempt): void {
    this.held.delete(nameOf(jobId, attempt))
    this.wake()
  }

  /** Whether an open attempt of the ledger is, or may be about to become, one of ours. */
  mayHold(jobId: string, attempt: number): boolean {
    return this.claiming.has(jobId) || this.held.has(nameOf(jobId, attempt))
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
