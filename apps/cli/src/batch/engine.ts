import { setTimeout as sleep } from 'node:timers/promises'
import { isSettled } from '@askonce/core'
import { ApiError, CliError, exitCodes } from '../errors.ts'
import type { Client } from '../http.ts'
import { readJob, type AnsweredJob, type Job } from '../job.ts'
import { submitBulk, type ItemOutcome } from './bulk.ts'
import type { BatchInput } from './input.ts'
import { Signal } from './signal.ts'
import type { Origin } from './tally.ts'

export interface EngineOptions {
  client: Client
  input: BatchInput
  /** Questions that need an answer. */
  asks: readonly number[]
  /** Most questions submitted and not settled: what goes on running, and may cost, when this process is stopped. */
  inFlight: number
  /** How long items that the server does not accept for now are sent again. */
  patienceMs: number
  /** Ends the run from outside, and is aborted by the engine when something fails. */
  stop: AbortController
  onSettled: (ask: number, answered: AnsweredJob, origin: Origin) => Promise<void>
  onRefused: (ask: number, error: { code: string; message: string }) => Promise<void>
  /** Why a job does not run at the moment; null: it is only not finished yet. */
  onWaiting: (job: Job) => void
}

const maxRows = 500
const maxBytes = 4 * 1024 * 1024
const submitters = 3
const waiters = 50
/** Seconds that the server holds an answer back while others stand in line for a waiter, and while none does. */
const crowdedWaitSeconds = 2
const idleWaitSeconds = 20

interface Unsettled {
  ask: number
  id: string
  origin: Origin
}

/**
 * Gets an answer for every question: a few bulk submissions at a time (finished keys come back with their answers at once),
 * then one waiting GET per unfinished job, for up to 50 jobs at a time, oldest first.
 *
 * Waiting by submitting the unfinished rows again was rejected: it sends every prompt again, and a job that failed would
 * run again at each look, so that its failure would never be seen. A waiting GET costs the server one row read when the
 * job settles. Fifty are enough: jobs finish roughly in the order of submission, and a slow one gives its place up after
 * {@link crowdedWaitSeconds}.
 */
export class Engine {
  private readonly options: EngineOptions
  private readonly changed = new Signal()
  private next = 0
  /** To be submitted once more. */
  private readonly again: number[] = []
  private readonly unsettled: Unsettled[] = []
  private outstanding = 0
  private open: number
  private refusedSince: number | null = null

  constructor(options: EngineOptions) {
    this.options = options
    this.open = options.asks.length
  }

  /** Resolves when every question is settled; rejects with the first failure, everything else stopped. */
  async run(): Promise<void> {
    const { stop } = this.options
    stop.signal.addEventListener('abort', () => this.changed.notify())
    const failures: unknown[] = []
    const guard = async (loop: () => Promise<void>): Promise<void> => {
      while (this.open > 0 && !stop.signal.aborted) {
        await loop().catch((error: unknown) => {
          failures.push(error)
          stop.abort()
        })
      }
    }
    await Promise.all([
      ...Array.from({ length: submitters }, () => guard(() => this.submitSome())),
      ...Array.from({ length: waiters }, () => guard(() => this.awaitOne())),
    ])
    if (failures.length > 0) throw failures[0]
    stop.signal.throwIfAborted()
  }

  /** Questions that are to be submitted. */
  private get left(): number {
    return this.again.length + this.options.asks.length - this.next
  }

  private async submitSome(): Promise<void> {
    const { inFlight } = this.options
    const { left } = this
    const room = inFlight - this.outstanding
    // Not for every place that gets free: a request of one row costs nearly as much as one of a hundred.
    const worthwhile = Math.min(left, maxRows, Math.ceil(inFlight / 4))
    if (left === 0 || room < worthwhile) return this.changed.wait()
    const { chunk, items } = await this.take(Math.min(room, maxRows))
    const outcomes = await submitBulk(this.options.client, items)
    const later = await this.record(chunk, outcomes)
    if (later.length === 0) return
    await sleep(500 + Math.random() * 1000, undefined, { signal: this.options.stop.signal })
    this.again.push(...later)
    this.outstanding -= later.length
    this.changed.notify()
  }

