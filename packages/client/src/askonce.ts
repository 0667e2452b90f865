import { submitMany, type BulkOptions, type SubmitOutcome } from './bulk.ts'
import { AskonceError } from './errors.ts'
import { followStream, type StreamEvent, type StreamOptions } from './events.ts'
import { pause } from './pause.ts'
import { runAll, type RunOptions, type RunResult } from './run-all.ts'
import { isSettled } from './settled.ts'
import { Transport, type AskonceOptions } from './transport.ts'
import type { AttemptList, Decision, DeletedJob, Job, JobQuery, KeyedSubmission, Page, RetryDecision } from './types.ts'

export interface CallOptions {
  /** Ends the call; it then rejects with the reason of the signal. What was submitted goes on. */
  signal?: AbortSignal
}

export interface WaitOptions extends CallOptions {
  /** Seconds that the server waits for the job to settle, 0 to 60; default 0. */
  wait?: number
}

/** The stored answer: the provider's bytes. */
export interface StoredResponse {
  bytes: Uint8Array
  contentType: string
  providerStatus: number
}

/** Longest wait that the server takes. */
const longestWait = 60
/** A server that stops ends its waits at once; asked again without a pause it would be asked a thousand times. */
const shortestRoundMs = 1000

/**
 * A client for the native API. Requests are sent again, with growing pauses, after lost connections and answers that may pass;
 * submissions are keyed, so that costs nothing. Everything rejects with {@link AskonceError}, `AskonceConnectionError`, or the reason of
 * its signal.
 */
export class Askonce {
  readonly #transport: Transport

  constructor(options: AskonceOptions = {}) {
    this.#transport = new Transport(options)
  }

