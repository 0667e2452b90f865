const firstWaitMs = 100
const waitCapMs = 2_000

/**
 * The way to something that may be away: Postgres, or the spool's disk. Open until somebody fails; then one caller at a time tries,
 * after a wait that grows, while the others stand in line. So an outage costs one attempt every two seconds, however many wait.
 */
export class Gate {
  private closed = false
  private waitMs = firstWaitMs
  private line: ((entered: boolean) => void)[] = []
  private timer: NodeJS.Timeout | null = null
  private trying = false
  private shut = false

  get isOpen(): boolean {
    return !this.closed
  }

  /**
   * Resolves with true when the caller may try; it then has to call `worked`, `failed` or `leave`. With false once the gate is shut for good, or,
   * to those in line, when `signal` is aborted.
   */
  enter(signal?: AbortSignal): Promise<boolean> {
    if (this.shut || signal?.aborted === true) return Promise.resolve(false)
    if (!this.closed) return Promise.resolve(true)
    return new Promise((resolve) => {
      const leave = (entered: boolean): void => {
        signal?.removeEventListener('abort', abandon)
        resolve(entered)
      }
      const abandon = (): void => {
        this.line = this.line.filter((entry) => entry !== leave)
        resolve(false)
      }
      signal?.addEventListener('abort', abandon, { once: true })
      this.line.push(leave)
      this.schedule()
    })
  }

  worked(): void {
    this.closed = false
    this.trying = false
    this.waitMs = firstWaitMs
    this.clearTimer()
    for (const leave of this.line.splice(0)) leave(true)
  }

  failed(): void {
    // Many may fail at once, having entered before the first did: the wait grows with what was tried since.
    if (this.closed && this.trying) this.waitMs = Math.min(waitCapMs, this.waitMs * 2)
    this.closed = true
    this.trying = false
    this.schedule()
  }

  /** The caller does not try after all. */
  leave(): void {
    this.trying = false
    this.schedule()
  }

  /** Something says that it is back: the next one tries at once. */
  hint(): void {
    if (!this.closed) return
    this.waitMs = firstWaitMs
    if (this.timer === null) return
    this.clearTimer()
    this.letOneTry()
  }

  /** Nobody tries again. */
  shutForGood(): void {
    this.shut = true
    this.clearTimer()
    for (const leave of this.line.splice(0)) leave(false)
  }

  private schedule(): void {
    if (this.shut || this.trying || this.timer !== null || this.line.length === 0) return
    this.timer = setTimeout(
      () => {
        this.timer = null
        this.letOneTry()
      },
      this.waitMs * (0.5 + Math.random() / 2),
    )
  }

  private letOneTry(): void {
    const first = this.line.shift()
    if (first === undefined) return
    this.trying = true
    first(true)
  }

  private clearTimer(): void {
    if (this.timer !== null) clearTimeout(this.timer)
    this.timer = null
  }
}
