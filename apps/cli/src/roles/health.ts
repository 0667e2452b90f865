import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Metrics } from '@askonce/telemetry'
import { refusal } from '../errors.ts'

export interface HealthOptions {
  host: string
  port: number
  metrics: Metrics
  /** Why the process cannot work; empty: it can. */
  problems: () => Promise<string[]> | string[]
}

/** `/healthz`, `/readyz` and `/metrics` of a process that has no HTTP surface of its own. Resolves with its address. */
export function startHealthServer({
  host,
  port,
  metrics,
  problems,
}: HealthOptions): Promise<{ address: string; close: () => Promise<void> }> {
  const server = createServer((request, response) => {
    void answer(request.url ?? '', response).catch(() => response.writeHead(500).end())
  })
  const answer = async (url: string, response: ServerResponse): Promise<void> => {
    if (url === '/healthz') return json(response, 200, { status: 'ok' })
    if (url === '/readyz') {
      const found = await problems()
      return json(response, found.length === 0 ? 200 : 503, {
        status: found.length === 0 ? 'ok' : 'unavailable',
        problems: found,
      })
    }
    if (url === '/metrics') {
      const { contentType, text } = await metrics.render()
      response.writeHead(200, { 'content-type': contentType }).end(text)
      return
    }
    json(response, 404, { status: 'not found' })
  }
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(
        error.code === 'EADDRINUSE'
          ? refusal(`port ${port} on ${host} is in use. Set ASKONCE_HEALTH_PORT to another one.`)
          : error,
      )
    })
    server.listen(port, host, () => {
      resolve({
        address: `http://${host}:${(server.address() as AddressInfo).port}`,
        close: () =>
          new Promise((done) => {
            server.close(() => done())
            server.closeAllConnections()
          }),
      })
    })
  })
}

function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}
