import { AskonceConnectionError, AskonceError, errorFrom } from './errors.ts'
import type { Transport } from './transport.ts'
import type { Job, KeyedSubmission, Page } from './types.ts'

export type Items = Iterable<KeyedSubmission> | AsyncIterable<KeyedSubmission>

export interface BulkOptions {
  signal?: AbortSignal
  /** Items in one request, at most 10,000 (default). */
  maxItems?: number
  /** Bytes of one request, unless a single item is larger; default 8 MiB. */
  maxBytes?: number
}

/** What became of one item: its job, or why there is none. `index` counts from 0 over all items. */
export type SubmitOutcome =
  | { index: number; key: string; status: number; job: Job; error: null }
  | { index: number; key: string; status: number; job: null; error: AskonceError }

interface WireOutcome {
  status: number
  job?: Job
  error?: unknown
}

interface Line {
  index: number
  key: string
  text: string
}

const mostItems = 10_000
const defaultBytes = 8 * 1024 * 1024

/** Submits items in chunks, one after the other, and yields their outcomes in order. @throws as the transport */
export async function* submitMany(
  transport: Transport,
  items: Items,
  options: BulkOptions,
): AsyncGenerator<SubmitOutcome, void, undefined> {
  const { signal, maxBytes = defaultBytes } = options
  const maxItems = Math.min(mostItems, Math.max(1, options.maxItems ?? mostItems))
  let chunk: Line[] = []
  let bytes = 0
  let index = 0
  for await (const item of items) {
    const line = toLine(item, index)
    const size = new TextEncoder().encode(line.text).length + 1
    if (chunk.length === maxItems || (chunk.length > 0 && bytes + size > maxBytes)) {
      yield* await submitLines(transport, chunk, signal)
      chunk = []
      bytes = 0
    }
    chunk.push(line)
    bytes += size
    index += 1
  }
  if (chunk.length > 0) yield* await submitLines(transport, chunk, signal)
}

/** JSON has no line breaks of its own, so each item is one line of NDJSON. */
export function toLine(item: KeyedSubmission, index: number): Line {
  return { index, key: item.key, text: JSON.stringify(item) }
}

/** An item that was not accepted although others of its request were: it has the same right to another attempt as a request. */
class Unaccepted extends AskonceError {
  readonly lines: readonly Line[]

  constructor(lines: readonly Line[], first: AskonceError) {
    super(first.message, first)
    this.lines = lines
  }
}

/**
 * Submits these lines in one request, or in several if the server's limit is below ours. Those that are not accepted for now are sent
 * again, as often as a request would be; then their error is their outcome.
 * @throws as the transport when a request fails as a whole
 */
export async function submitLines(
  transport: Transport,
  lines: readonly Line[],
  signal: AbortSignal | undefined,
): Promise<SubmitOutcome[]> {
  const outcomes = new Map<number, SubmitOutcome>()
  let left = lines
  try {
    await transport.retrying({ signal }, async () => {
      for (const outcome of await post(transport, left, signal)) outcomes.set(outcome.index, outcome)
      left = left.filter(({ index }) => outcomes.get(index)?.error?.retryable === true)
      const error = left[0] === undefined ? null : outcomes.get(left[0].index)?.error
      if (error) throw new Unaccepted(left, error)
    })
  } catch (error) {
    if (!(error instanceof Unaccepted)) throw error
  }
  return lines.flatMap(({ index }) => outcomes.get(index) ?? [])
}

async function post(
  transport: Transport,
  lines: readonly Line[],
  signal: AbortSignal | undefined,
): Promise<SubmitOutcome[]> {
  try {
    const { data } = await transport.jsonOnce<Page<WireOutcome>>({
      method: 'POST',
      path: '/v1/jobs/bulk',
      headers: { 'content-type': 'application/x-ndjson' },
      body: lines.map(({ text }) => text).join('\n'),
      signal,
    })
    if (data.length !== lines.length) {
      throw new AskonceConnectionError(`The server answered ${data.length} of ${lines.length} items.`)
    }
    return lines.map((line, place) => toOutcome(line, data[place]))
  } catch (error) {
    if (!(error instanceof AskonceError) || error.status !== 413) throw error
    const [only, ...others] = lines
    if (only !== undefined && others.length === 0) {
      return [{ index: only.index, key: only.key, status: 413, job: null, error }]
    }
    const middle = Math.ceil(lines.length / 2)
    const first = await post(transport, lines.slice(0, middle), signal)
    return [...first, ...(await post(transport, lines.slice(middle), signal))]
  }
}

function toOutcome({ index, key }: Line, outcome: WireOutcome | undefined): SubmitOutcome {
  const status = outcome?.status ?? 0
  if (outcome?.job !== undefined) return { index, key, status, job: outcome.job, error: null }
  return { index, key, status, job: null, error: errorFrom(outcome?.error, { fallback: `HTTP ${status}`, status }) }
}
