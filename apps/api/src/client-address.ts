import { isIP } from 'node:net'
import type { FastifyRequest } from 'fastify'

/**
 * The address that a request came from, for the log: of the connection, or what a trusted proxy says in `X-Forwarded-For`. Some
 * write a port behind it; what is no address is not repeated.
 */
export function clientAddress({ ip, socket }: Pick<FastifyRequest, 'ip' | 'socket'>): string {
  const given = plain(ip ?? '')
  return isIP(given) ? given : plain(socket.remoteAddress ?? '')
}

/** Without port and brackets, and an IPv4 address as such where the socket is of both families. */
function plain(text: string): string {
  const bare = /^(?:\[([^\]]+)\]|([\d.]+))(?::\d+)?$/.exec(text)
  return (bare?.[1] ?? bare?.[2] ?? text).replace(/^::ffff:(?=\d+\.)/i, '')
}
