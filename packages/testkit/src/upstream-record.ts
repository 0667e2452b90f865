import type { Arrival, Match } from './upstream-script.ts'

/** Requests that are kept waiting, counted but unanswered, until somebody releases them. */
export interface Held {
  /** Resolves once this many requests wait; rejects after the time given (10 s unless told otherwise). */
  arrived: (count: number, timeoutMs?: number) => Promise<void>
  /** Lets all of them go on, and no longer holds new ones. */
  release: () => void
}

/** A number that goes up, and promises of its reaching a value. */
export interface Counter {
  readonly value: number
  increment: () => void
  reaches: (count: number, timeoutMs: number, what: string) => Promise<void>
}

function createCounter(): Counter {
  let value = 0
  const waiting = new Set<{ count: number; resolve: () => void }>()
  return {
    get value() {
      return value
    },
    increment: () => {
      value += 1
      for (const waiter of waiting) if (value >= waiter.count) waiter.resolve()
    },
    reaches: (count, timeoutMs, what) =>
      new Promise((resolve, reject) => {
        if (value >= count) return resolve()
        const timer = setTimeout(() => {
          waiting.delete(waiter)
          reject(new Error(`${what}: ${value} of ${count} within ${timeoutMs} ms`))
        }, timeoutMs)
        const waiter = {
          count,
          resolve: () => {
            clearTimeout(timer)
            waiting.delete(waiter)
            resolve()
          },
        }
        waiting.add(waiter)
      }),
  }
}

/** A hold together with the gate that the server makes its requests wait at. */
export interface Hold extends Held {
  match: Match
  /** Holds streams only, when so many of their events are sent; absent: holds before anything is sent. */
  afterEvents: number | undefined
  arrive: () => Promise<void>
}

export function createHold(match: Match, afterEvents: number | undefined, onRelease: (hold: Hold) => void): Hold {
  const counter = createCounter()
  const gate = new AbortController()
  const opened = new Promise<void>((resolve) => {
    gate.signal.addEventListener('abort', () => resolve(), { once: true })
  })
  const hold: Hold = {
    match,
    afterEvents,
    arrived: (count, timeoutMs = 10_000) => counter.reaches(count, timeoutMs, 'held requests'),
    release: () => {
      onRelease(hold)
      gate.abort()
    },
    arrive: () => {
      counter.increment()
      return opened
    },
  }
  return hold
}

/** One request as the upstream saw it: from when to when, and what it would bill. */
export interface LogLine {
  marker: string
  /** Milliseconds since the Unix epoch, with fractions: when its last byte was read, and when its answer or its connection ended. */
  arrivedAt: number
  /** Null: it is still under way. */
  endedAt: number | null
  /** Zero where nothing is billed. */
  inputTokens: number
  outputTokens: number
}

/** A clock that never goes back while the process runs. */
export function epochMs(): number {
  return performance.timeOrigin + performance.now()
}

/** The upstream's own books: what arrived, and what it would bill, in all and by marker. */
export interface Books {
  arrivals: Counter
  calls: Counter
  callsBy: Map<string, number>
  /** Requests for stored completions. */
  lookUps: number
  /** The newest request that was billed. */
  last: Arrival | null
  bill: (arrival: Arrival) => number
  /** Every request in the order of arrival, refused ones included. */
  log: LogLine[]
  /** Opens the line of a request that has just arrived. */
  note: (arrival: Arrival) => LogLine
}

export function createBooks(): Books {
  const calls = createCounter()
  const callsBy = new Map<string, number>()
  const books: Books = {
    arrivals: createCounter(),
    calls,
    callsBy,
    lookUps: 0,
    last: null,
    bill: (arrival) => {
      const { marker } = arrival
      books.last = arrival
      callsBy.set(marker, (callsBy.get(marker) ?? 0) + 1)
      calls.increment()
      return calls.value
    },
    log: [],
    note: ({ marker }) => {
      const line: LogLine = { marker, arrivedAt: epochMs(), endedAt: null, inputTokens: 0, outputTokens: 0 }
      books.log.push(line)
      return line
    },
  }
  return books
}
