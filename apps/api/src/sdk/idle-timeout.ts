import type { FastifyReply, FastifyRequest } from 'fastify'

/** A silent socket is not cut before the answer that it waits for. */
const marginMs = 30_000

/** Lets the connection of this request be silent for longer than others. */
export function allowSilence(request: FastifyRequest, reply: FastifyReply, waitMs: number): void {
  const { socket } = request.raw
  const usualMs = request.server.server.timeout
  socket.setTimeout(waitMs + marginMs)
  reply.raw.once('close', () => socket.setTimeout(usualMs))
}
