import { setMaxListeners } from 'node:events'
import { arrivals, timeLimit } from '@askonce/timing'
import { errors, Pool, type Dispatcher } from 'undici'
import { decodeBody, isPlain } from './decode.ts'
import type { Broken, Exchange, Headers, Response, Wire, WireCall } from './exchange.ts'

/** undici's own timers only back up ours, which covers the whole call. */
const timeoutMarginMs = 30_000

/**
 * HTTP/1.1 over a connection pool of its own. The number of connections has no cap: the worker bounds the calls in flight,
 * and a cap here would make a call wait unsent while its timeout runs.
 * Idle sockets are dropped after 4 s (10 s at most when the server promises more): reusing one that the server is closing
 * makes the call's fate unknown, which costs far more than a handshake.
 * A paid answer is never refused for its size, and its headers may be larger than Node's default of 16 KiB.
 */
export function createHttpWire(origin: string, headers: Record<string, string>): Wire {
  const pool = new Pool(origin, {
    connections: null,
    pipelining: 1,
    allowH2: false,
    keepAliveTimeout: 4_000,
    keepAliveMaxTimeout: 10_000,
    connectTimeout: 10_000,
    maxHeaderSize: 256 * 1024,
  })
  return {
    send: async (call) => decodeBody(await exchange(pool, headers, call)),
    close: () => pool.destroy(),
  }
}

function exchange(pool: Pool, requestHeaders: Record<string, string>, call: WireCall): Promise<Exchange> {
  return new Promise((resolve) => {
    let settled = false
    let controller: Dispatcher.DispatchController | null = null
    let status: number | null = null
    let headers: Headers = {}
    let onData: WireCall['onData']
    const chunks: Buffer[] = []

    const finish = (result: Exchange): void => {
      if (settled) return
      settled = true
      cancelLimit()
      call.signal.removeEventListener('abort', onAbort)
      resolve(result)
    }
    const breakOff = (reason: Broken['reason'], detail: string): void => {
      finish({ kind: 'broken', reason, sent: controller !== null, detail, status, headers })
    }
    /** Settles first: undici can abort only what it has started, and a call that waits for a connection is not to wait on. */
    const stop = (reason: Broken['reason'], detail: string): void => {
      if (settled) return
      breakOff(reason, detail)
      controller?.abort(new Error(detail))
    }
    const giveUp = (): void => stop('aborted', 'aborted by the caller')
    // An answer that the socket holds already has been paid for: it is read first.
    const onAbort = (): void => void arrivals().then(giveUp)
    const cancelLimit = timeLimit(call.timeoutMs, () =>
      stop('timeout', `no complete answer within ${call.timeoutMs} ms`),
    )

    if (call.signal.aborted) return giveUp()
    // One signal may end thousands of calls: a drain.
    setMaxListeners(0, call.signal)
    call.signal.addEventListener('abort', onAbort, { once: true })
    pool.dispatch(
      {
        path: call.path,
        method: call.body === null ? 'GET' : 'POST',
        headers: call.headers === undefined ? requestHeaders : { ...call.headers, ...requestHeaders },
        body: call.body,
        headersTimeout: call.timeoutMs + timeoutMarginMs,
        bodyTimeout: call.timeoutMs + timeoutMarginMs,
      },
      {
        /**
         * undici calls this with a connection in hand, synchronously before it writes the request: before it nothing has
         * left. Aborting here keeps the request from being written, which is what happens to a call that was given up
         * while it waited for the connection, and to a second start, which would be a hidden retry.
         */
        onRequestStart: (started) => {
          if (settled || controller !== null) {
            started.abort(new Error('given up before it was sent'))
            return
          }
          controller = started
          call.onSent()
        },
        onResponseStart: (_, code, received) => {
          if (code < 200) return
          status = code
          headers = received
          if (code <= 299 && isPlain(headers)) onData = call.onData
        },
        onResponseData: (_, chunk) => {
          chunks.push(chunk)
          if (!settled) onData?.(chunk)
        },
        onResponseEnd: () => {
          const response: Response = { kind: 'response', status: status ?? 0, headers, body: Buffer.concat(chunks) }
          finish(response)
        },
        onResponseError: (_, error) => breakOff(reasonOf(error), describe(error)),
      },
    )
  })
}

function reasonOf(error: Error): Broken['reason'] {
  if (error instanceof errors.HeadersTimeoutError || error instanceof errors.BodyTimeoutError) return 'timeout'
  if (error instanceof errors.HTTPParserError || error instanceof errors.HeadersOverflowError) return 'garbled'
  return 'lost'
}

/** Node reports a host with several addresses as an AggregateError without a message of its own. */
function describe(error: Error): string {
  const all: unknown[] = error instanceof AggregateError ? error.errors : [error]
  return all.map((one) => (one instanceof Error ? one.message || one.name : String(one))).join('; ')
}