  /** Submits one job; the same key with the same request joins what is there. With `wait` it may come back settled. */
  async submit(submission: KeyedSubmission, { wait, signal }: WaitOptions = {}): Promise<Job> {
    const { key, ...body } = submission
    return this.#transport.json({
      method: 'POST',
      path: '/v1/jobs',
      headers: keyHeader(key),
      body,
      ...waiting(wait),
      signal,
    })
  }

  /** The job, with its answer if it has one. */
  get(id: string, { wait, signal }: WaitOptions = {}): Promise<Job> {
    return this.#read(id, wait, signal)
  }

  /** Waits until the job is settled, however long that takes: succeeded, failed, cancelled, or uncertain and held for a decision. */
  async wait(id: string, { signal }: CallOptions = {}): Promise<Job> {
    for (;;) {
      const askedMs = performance.now()
      const job = await this.#read(id, longestWait, signal)
      if (isSettled(job)) return job
      const leftMs = shortestRoundMs - (performance.now() - askedMs)
      if (leftMs > 0) await pause(leftMs, signal)
    }
  }

  /** The stored answer, byte for byte. Rejects with `not_found` where there is none. */
  async response(id: string, { signal }: CallOptions = {}): Promise<StoredResponse> {
    const { headers, bytes } = await this.#transport.bytes({ method: 'GET', path: `${pathOf(id)}/response`, signal })
    return {
      bytes,
      contentType: headers.get('content-type') ?? '',
      providerStatus: Number(headers.get('x-provider-status')),
    }
  }

  /** Jobs, newest first, page after page for as long as you read on. */
  async *list(query: JobQuery = {}, options: CallOptions = {}): AsyncGenerator<Job, void, undefined> {
    let cursor: string | null = null
    do {
      const page: Page<Job> = await this.listPage({ ...query, ...(cursor === null ? {} : { cursor }) }, options)
      yield* page.data
      cursor = page.next_cursor
    } while (cursor !== null)
  }

  /** One page of them; `cursor` is the `next_cursor` of the page before. */
  async listPage(query: JobQuery & { cursor?: string } = {}, { signal }: CallOptions = {}): Promise<Page<Job>> {
    return this.#transport.json({ method: 'GET', path: '/v1/jobs', query: { ...query }, signal })
  }

  /** The ledger of a job; it outlives the job. */
  async attempts(id: string, { signal }: CallOptions = {}): Promise<AttemptList> {
    return this.#transport.json({ method: 'GET', path: `${pathOf(id)}/attempts`, signal })
  }

  /** Cancels a job that has not ended. A running call is aborted; it may be billed all the same. */
  async cancel(id: string, decision: Decision = {}, { signal }: CallOptions = {}): Promise<Job> {
    return this.#change(id, 'cancel', decision, signal, ({ state }) => state === 'cancelled')
  }

  /**
   * Runs a failed, cancelled or uncertain job again. With `generation` it is sent again when the connection breaks; without, it is
   * not, because it could run the job twice.
   */
  async retry(id: string, decision: RetryDecision = {}, { signal }: CallOptions = {}): Promise<Job> {
    const { generation } = decision
    const isDone = (job: Job): boolean => generation !== undefined && job.generation === generation + 1
    return this.#change(id, 'retry', decision, signal, isDone, generation === undefined)
  }

  /** Decides that an uncertain job has failed. */
  async fail(id: string, decision: Decision = {}, { signal }: CallOptions = {}): Promise<Job> {
    return this.#change(id, 'fail', decision, signal, ({ state }) => state === 'failed')
  }

  /**
   * Forgets a job that has ended: its answer is gone and its key is free. The ledger stays. One that was or may have been paid and has no
   * answer needs `accept_duplicate_charge`.
   */
  remove(id: string, options: CallOptions & { accept_duplicate_charge?: boolean } = {}): Promise<DeletedJob> {
    const { signal, accept_duplicate_charge: consent = false } = options
    const query = consent ? { accept_duplicate_charge: 'true' } : {}
    return this.#transport.retrying({ signal }, async (retries) => {
      try {
        return await this.#transport.jsonOnce<DeletedJob>({ method: 'DELETE', path: pathOf(id), query, signal })
      } catch (error) {
        // Gone: by the request before, whose answer was lost.
        if (retries > 0 && hasStatus(error, 404)) return { id, object: 'job', deleted: true }
        throw error
      }
    })
  }

  /**
   * Submits any number of jobs, up to 10,000 in one request, and yields one outcome for each, in order. Items that the server
   * does not accept for now are sent again.
   */
  submitMany(
    items: Iterable<KeyedSubmission> | AsyncIterable<KeyedSubmission>,
    options: BulkOptions = {},
  ): AsyncGenerator<SubmitOutcome, void, undefined> {
    return submitMany(this.#transport, items, options)
  }

  /**
   * The events of a job that was submitted with `stream: true`, from the beginning or after `lastEventId`, over lost connections,
   * until the server has sent the ending. An error in the stream is thrown.
   */
  stream(id: string, options: StreamOptions = {}): AsyncGenerator<StreamEvent, void, undefined> {
    return followStream(this.#transport, `${pathOf(id)}/events`, options)
  }

  /**
   * Submits every item, waits for all of them, and yields the results as they come. The keys are yours: run it again with the same
   * items after a crash and it goes on where it was; what has an answer is not paid for again.
   */
  runAll(
    items: Iterable<KeyedSubmission> | AsyncIterable<KeyedSubmission>,
    options: RunOptions = {},
  ): AsyncGenerator<RunResult, void, undefined> {
    const look = (id: string, wait: number, signal: AbortSignal): Promise<Job> => this.#read(id, wait, signal)
    return runAll(this.#transport, look, items, options)
  }

  /** A change that is sent again may find itself done already: then the job as it is now is its answer. */
  #change(
    id: string,
    name: 'cancel' | 'retry' | 'fail',
    decision: Decision,
    signal: AbortSignal | undefined,
    isDone: (job: Job) => boolean,
    once = false,
  ): Promise<Job> {
    const call = { method: 'POST', path: `${pathOf(id)}/${name}`, body: decision, signal } as const
    return this.#transport.retrying({ signal, once }, async (retries) => {
      try {
        return await this.#transport.jsonOnce<Job>(call)
      } catch (error) {
        if (retries === 0 || !hasStatus(error, 409)) throw error
        const job = await this.#read(id, undefined, signal)
        if (!isDone(job)) throw error
        return job
      }
    })
  }

  #read(id: string, wait: number | undefined, signal: AbortSignal | undefined): Promise<Job> {
    return this.#transport.json({ method: 'GET', path: pathOf(id), ...waiting(wait), signal })
  }
}

function pathOf(id: string): string {
  return `/v1/jobs/${encodeURIComponent(id)}`
}

function waiting(wait: number | undefined): { wait?: number } {
  return wait === undefined ? {} : { wait }
}

function hasStatus(error: unknown, status: number): boolean {
  return error instanceof AskonceError && error.status === status
}

/** Headers hold no other characters; a key in a body is judged by the server in the same way. */
function keyHeader(key: string): Record<string, string> {
  if (/^[\x20-\x7e]{1,255}$/.test(key)) return { 'idempotency-key': key }
  throw new AskonceError('The key must have 1 to 255 printable ASCII characters.', {
    code: 'idempotency_key_invalid',
    status: 400,
    param: 'Idempotency-Key',
  })
}
