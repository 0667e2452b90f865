import { submitLines, toLine, type Items } from './bulk.ts'
import { AskonceError } from './errors.ts'
import { isSettled } from './settled.ts'
import { pause } from './pause.ts'
import type { Transport } from './transport.ts'
import type { Job, KeyedSubmission } from './types.ts'

export interface RunOptions {
  signal?: AbortSignal
  /** Most jobs that are submitted and not settled; default 1,000. More are submitted as these settle. */
  maxUnsettled?: number
  /** Most requests that wait for jobs at the same time; default 32. */
  maxWaiting?: number
}

/**
 * The settled job of one item, or why it has none. A job may have failed, or be uncertain and held for a decision: look at its
 * `state`. `index` counts from 0 over all items.
 */
export type RunResult =
  | { index: number; key: string; job: Job; error: null }
  | { index: number; key: string; job: null; error: AskonceError }

/** Reads a job, at most so many seconds later. */
type Look = (id: string, wait: number, signal: AbortSignal) => Promise<Job>

const chunkSize = 200
const maxChunkBytes = 4 * 1024 * 1024
/** Seconds that the server holds an answer back while other jobs stand in line to be asked for, and while none does. */
const crowdedWait = 2
const idleWait = 30
const shortestLookMs = 500
/** Results that the caller has not taken yet; with more, nothing new is asked for. */
const maxReady = 1000
/** How often an item is asked anew because its job was gone before it could be read. */
const maxRounds = 3

interface Entry {
  index: number
  item: KeyedSubmission
  rounds: number
}

/** Submits, waits and hands out at the same time; see `Askonce.runAll`. */
export async function* runAll(
  transport: Transport,
  look: Look,
  items: Items,
  options: RunOptions,
): AsyncGenerator<RunResult, void, undefined> {
  const run = new Run(transport, look, items, options)
  try {
    yield* run.results()
  } finally {
    run.stop()
  }
}

/**
 * One run. Waiting is one held GET per job, oldest first, for some jobs at a time: jobs settle roughly in the order of
 * submission, and a slow one gives its place up while others stand in line.
 */
class Run {
  readonly #transport: Transport
  readonly #look: Look
  readonly #items: AsyncIterator<KeyedSubmission> | Iterator<KeyedSubmission>
  readonly #signal: AbortSignal
  readonly #end = new AbortController()
  readonly #maxUnsettled: number
  #failure: { reason: unknown } | null = null
  #isRead = false
  #next = 0
  /** Submitted, or about to be, without a result. */
  #open = 0
  readonly #again: Entry[] = []
  readonly #submitted: { entry: Entry; id: string }[] = []
  readonly #ready: RunResult[] = []
  #wake: () => void = () => undefined
  #changed: Promise<void> = Promise.resolve()

  constructor(transport: Transport, look: Look, items: Items, options: RunOptions) {
    const { signal, maxUnsettled = 1000, maxWaiting = 32 } = options
    this.#transport = transport
    this.#look = look
    this.#items = Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]()
    this.#signal = signal === undefined ? this.#end.signal : AbortSignal.any([signal, this.#end.signal])
    this.#maxUnsettled = Math.max(1, maxUnsettled)
    this.#notify()
    this.#signal.addEventListener('abort', () => this.#notify(), { once: true })
    void this.#loop(() => this.#submitSome())
    for (let waiter = 0; waiter < Math.max(1, maxWaiting); waiter += 1) void this.#loop(() => this.#awaitOne())
  }

