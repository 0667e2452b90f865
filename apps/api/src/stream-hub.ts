import { GroupCommit, readStreams, type Db, type StreamCursor, type StreamPage } from '@askonce/store'
import type { Metrics } from '@askonce/telemetry'
import { patiently } from './patience.ts'

/** Few: every row may bring a quarter of a megabyte with it. */
const maxRows = 64
const concurrency = 3
const maxWaiting = 20_000

/** Requests that follow streams: hints wake them, and concurrent reads share a statement. */
export class StreamHub {
  private readonly group: GroupCommit<StreamCursor, StreamPage>
  private readonly waiting = new Map<string, Set<() => void>>()
  private readonly closing = new AbortController()

  constructor(db: Db, metrics: Metrics) {
    this.group = new GroupCommit({
      commit: (cursors) => readStreams(db, cursors),
      maxRows,
      maxBytes: Number.POSITIVE_INFINITY,
      maxWaiting,
      concurrency,
      bytesOf: () => 0,
      onBatch: (rows) => metrics.groupRows.observe({ group: 'stream' }, rows),
    })
  }

  /** Whether the server closes: followers say so to their clients and end. */
  get closed(): boolean {
    return this.closing.signal.aborted
  }

  read(cursor: StreamCursor): Promise<StreamPage> {
    return patiently(this.group.submit(cursor))
  }

  /** Resolves when there may be more to read, or after `limitMs`. Registered before it returns: a read that follows misses nothing. */
  wait(jobId: string, limitMs: number): Promise<void> {
    if (this.closed) return Promise.resolve()
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer)
        const others = this.waiting.get(jobId)
        others?.delete(end)
        if (others?.size === 0) this.waiting.delete(jobId)
        resolve()
      }
      const timer = setTimeout(end, limitMs)
      this.waiting.set(jobId, (this.waiting.get(jobId) ?? new Set()).add(end))
    })
  }

  /** News of streams or jobs, from a notification; a hint. */
  hint(jobIds: readonly string[]): void {
    for (const id of jobIds) for (const end of this.waiting.get(id) ?? []) end()
  }

  close(): void {
    this.closing.abort()
    this.hint([...this.waiting.keys()])
  }
}
