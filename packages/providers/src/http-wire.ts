import { setMaxListeners } from 'node:events'
import { setImmediate, setTimeout as sleep } from 'node:timers/promises'
import { timeLimit } from '@askonce/timing'
import { errors, Pool, type Dispatcher } from 'undici'
import type { Broken, Exchange, Wire, WireCall } from './exchange.ts'
import { Reception } from './reception.ts'

/** How often the loop is let round to the sockets before a call is given up, while each round brings something. */
const maxRounds = 1_000

/**
 * HTTP/1.1 over a connection pool of its own. The number of connections has no cap: the worker bounds the calls in flight,
 * and a cap here would make a call wait unsent while its timeout runs.
 * Idle sockets are dropped after 4 s (10 s at most when the server promises more): reusing one that the server is closing
 * makes the call's fate unknown, which costs far more than a handshake.
 * Headers may be larger than Node's default of 16 KiB: a paid answer is not refused for them.
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
    send: (call) => exchange(pool, headers, call),
    close: () => pool.destroy(),
  }
}

function exchange(pool: Pool, requestHeaders: Record<string, string>, call: WireCall): Promise<Exchange> {
  return new Promise((resolve) => {
    let settled = false
    let givingUp = false
    let controller: Dispatcher.DispatchController | null = null

    const finish = (result: Exchange): void => {
      if (settled) return
      settled = true
      cancelLimit()
      call.signal.removeEventListener('abort', onAbort)
      reception.close()
      resolve(result)
    }
    const unfinished = (reason: Broken['reason'], detail: string): Broken => {
      return {
        kind: 'broken',
        reason,
        sent: controller !== null,
        detail,
        status: reception.status,
        headers: reception.headers,
      }
    }
    const conclude = (broken: Broken | null): void => void reception.conclude(broken).then(finish)
    const reception = new Reception(call.reader, {
      /** Nothing that may still come is waited for: the socket is closed. */
      onEnough: (result) => {
        finish(result)
        controller?.abort(new Error('the answer is complete'))
      },
      onBehind: () => controller?.pause(),
      onRoom: () => controller?.resume(),
    })
    /**
     * What has arrived counts. Behind a stall of the process or of its loop timers fire before sockets are read, so the loop goes
     * round to the sockets first, until that brings nothing more.
     * Settles before it aborts: undici can abort only what it has started, and a call that waits for a connection is not to wait on.
     */
    const giveUp = async (reason: Broken['reason'], detail: string): Promise<void> => {
      if (givingUp) return
      givingUp = true
      if (controller !== null) await untilRead(reception)
      if (settled) return
      finish(await reception.conclude(unfinished(reason, detail)))
      controller?.abort(new Error(detail))
    }
    const onAbort = (): void => void giveUp('aborted', 'aborted by the caller')
    const cancelLimit = timeLimit(
      call.timeoutMs,
      () => void giveUp('timeout', `no complete answer within ${call.timeoutMs} ms`),
    )

    if (call.signal.aborted) return onAbort()
    // One signal may end thousands of calls: a drain.
    setMaxListeners(0, call.signal)
    call.signal.addEventListener('abort', onAbort, { once: true })
    pool.dispatch(
      {
        path: call.path,
        method: call.body === null ? 'GET' : 'POST',
        headers: call.headers === undefined ? requestHeaders : { ...call.headers, ...requestHeaders },
        body: call.body,
        // Our timer covers the whole call; these would fire before it has looked at what has arrived.
        headersTimeout: 0,
        bodyTimeout: 0,
      },
      {
        /**
         * undici calls this with a connection in hand, synchronously before it writes the request: before it nothing has
         * left. Aborting here keeps the request from being written, which is what happens to a call that was given up
         * while it waited for the connection, and to a second start, which would be a hidden retry.
         */
        onRequestStart: (started) => {
          if (settled || givingUp || controller !== null) {
            started.abort(new Error('given up before it was sent'))
            return
          }
          controller = started
          call.onSent()
        },
        onResponseStart: (_, code, received) => {
          if (code >= 200) reception.head(code, received)
        },
        onResponseData: (_, chunk) => {
          if (!settled) reception.data(chunk)
        },
        onResponseEnd: () => conclude(null),
        onResponseError: (_, error) => {
          // Given up before it was sent, or while the sockets are read: giveUp says what became of it.
          if (!givingUp || controller !== null) conclude(unfinished(reasonOf(error), describe(error)))
        },
      },
    )
  })
}

/** Resolves when a round of the event loop brings nothing more of this response. Two, because what is read is handed on a turn later. */
async function untilRead(reception: Reception): Promise<void> {
  for (let rounds = 0, still = 0; still < 2 && rounds < maxRounds; rounds += 1) {
    const before = reception.events
    await (reception.isBehind() ? sleep(1) : setImmediate())
    still = reception.events === before && !reception.isBehind() ? still + 1 : 0
  }
}

function reasonOf(error: Error): Broken['reason'] {
  if (error instanceof errors.HTTPParserError || error instanceof errors.HeadersOverflowError) return 'garbled'
  return 'lost'
}

/** Node reports a host with several addresses as an AggregateError without a message of its own. */
function describe(error: Error): string {
  const all: unknown[] = error instanceof AggregateError ? error.errors : [error]
  return all.map((one) => (one instanceof Error ? one.message || one.name : String(one))).join('; ')
}
