import { setTimeout as sleep } from 'node:timers/promises'
import type { StreamSink } from '@askonce/providers'
import {
  appendStreamChunks,
  deleteStreamChunks,
  isContention,
  isUnavailable,
  nameAnswers,
  type Claim,
  type Db,
  type StreamChunk,
} from '@askonce/store'
import { errorReason, type Log, type Metrics } from '@askonce/telemetry'

/** Pieces of a row, and bytes and rows of a statement. */
const maxPieceBytes = 32 * 1024
const maxStatementBytes = 4 * 1024 * 1024
const maxStatementRows = 500
/** Between two statements: a token more or less a moment later, for far fewer statements with many streams. */
const paceMs = 10
const retryMs = 250

interface OpenStream {
  jobId: string
  attempt: number
  /** Bytes that have been taken into statements. */
  position: number
  waiting: Buffer[]
  answerId: string | null
}

/**
 * Shows the streams that come while their calls run: what has come since the last statement goes into the next, of all streams together.
 * It is for those who watch only; the answer is stored as a whole at the end, whatever becomes of this.
 */
export class StreamWriter {
  private readonly db: Db
  private readonly log: Log
  private readonly metrics: Metrics
  private readonly open = new Set<OpenStream>()
  private readonly ended: { jobId: string; attempt: number }[] = []
  private running = false
  private last: Promise<void> = Promise.resolve()
  private stopped = false

  constructor(db: Db, log: Log, metrics: Metrics) {
    this.db = db
    this.log = log
    this.metrics = metrics
  }

  /** Where the provider's events go, and what is called when the end of the attempt is in the database. */
  begin({ id: jobId, attempt, operation }: Claim): StreamSink & { end: () => void } {
    const stream: OpenStream = { jobId, attempt, position: 0, waiting: [], answerId: null }
    this.open.add(stream)
    return {
      // Only responses are asked for by the provider's id while they come.
      onAnswerId: (id) => {
        if (operation === 'responses') stream.answerId = id
      },
      onEvents: (events) => {
        stream.waiting.push(events)
        this.wake()
      },
      end: () => {
        this.open.delete(stream)
        // What was never written need not be deleted.
        if (stream.position === 0) return
        this.ended.push({ jobId, attempt })
        this.wake()
      },
    }
  }

  /** Ends after the statement that is under way. The janitor sweeps what is left. */
  async stop(): Promise<void> {
    this.stopped = true
    await this.last
  }

  private wake(): void {
    if (this.running || this.stopped) return
    this.running = true
    this.last = this.run()
  }

  private async run(): Promise<void> {
    while (!this.stopped) {
      const names = this.takeNames()
      const chunks = this.takeChunks()
      const ended = this.ended.splice(0)
      if (chunks.length === 0 && names.length === 0 && ended.length === 0) break
      // Unchanged until it has worked: pieces that are there already stay as they are.
      await this.persistently(async () => {
        // Before its events show it: whoever reads the id there can ask for it.
        if (names.length > 0) await nameAnswers(this.db, names)
        if (chunks.length > 0) await appendStreamChunks(this.db, chunks)
        if (ended.length > 0) await deleteStreamChunks(this.db, ended)
      })
      if (chunks.length > 0) this.metrics.groupRows.observe({ group: 'stream_chunks' }, chunks.length)
      await sleep(paceMs)
    }
    // In the same turn as the look that found nothing: what comes next wakes it again.
    this.running = false
  }

  private async persistently(write: () => Promise<void>): Promise<void> {
    while (!this.stopped) {
      try {
        return await write()
      } catch (error) {
        // Away or busy, which the recorder says: the pieces wait in memory, where their answer is too. Refused: not shown, and the stored
        // answer fills the gap. Repeating it would keep all other streams waiting.
        if (!isUnavailable(error) && !isContention(error)) {
          this.log.event('loop.failed', { loop: 'streams', reason: errorReason(error) })
          return
        }
        await sleep(retryMs)
      }
    }
  }

  private takeNames(): { jobId: string; attempt: number; answerId: string }[] {
    const names = []
    for (const stream of this.open) {
      const { jobId, attempt, answerId } = stream
      if (answerId === null) continue
      names.push({ jobId, attempt, answerId })
      stream.answerId = null
    }
    return names
  }

  private takeChunks(): StreamChunk[] {
    const chunks: StreamChunk[] = []
    let bytes = 0
    for (const stream of this.open) {
      if (stream.waiting.length === 0) continue
      const all = stream.waiting.length === 1 ? (stream.waiting[0] as Buffer) : Buffer.concat(stream.waiting)
      stream.waiting = []
      for (let start = 0; start < all.length; start += maxPieceBytes) {
        if (bytes >= maxStatementBytes || chunks.length >= maxStatementRows) {
          stream.waiting = [all.subarray(start)]
          break
        }
        const body = all.subarray(start, start + maxPieceBytes)
        chunks.push({ jobId: stream.jobId, attempt: stream.attempt, position: stream.position, body })
        stream.position += body.length
        bytes += body.length
      }
    }
    return chunks
  }
}
