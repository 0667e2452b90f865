import { createSplitter, endsStream, isWholeEvent, type JobState } from '@askonce/core'
import { isUnavailable, StoreUnavailableError, type JobRow, type StreamCursor, type StreamPage } from '@askonce/store'
import { noSuchJob } from '../change.ts'
import type { Parts } from '../context.ts'
import { Problem } from '../problem.ts'
import { inTurns } from './in-turns.ts'
import { refusalOf, unanswered } from './settled-answer.ts'

/** Hints may be lost: so often a follower looks by itself. */
const pollMs = 500
/** Proxies cut connections that are silent for a minute; this server one whose client takes nothing for two. */
const keepAliveMs = 15_000
/** How long a follower that has begun waits for Postgres to come back. */
const outageMs = 60_000

/** Without a blank line behind it: at one, Python's SDKs fire an event that has no data once they have seen an id. */
const keepAlive = Buffer.from(': keep-alive\n')

/** A larger event is not held, once for each follower. */
const largeBytes = 1024 * 1024
/** How an event begins that every reader takes as it is: perhaps with its name, and with JSON. */
const plainHead = /^(?:event: ?[^\r\n]+\n)?data: ?\{/
const headBytes = 256

/** Names an event of a stream: the attempt whose it is, and its number in there, from 0. */
export interface EventId {
  attempt: number
  index: number
}

export interface Following {
  job: JobRow
  /** The last event that the client has; null: it begins. */
  after: EventId | null
  /** The client has events of one attempt, whichever it was: nothing is shown to it behind the end of that one. `show` must know it. */
  resumes?: boolean
  /** What the client gets of an event; null: it is not for this client. May throw: that ends the stream. */
  show: (event: Buffer, id: EventId) => Buffer | null
  /** An event of many megabytes is passed on as it comes, without `show`: nobody holds it, and what it says does not matter here. */
  passesLarge?: boolean
  /** An error in the middle of the stream, in the client's dialect; `refusal`: the body of the provider's, where it is one of the provider. */
  showProblem: (problem: Problem, refusal: Buffer | null) => Buffer
  /** Whether the client has gone. */
  isGone: () => boolean
  /** What follows the last event. */
  ending?: (() => Promise<Buffer>) | undefined
  /** Until the first event has come; after it the stream goes on as long as its attempt does. */
  limitMs: number
}

/**
 * The stream of a job, in pieces to be sent: what its newest attempt has shown so far, what it shows from now on, and after its commit the
 * rest of the stored answer. Nothing of another attempt is ever put behind what was sent: that ends with an error event.
 *
 * Throws as long as nothing was yielded, so that the answer can have a status ({@link Unanswered}: that of the job); afterwards it
 * never throws and never just ends.
 * It holds one page at a time, whatever the client's speed.
 */
export async function* follow(parts: Parts, following: Following): AsyncGenerator<Buffer, void, undefined> {
  const follower = new Follower(parts, following)
  let begun = false
  try {
    for await (const bytes of follower.run()) {
      begun = true
      yield bytes
    }
  } catch (error) {
    if (!begun) throw error
    const refusal = error instanceof Unanswered ? refusalOf(error.row) : null
    if (follower.large === 'passed') yield Buffer.from('\n\n')
    yield following.showProblem(asProblem(error), refusal?.body.whole ?? null)
  }
}

/** The provider has answered without a stream: with JSON, which is the answer all the same. */
export class AnsweredOtherwise extends Error {}

/** The job has ended, or is held, and its stream with it. */
export class Unanswered extends Error {
  readonly row: JobRow

  constructor(row: JobRow) {
    super(`the job is ${row.state}`)
    this.row = row
  }
}

/** Whether the stored answer is no stream. */
function isOtherwise({ length, contentType }: StreamPage): boolean {
  return length !== null && contentType?.includes('event-stream') !== true
}

function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error
  if (error instanceof AnsweredOtherwise) {
    return new Problem(
      'upstream_failed',
      'The provider answered without a stream, after this one had begun. Send the same request with the same key again: it gets the answer as it is.',
    )
  }
  if (error instanceof Unanswered) return unanswered(error.row)
  return new Problem('unavailable', 'The database does not answer. Send the same request with the same key again.', {
    cause: error,
  })
}

class Follower {
  private readonly parts: Parts
  private readonly following: Following
  private cursor: StreamCursor
  private splitter = createSplitter()
  private index = 0
  /** Whether the event has come that ends the answer: what a provider writes behind it is none of it, and SDKs would throw at it. */
  private ended = false
  /** What becomes of the event that comes, once it is large: parts of it have been passed on, or it is held like any other. */
  large: 'passed' | 'held' | null = null
  /** Whether the large event that is passed on ends the answer. */
  private largeEnds = false
  /** Whether the client has an event: of the cursor's attempt, where that is known. */
  private begun: boolean

  constructor(parts: Parts, following: Following) {
    this.parts = parts
    this.following = following
    this.begun = following.after !== null || following.resumes === true
    this.cursor = {
      tenantId: following.job.tenant_id,
      jobId: following.job.id,
      attempt: following.after?.attempt ?? null,
      position: 0,
    }
  }

