import { readSettled, type Db } from '@askonce/store'

/** Notifications are hints that may be lost: all that wait are asked about so often. */
const pollMs = 500

interface Waiter {
  resolve: (maybeSettled: boolean) => void
}

/** Requests that wait for their job. One statement asks for all of them. */
export class WaitHub {
  private readonly db: Db
  private readonly onCount: (waiters: number) => void
  private readonly waiters = new Map<string, Set<Waiter>>()
  private count = 0
  private timer: NodeJS.Timeout | null = null
  private closed = false

  constructor(db: Db, onCount: (waiters: number) => void) {
    this.db = db
    this.onCount = onCount
  }

  /**
   * Resolves with true when the job has probably settled (look), with false after `limitMs`, when the signal aborts or
   * when the hub closes. It is registered before this returns, so a read that follows misses nothing.
   */
  wait(id: string, limitMs: number, signal: AbortSignal): Promise<boolean> {
    if (this.closed || signal.aborted || limitMs <= 0) return Promise.resolve(false)
    return new Promise((resolve) => {
      const end = (maybeSettled: boolean): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', abort)
        this.remove(id, waiter)
        resolve(maybeSettled)
      }
      const abort = (): void => end(false)
      const waiter: Waiter = { resolve: end }
      const timer = setTimeout(() => end(false), limitMs)
      signal.addEventListener('abort', abort)
      this.add(id, waiter)
    })
  }

  /** News of jobs, from a notification or from this process itself; a hint. */
  hint(ids: readonly string[]): void {
    for (const id of ids) {
      for (const { resolve } of this.waiters.get(id) ?? []) resolve(true)
    }
  }

  /** Ends every wait, and every later one at once. */
  close(): void {
    this.closed = true
    for (const waiters of this.waiters.values()) {
      for (const { resolve } of waiters) resolve(false)
    }
    if (this.timer !== null) clearTimeout(this.timer)
  }

  private add(id: string, waiter: Waiter): void {
    const waiters = this.waiters.get(id) ?? new Set()
    this.waiters.set(id, waiters.add(waiter))
    this.count += 1
    this.onCount(this.count)
    this.timer ??= setTimeout(() => void this.poll(), pollMs)
  }

  private remove(id: string, waiter: Waiter): void {
    const waiters = this.waiters.get(id)
    if (waiters?.delete(waiter) !== true) return
    if (waiters.size === 0) this.waiters.delete(id)
    this.count -= 1
    this.onCount(this.count)
  }

  private async poll(): Promise<void> {
    try {
      this.hint(await readSettled(this.db, [...this.waiters.keys()]))
    } catch {
      // Postgres is away: the waits end by their own clocks, and the reads after them say so.
    }
    this.timer = this.waiters.size === 0 || this.closed ? null : setTimeout(() => void this.poll(), pollMs)
  }
}
