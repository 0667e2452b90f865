import { randomUUID } from 'node:crypto'
import type { Socket } from 'node:net'
import { Problem, problemDocument, problemHeaders } from './problem.ts'

const details: Record<string, string> = {
  HPE_HEADER_OVERFLOW: 'The headers are larger than 16 KiB.',
  ERR_HTTP_REQUEST_TIMEOUT: 'The request did not arrive in time.',
}

/**
 * Whether Node calls a request late that never began: proxies open connections in store, and would read an answer that they never asked
 * for, or send their next request into the end of the connection.
 */
export function isUnused(error: NodeJS.ErrnoException, socket: Socket): boolean {
  return error.code === 'ERR_HTTP_REQUEST_TIMEOUT' && socket.bytesRead === 0
}

/** Answers what is not HTTP enough to become a request, in the one shape, and closes the connection. */
export function answerRawProblem(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const problem = new Problem('invalid_request', details[error.code ?? ''] ?? 'This is not a well-formed HTTP request.')
  const requestId = randomUUID()
  const body = JSON.stringify(problemDocument(problem, { id: requestId, url: '' }))
  const headers = {
    ...problemHeaders(problem),
    'x-request-id': requestId,
    'content-length': String(Buffer.byteLength(body)),
    connection: 'close',
  }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.end(`HTTP/1.1 400 Bad Request\r\n${lines.join('')}\r\n${body}`)
}