  async *run(): AsyncGenerator<Buffer, void, undefined> {
    const { parts, following } = this
    const startedAt = performance.now()
    let sentAt = startedAt
    let answeredAt = startedAt
    for (;;) {
      // Where nothing is for this client, nothing else tells that it has gone.
      if (following.isGone()) return
      // Looked at before the read: what has come by then is shown.
      const isOver = performance.now() - startedAt >= following.limitMs
      const news = parts.streams.wait(this.cursor.jobId, pollMs)
      const page = await this.read(answeredAt)
      if (page !== null) {
        answeredAt = performance.now()
        this.checkAttempt(page)
        if (isOtherwise(page)) {
          if (following.ending === undefined) throw new AnsweredOtherwise('the answer is no stream')
          yield await following.ending()
          return
        }
        const bytes = await this.take(page)
        if (bytes.length > 0) {
          sentAt = performance.now()
          yield bytes
        }
        if (page.length !== null && this.cursor.position >= page.length) {
          if (following.ending !== undefined) yield await following.ending()
          return
        }
        if (page.bytes.length > 0) continue
        await this.checkState(page.state)
      }
      if (parts.streams.closed) {
        throw new Problem('unavailable', 'The server is stopping. Send the same request with the same key again.')
      }
      if (!this.begun && isOver) throw unanswered(await this.job())
      await news
      if (performance.now() - sentAt < keepAliveMs) continue
      sentAt = performance.now()
      yield keepAlive
    }
  }

  /** Null: Postgres is away, which a client that has begun need not know for a while. */
  private async read(answeredAt: number): Promise<StreamPage | null> {
    try {
      return await this.parts.streams.read(this.cursor)
    } catch (error) {
      const away = error instanceof StoreUnavailableError || isUnavailable(error)
      if (!away || !this.begun || performance.now() - answeredAt > outageMs) throw error
      return null
    }
  }

  private checkAttempt(page: StreamPage): void {
    const { attempt, state } = page
    if (state === null) throw noSuchJob()
    if (this.begun && isOtherwise(page)) throw interrupted()
    if (this.cursor.attempt === null || this.cursor.attempt === attempt) return
    if (this.begun) throw interrupted()
    this.startOver()
  }

  private startOver(): void {
    this.cursor = { ...this.cursor, attempt: null, position: 0 }
    this.splitter = createSplitter()
    this.index = 0
    this.ended = false
    this.large = null
  }

  /** The bytes of a page that the client gets. */
  private async take({ attempt, bytes, length }: StreamPage): Promise<Buffer> {
    if (bytes.length === 0) return bytes
    this.cursor = { ...this.cursor, attempt, position: this.cursor.position + bytes.length }
    const shown: Buffer[] = []
    for await (const events of inTurns(this.splitter, bytes)) {
      this.show(events, attempt, shown)
      this.passLarge(attempt, shown)
    }
    // A provider may leave out the empty line behind its last event, or break off in one that no longer counts.
    const last = length !== null && this.cursor.position >= length ? this.splitter.rest() : null
    if (last !== null && (this.large === 'passed' || isWholeEvent(last)))
      this.show([Buffer.concat([last, Buffer.from('\n\n')])], attempt, shown)
    if (shown.length > 0) this.begun = true
    return Buffer.concat(shown)
  }

  /** What has come of an event that is too large to be waited for. The rest comes as if it were an event. */
  private passLarge(attempt: number, shown: Buffer[]): void {
    const { after, passesLarge = false } = this.following
    if (!passesLarge || this.ended || this.large === 'held') return
    const isFirst = this.large === null
    if (isFirst) {
      if (this.splitter.restBytes() <= largeBytes) return
      this.large = plainHead.test(this.splitter.rest().toString('latin1', 0, headBytes)) ? 'passed' : 'held'
      if (this.large === 'held') return
      this.largeEnds = endsStream(this.splitter.rest())
    }
    const parts = this.splitter.take()
    if (after !== null && this.index <= after.index) return
    if (isFirst) shown.push(Buffer.from(`id: ${attempt}-${this.index}\n`))
    shown.push(...parts)
  }

  private show(events: readonly Buffer[], attempt: number, shown: Buffer[]): void {
    const { after, show } = this.following
    for (const event of events) {
      if (this.ended) break
      const isRest = this.large === 'passed'
      this.ended = isRest ? this.largeEnds : endsStream(event)
      this.large = null
      const id = { attempt, index: this.index }
      this.index += 1
      if (after !== null && id.index <= after.index) continue
      const piece = isRest ? event : show(event, id)
      if (piece !== null) shown.push(piece)
    }
  }

  /** Nothing more comes of an attempt that has ended. */
  private async checkState(state: JobState | null): Promise<void> {
    if (state === 'running' || state === 'succeeded') return
    if (state !== 'queued') throw new Unanswered(await this.job())
    if (this.begun) throw interrupted()
    if (this.cursor.attempt !== null) this.startOver()
  }

  private async job(): Promise<JobRow> {
    const row = await this.parts.jobs.read(this.following.job.tenant_id, this.cursor.jobId)
    if (row === null) throw noSuchJob()
    return row
  }
}

/** What a client is told whose events are not of the answer. */
export function interrupted(): Problem {
  return new Problem(
    'stream_interrupted',
    'The call whose stream this was has ended without the stored answer. Send the same request with the same key again, from the beginning of the stream.',
  )
}
