import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { arrivals } from '@askonce/timing'

declare module 'fastify' {
  interface FastifyInstance {
    /** Set by `createServer`. */
    arrivals: Arrivals
  }
}

/** How often it is looked. */
const checkEveryMs = 5_000
/** A request that has not arrived whole in so many looks, two minutes, is late. Counted in looks: a process that stood still took none. */
const mostLooks = 24

/**
 * Requests whose body is still coming, so that one that never ends is cut off. Node's own `requestTimeout` does the same for all requests of
 * a server, and an upload of 200 MB on a slow line is late for a reason: a route that reads its body as it comes lets it go from here, and
 * what bounds it is the time without traffic, and its size. Requests without a known key are never let go.
 */
export class Arrivals {
  /** At which look each began, oldest first. */
  private readonly begun = new Map<IncomingMessage, number>()
  private looks = 0
  private readonly timer: NodeJS.Timeout
  private readonly onLate: (socket: Socket) => void

  constructor(onLate: (socket: Socket) => void) {
    this.onLate = onLate
    this.timer = setInterval(() => this.look(), checkEveryMs)
    this.timer.unref()
  }

  begin(request: IncomingMessage): void {
    this.begun.set(request, this.looks)
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

  private look(): void {
    this.looks += 1
    for (const [request, begunAt] of this.begun) {
      if (begunAt > this.looks - mostLooks) return
      this.begun.delete(request)
      void this.cutOff(request)
    }
  }

  private async cutOff(request: IncomingMessage): Promise<void> {
    // What the socket holds already has arrived.
    await arrivals()
    if (!request.complete && !request.socket.destroyed) this.onLate(request.socket)
  }
}
