import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'

declare module 'fastify' {
  interface FastifyInstance {
    /** Set by `createServer`. */
    arrivals: Arrivals
  }
}

/** A request that has not arrived whole may be as old as this. */
const limitMs = 120_000
/** How often it is looked. */
const checkEveryMs = 5_000

/**
 * Requests whose body is still coming, so that one that never ends is cut off. Node's own `requestTimeout` does the same for all requests of
 * a server, and an upload of 200 MB on a slow line is late for a reason: a route that reads its body as it comes lets it go from here, and
 * what bounds it is the time without traffic, and its size. Requests without a known key are never let go.
 */
export class Arrivals {
  /** When each began, oldest first. */
  private readonly begun = new Map<IncomingMessage, number>()
  private readonly timer: NodeJS.Timeout
  private readonly onLate: (socket: Socket) => void

  constructor(onLate: (socket: Socket) => void) {
    this.onLate = onLate
    this.timer = setInterval(() => this.check(), checkEveryMs)
    this.timer.unref()
  }

  begin(request: IncomingMessage): void {
    this.begun.set(request, performance.now())
  }

  /** It may take as long as it wants. */
  release(request: IncomingMessage): void {
    this.begun.delete(request)
  }

  /** It is answered. What is left of its body, which is read and thrown away, must still arrive in time. */
  answered(request: IncomingMessage): void {
    if (request.complete) this.begun.delete(request)
    else if (!this.begun.has(request)) this.begin(request)
  }

  close(): void {
    clearInterval(this.timer)
  }

  private check(): void {
    const before = performance.now() - limitMs
    for (const [request, begunAt] of this.begun) {
      if (begunAt > before) return
      this.begun.delete(request)
      if (!request.complete && !request.socket.destroyed) this.onLate(request.socket)
    }
  }
}
