import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { handle, type Core } from './upstream-handler.ts'
import { createBooks, createHold, type Held } from './upstream-record.ts'
import { createStoredCompletions } from './upstream-stored.ts'
import { compileScript, type Match, type Script } from './upstream-script.ts'

export interface UpstreamOptions {
  /** 0 takes a free one. */
  port?: number
  /** Time to each answer, unless a behaviour says otherwise. */
  latencyMs?: number
  /** Length of the text of each answer, unless a behaviour says otherwise. */
  answerBytes?: number
  /** Pieces of text in a streamed answer, unless a behaviour says otherwise. */
  chunks?: number
  /** Time between two events of a stream, unless a behaviour says otherwise. */
  chunkDelayMs?: number
}

/** A stand-in for both providers that keeps its own count of what it would bill. */
export interface Upstream {
  url: string
  /** Ends in `/v1`, as OPENAI_BASE_URL does. */
  openaiBaseUrl: string
  anthropicBaseUrl: string
  /** Requests that it ran: what a provider would bill. */
  calls: () => number
  /** Requests that reached it at all. */
  arrivals: () => number
  /** Calls by marker (see {@link Arrival}). */
  callsBy: () => Map<string, number>
  /** Requests that wait for their answer now. */
  inFlight: () => number
  /** Rejects when there are fewer after the time given. */
  waitForCalls: (count: number, timeoutMs: number) => Promise<void>
  /** Replaces the script; without one every request is answered. */
  script: (script: Script) => void
  /**
   * From now on the requests that fit are counted and then wait: before anything is sent, or, for streams, when `afterEvents`
   * of their events are sent (all of them, when there are fewer).
   */
  hold: (match?: Match, afterEvents?: number) => Held
  close: () => Promise<void>
}

/** Starts a counting upstream on loopback. `GET /__calls`, `GET /__log?prefix=` (of markers) and `POST /__script` (a JSON list of steps) work from outside. */
export async function startUpstream(options: UpstreamOptions = {}): Promise<Upstream> {
  const core: Core = {
    books: createBooks(),
    stored: createStoredCompletions(),
    holds: new Set(),
    pick: () => undefined,
    waiting: new Set(),
    latencyMs: options.latencyMs ?? 0,
    answerBytes: options.answerBytes ?? 64,
    chunks: options.chunks ?? 4,
    chunkDelayMs: options.chunkDelayMs ?? 0,
  }
  const server = createServer((request, response) => {
    // What a client that hangs up, or close(), does to a request is no failure of the upstream.
    handle(core, request, response).catch(() => response.destroy())
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port ?? 0, '127.0.0.1', 4_096, resolve)
  })
  const { port } = server.address() as AddressInfo
  const url = `http://127.0.0.1:${port}`
  return {
    url,
    openaiBaseUrl: `${url}/v1`,
    anthropicBaseUrl: url,
    calls: () => core.books.calls.value,
    arrivals: () => core.books.arrivals.value,
    callsBy: () => new Map(core.books.callsBy),
    inFlight: () => core.waiting.size,
    waitForCalls: (count, timeoutMs) => core.books.calls.reaches(count, timeoutMs, 'calls'),
    script: (script) => {
      core.pick = compileScript(script)
    },
    hold: (match = {}, afterEvents) => {
      const hold = createHold(match, afterEvents, (released) => core.holds.delete(released))
      core.holds.add(hold)
      return hold
    },
    close: () => close(server),
  }
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve())
    server.closeAllConnections()
  })
}
