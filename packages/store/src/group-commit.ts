import { isDataError, OverloadedError } from './errors.ts'

export interface GroupCommitOptions<Item, Result> {
  /** Runs one batch; resolves with one result per item, in order. A rejection is the whole batch's. */
  commit: (items: Item[]) => Promise<Result[]>
  maxRows: number
  maxBytes: number
  /** Items that may wait; one more is refused with {@link OverloadedError}. */
  maxWaiting: number
  /** Batches under way at once: one slow batch does not hold up the next. */
  concurrency: number
  bytesOf: (item: Item) => number
  /** Items with the same identity never share a batch. Unset: they may. */
  identityOf?: (item: Item) => string
  onBatch?: (rows: number) => void
}

interface Waiting<Item, Result> {
  item: Item
  resolve: (result: Result) => void
  reject: (error: unknown) => void
}

/**
 * Concurrent callers share one statement and one fsync. No timer: the first item of an idle group leaves at the end of the
 * event-loop turn, later ones gather while batches are under way, so batches grow with the load and latency does not.
 * A batch that Postgres refuses as data is halved until the bad row fails alone.
 */
export class GroupCommit<Item, Result> {
  private readonly options: GroupCommitOptions<Item, Result>
  private waiting: Waiting<Item, Result>[] = []
  private running = 0
  private scheduled = false

  constructor(options: GroupCommitOptions<Item, Result>) {
    this.options = options
  }

  /** Items that wait for a batch. */
  get depth(): number {
    return this.waiting.length
  }

  submit(item: Item): Promise<Result> {
    if (this.waiting.length >= this.options.maxWaiting) {
      return Promise.reject(new OverloadedError(`${this.waiting.length} writes are waiting already`))
    }
    return new Promise<Result>((resolve, reject) => {
      this.waiting.push({ item, resolve, reject })
      this.schedule()
    })
  }

  private schedule(): void {
    if (this.scheduled || this.waiting.length === 0 || this.running >= this.options.concurrency) return
    this.scheduled = true
    setImmediate(() => {
      this.scheduled = false
      const batch = this.take()
      this.running += 1
      void this.run(batch).finally(() => {
        this.running -= 1
        this.schedule()
      })
      this.schedule()
    })
  }

  private take(): Waiting<Item, Result>[] {
    const { maxRows, maxBytes, bytesOf, identityOf } = this.options
    const identities = new Set<string>()
    let bytes = 0
    const batch: Waiting<Item, Result>[] = []
    const left: Waiting<Item, Result>[] = []
    for (const [index, entry] of this.waiting.entries()) {
      const identity = identityOf?.(entry.item)
      if (identity !== undefined && identities.has(identity)) {
        left.push(entry)
        continue
      }
      const size = bytesOf(entry.item)
      // An item that is larger than the bound goes alone.
      if (batch.length >= maxRows || (batch.length > 0 && bytes + size > maxBytes)) {
        left.push(...this.waiting.slice(index))
        break
      }
      if (identity !== undefined) identities.add(identity)
      bytes += size
      batch.push(entry)
    }
    this.waiting = left
    return batch
  }

  private async run(batch: Waiting<Item, Result>[]): Promise<void> {
    this.options.onBatch?.(batch.length)
    try {
      const results = await this.options.commit(batch.map(({ item }) => item))
      for (const [index, { resolve }] of batch.entries()) resolve(results[index] as Result)
    } catch (error) {
      if (batch.length > 1 && isDataError(error)) {
        const middle = Math.ceil(batch.length / 2)
        await this.run(batch.slice(0, middle))
        await this.run(batch.slice(middle))
        return
      }
      for (const { reject } of batch) reject(error)
    }
  }
}