  async *results(): AsyncGenerator<RunResult, void, undefined> {
    for (;;) {
      const changed = this.#changed
      const result = this.#ready.shift()
      if (result !== undefined) {
        if (this.#ready.length === maxReady - 1) this.#notify()
        yield result
      } else if (this.#failure !== null) {
        throw this.#failure.reason
      } else if (this.#isDone) {
        return
      } else {
        this.#signal.throwIfAborted()
        await changed
      }
    }
  }

  /** Ends what is under way here; jobs go on. Items that are slow to come are not waited for. */
  stop(): void {
    this.#end.abort(new Error('the run has ended'))
    if (!this.#isRead) Promise.resolve(this.#items.return?.()).catch(() => undefined)
  }

  get #isDone(): boolean {
    return this.#isRead && this.#open === 0 && this.#again.length === 0
  }

  #notify(): void {
    this.#wake()
    this.#changed = new Promise((resolve) => {
      this.#wake = resolve
    })
  }

  /** Repeats a step until the run is over. A step that has nothing to do returns what it waits for. */
  async #loop(step: () => Promise<void>): Promise<void> {
    try {
      while (!this.#isDone && !this.#signal.aborted) await step()
    } catch (reason) {
      this.#failure ??= { reason }
      this.#end.abort(reason)
    }
    this.#notify()
  }

  async #submitSome(): Promise<void> {
    const changed = this.#changed
    const room = Math.min(chunkSize, this.#maxUnsettled - this.#open)
    // Not for every place that gets free: a request with one item costs nearly as much as one with a hundred.
    const worthwhile = Math.min(chunkSize, Math.ceil(this.#maxUnsettled / 4))
    const isAllRead = this.#isRead && this.#again.length === 0
    if (isAllRead || room < worthwhile || this.#ready.length >= maxReady) return changed
    const entries = await this.#take(room)
    if (entries.length === 0) return
    const lines = entries.map(({ index, item }) => toLine(item, index))
    const outcomes = await submitLines(this.#transport, lines, this.#signal)
    for (const [place, { index, key, job, error }] of outcomes.entries()) {
      const entry = entries[place]
      if (job === null) this.#settle({ index, key, job, error })
      // An answer that is too large for a list is read with its job alone.
      else if (isSettled(job) && job.response_url === undefined) this.#settle({ index, key, job, error: null })
      else if (entry !== undefined) this.#submitted.push({ entry, id: job.id })
    }
    this.#notify()
  }

  /** The next items, counted as open from here on. */
  async #take(room: number): Promise<Entry[]> {
    const taken: Entry[] = this.#again.splice(0, room)
    let bytes = 0
    while (taken.length < room && bytes < maxChunkBytes && !this.#isRead) {
      const next = await this.#items.next()
      if (next.done === true) {
        this.#isRead = true
      } else {
        taken.push({ index: this.#next, item: next.value, rounds: 1 })
        this.#next += 1
        bytes += JSON.stringify(next.value).length
      }
    }
    this.#open += taken.length
    this.#notify()
    return taken
  }

  async #awaitOne(): Promise<void> {
    const changed = this.#changed
    if (this.#ready.length >= maxReady) return changed
    const next = this.#submitted.shift()
    if (next === undefined) return changed
    const { entry, id } = next
    const { index, item } = entry
    const askedMs = performance.now()
    try {
      const job = await this.#look(id, this.#submitted.length > 0 ? crowdedWait : idleWait, this.#signal)
      if (isSettled(job)) return this.#settle({ index, key: item.key, job, error: null })
    } catch (error) {
      if (!(error instanceof AskonceError) || error.code !== 'not_found') throw error
      return this.#gone(entry, error)
    }
    const leftMs = shortestLookMs - (performance.now() - askedMs)
    if (leftMs > 0) await pause(leftMs, this.#signal)
    this.#submitted.push(next)
    this.#notify()
  }

  /** Expired, or deleted by somebody, before it could be read: the key is free, and the item is asked anew. */
  #gone(entry: Entry, error: AskonceError): void {
    const { index, item, rounds } = entry
    if (rounds >= maxRounds) return this.#settle({ index, key: item.key, job: null, error })
    this.#again.push({ index, item, rounds: rounds + 1 })
    this.#open -= 1
    this.#notify()
  }

  #settle(result: RunResult): void {
    this.#open -= 1
    this.#ready.push(result)
    this.#notify()
  }
}
