import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Arrived {
  method: string
  url: string
  headers: IncomingMessage['headers']
  body: string
}

/** Handles one request; `index` counts them from 0. */
type Handler = (arrived: Arrived, reply: ServerResponse, index: number) => void

/** A small server for clients to be tested against, on the loopback. */
export async function startFakeServer(handle: Handler) {
  const arrived: Arrived[] = []
  const server = createServer((request, reply) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const { method = '', url = '', headers } = request
      const one = { method, url, headers, body: Buffer.concat(parts).toString() }
      arrived.push(one)
      handle(one, reply, arrived.length - 1)
    })
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    arrived,
    keys: () => arrived.map(({ headers }) => headers['idempotency-key']),
    async stop(): Promise<void> {
      server.closeAllConnections()
      await new Promise((resolve) => {
        server.close(resolve)
      })
    },
  }
}

export function sendJson(reply: ServerResponse, status: number, body: unknown, headers: Record<string, string> = {}) {
  reply.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))
}
