import type { IncomingMessage, ServerResponse } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Problem } from './problem.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Set by `createServer`. */
    bodies: Bodies
  }
  interface FastifyRequest {
    /** Bytes of its body that are in memory. A member of its own: a map of requests costs more than all that is counted in it. */
    heldBytes: number
  }
}

/** Bodies in memory at once, arriving or being read, in bytes: the API has 1 GiB for everything. */
const maxHeldBytes = 192 * 1024 * 1024
/** Of a tenant: nobody is refused because of one other. */
const maxHeldOfTenant = maxHeldBytes / 2
/** A body of so few bytes is always taken. */
const smallBytes = 64 * 1024
/** A body of so few is not counted: of all connections together they are 40 MB. */
const uncountedBytes = 4 * 1024
/** What follows of a refused body is read and thrown away, so that its sender reads the refusal; up to so many bytes. */
const maxDrainedBytes = 256 * 1024 * 1024
/** How long a connection is half open after its last answer, for a sender that has not read it yet. */
const lingerMs = 2_000

const tooLarge = (most: number): Problem =>
  new Problem('payload_too_large', `The body is larger than this server accepts: ${most} bytes.`)

/** Bytes that a client says it will send; 0: it does not say. */
function declaredBytes({ headers }: IncomingMessage): number {
  return Number(headers['content-length'] ?? 0)
}

/**
 * Request bodies: how they come into memory, how many of them may be there at once, and how one that is refused ends, so that whoever sends it
 * can read why.
 */
export class Bodies {
  private readonly maxBytes: number
  private readonly responses = new WeakMap<IncomingMessage, ServerResponse>()
  /** Requests that wait to be told to send their body. */
  private readonly expecting = new WeakSet<IncomingMessage>()
  private readonly heldOf = new Map<string, number>()
  private heldBytes = 0

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes
  }

  /** It sends its body only once it is told so: not before it is clear that the body is wanted. */
  expect(request: IncomingMessage, response: ServerResponse): void {
    this.expecting.add(request)
    this.responses.set(request, response)
  }

  /** Whatever becomes of it, it is not held once the connection is done with it: a client that leaves is answered by nobody. */
  watch(request: FastifyRequest, reply: FastifyReply): void {
    const { headers } = request.raw
    if (headers['transfer-encoding'] === undefined && declaredBytes(request.raw) <= uncountedBytes) return
    reply.raw.once('close', () => this.release(request))
  }

  /** The body is wanted: its sender may go on. */
  welcome(request: IncomingMessage): void {
    if (this.expecting.delete(request)) this.responses.get(request)?.writeContinue()
  }

  /** @throws Problem `payload_too_large` when it says itself that it is larger */
  check(request: IncomingMessage, most: number): void {
    if (declaredBytes(request) > most) throw tooLarge(most)
  }

  /**
   * The whole body, which counts as held until {@link release}.
   * @throws Problem `payload_too_large`, or `overloaded` when too much is held already
   */
  async read(asked: FastifyRequest): Promise<Buffer> {
    const { raw: request } = asked
    this.check(request, this.maxBytes)
    const full = this.lackOfRoom(asked, declaredBytes(request))
    if (full !== null) throw full
    this.welcome(request)
    return new Promise((resolve, reject) => {
      const chunks: Buffer[] = []
      let size = 0
      const leave = (): void => {
        request.off('data', take).off('end', end).off('error', cut).off('close', cut)
      }
      const fail = (error: Error): void => {
        leave()
        this.release(asked)
        reject(error)
      }
      const take = (chunk: Buffer): void => {
        size += chunk.length
        if (size > this.maxBytes) return fail(tooLarge(this.maxBytes))
        const lack = this.lackOfRoom(asked, size)
        if (lack !== null) return fail(lack)
        if (size > uncountedBytes) this.hold(asked, size - asked.heldBytes)
        chunks.push(chunk)
      }
      const end = (): void => {
        leave()
        resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks))
      }
      const cut = (): void => fail(new Problem('invalid_request', 'The body was cut off.'))
      request.on('data', take).on('end', end).on('error', cut).on('close', cut)
      // Its client left while the key was looked up.
      if (request.destroyed) cut()
    })
  }

  /** The body is not in memory any more. */
  release(request: FastifyRequest): void {
    if (request.heldBytes > 0) this.hold(request, -request.heldBytes)
  }

  /** Whether the connection must end with this answer: its client was never told to send the body, and may do so or not. */
  isUndecided(request: IncomingMessage): boolean {
    if (!this.expecting.has(request)) return false
    linger(request)
    return true
  }

  /** It is answered. What is left of its body is read and thrown away, within bounds. */
  drain(request: IncomingMessage): void {
    if (request.complete) return
    let left = maxDrainedBytes
    request.on('data', (chunk: Buffer) => {
      left -= chunk.length
      if (left >= 0) return
      left = Number.POSITIVE_INFINITY
      linger(request)
      request.socket.destroySoon()
    })
    request.resume()
  }

  private hold(request: FastifyRequest, bytes: number): void {
    const tenant = tenantOf(request)
    request.heldBytes += bytes
    this.heldBytes += bytes
    const sum = (this.heldOf.get(tenant) ?? 0) + bytes
    if (sum > 0) this.heldOf.set(tenant, sum)
    else this.heldOf.delete(tenant)
  }

  /** One body alone is always taken, however large it may be by the configuration. */
  private lackOfRoom(request: FastifyRequest, size: number): Problem | null {
    if (size <= smallBytes) return null
    const own = request.heldBytes
    const ofTenant = (this.heldOf.get(tenantOf(request)) ?? 0) - own
    const ofAll = this.heldBytes - own
    const isFull = (ofTenant > 0 && ofTenant + size > maxHeldOfTenant) || (ofAll > 0 && ofAll + size > maxHeldBytes)
    return isFull
      ? new Problem('overloaded', 'Too many large requests are being read; this one was not accepted.')
      : null
  }
}

/** A request to a path that does not exist has no caller. */
function tenantOf({ caller }: { caller?: FastifyRequest['caller'] }): string {
  return caller?.tenantId ?? ''
}

/** Its connection then ends by a half-close, and for good when the sender has had time to read: else it would read a reset. */
function linger({ socket }: IncomingMessage): void {
  socket.destroySoon = () => {
    socket.end()
    setTimeout(() => socket.destroy(), lingerMs).unref()
  }
}