  /** Takes the next questions, counted as outstanding from here on, up to the limits of rows and bytes. */
  private async take(rows: number): Promise<{ chunk: number[]; items: string[] }> {
    const { input } = this.options
    const chunk: number[] = []
    const items: string[] = []
    // Reserved before the first await, so that no other submitter takes the same room.
    const reserved: number[] = []
    while (reserved.length < rows && this.left > 0) {
      reserved.push(this.again.pop() ?? (this.options.asks[this.next++] as number))
    }
    this.outstanding += reserved.length
    let bytes = 0
    for (const ask of reserved) {
      if (bytes >= maxBytes) break
      const { item } = await input.prepare(ask)
      chunk.push(ask)
      items.push(item)
      bytes += item.length
    }
    const rest = reserved.slice(chunk.length)
    this.again.push(...rest.toReversed())
    this.outstanding -= rest.length
    return { chunk, items }
  }

  /** Settles what has settled, lines the rest up to be awaited, and returns what must be submitted once more. */
  private async record(chunk: readonly number[], outcomes: readonly ItemOutcome[]): Promise<number[]> {
    const later: number[] = []
    let reason = ''
    for (const [index, outcome] of outcomes.entries()) {
      const ask = chunk[index] as number
      if (outcome.kind === 'later') {
        later.push(ask)
        reason = outcome.message
      } else if (outcome.kind === 'refused') {
        await this.options.onRefused(ask, outcome)
        this.settled()
      } else {
        const { job } = outcome.answered
        // An answer that is too large for a list is read with its job alone.
        const settled = isSettled(job.state) && job.response_url === undefined
        const origin = job.replayed === false ? 'new' : isSettled(job.state) ? 'replayed' : 'attached'
        if (settled) await this.settle(ask, outcome.answered, origin)
        else this.unsettled.push({ ask, id: job.id, origin })
      }
    }
    this.changed.notify()
    this.keepPatience(later.length === outcomes.length, reason)
    return later
  }

  private async awaitOne(): Promise<void> {
    const entry = this.unsettled.shift()
    if (entry === undefined) return this.changed.wait()
    const wait = this.unsettled.length > 0 ? crowdedWaitSeconds : idleWaitSeconds
    const answered = await this.look(entry.id, wait)
    if (answered === null) {
      // Expired, or deleted by somebody, meanwhile: the key is free and the question is asked anew.
      this.again.push(entry.ask)
      this.outstanding -= 1
      this.changed.notify()
    } else if (isSettled(answered.job.state)) {
      await this.settle(entry.ask, answered, entry.origin)
    } else {
      this.unsettled.push(entry)
      this.options.onWaiting(answered.job)
    }
  }

  private async look(id: string, wait: number): Promise<AnsweredJob | null> {
    try {
      const path = `/v1/jobs/${encodeURIComponent(id)}?wait=${wait}`
      const { bytes } = await this.options.client.send({ method: 'GET', path, waitSeconds: wait })
      return readJob(bytes.toString('utf8'))
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return null
      throw error
    }
  }

  private async settle(ask: number, answered: AnsweredJob, origin: Origin): Promise<void> {
    await this.options.onSettled(ask, answered, origin)
    this.settled()
  }

  private settled(): void {
    this.outstanding -= 1
    this.open -= 1
    this.changed.notify()
  }

  private keepPatience(nothingAccepted: boolean, reason: string): void {
    if (!nothingAccepted) this.refusedSince = null
    else this.refusedSince ??= performance.now()
    if (this.refusedSince === null || performance.now() - this.refusedSince < this.options.patienceMs) return
    throw new CliError(
      exitCodes.unreachable,
      `the server accepts nothing: ${reason}`,
      'Run the same command again later.',
    )
  }
}
