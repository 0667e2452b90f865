import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { startUpstream, type Arrival, type Behaviour, type Upstream } from '@askonce/testkit'

/** What the counting upstream does with a prompt, one behaviour for each request; the last one stays. */
export interface Prompts {
  upstream: Upstream
  /** From now on. Without it a prompt is answered. */
  answer: (prompt: string, ...behaviours: Behaviour[]) => void
  /** Requests with this prompt that have reached the upstream, refused ones included. */
  calls: (prompt: string) => number
  /** The newest of them. */
  last: (prompt: string) => Arrival
}

/** The text that a request asks about, in the form of any of the four calls. */
function promptOf({ messages, input }: Record<string, unknown>): string {
  const asked = Array.isArray(messages) ? (messages as { role: string; content: unknown }[]) : []
  const last = asked.findLast(({ role, content }) => role === 'user' && typeof content === 'string')
  return String(last?.content ?? input)
}

export async function startPrompts(): Promise<Prompts> {
  const upstream = await startUpstream()
  const behaviours = new Map<string, Behaviour[]>()
  const seen = new Map<string, Arrival[]>()
  upstream.script((arrival) => {
    const prompt = promptOf(arrival.json)
    seen.set(prompt, [...(seen.get(prompt) ?? []), arrival])
    const left = behaviours.get(prompt) ?? []
    return left.length > 1 ? left.shift() : left[0]
  })
  return {
    upstream,
    answer: (prompt, ...list) => void behaviours.set(prompt, list),
    calls: (prompt) => seen.get(prompt)?.length ?? 0,
    last: (prompt) => {
      const arrival = seen.get(prompt)?.at(-1)
      if (arrival === undefined) throw new Error(`nobody has asked ${prompt}`)
      return arrival
    },
  }
}

/** What the front does with one request: answers 503 itself, before or after the API has seen it; or cuts the connection. */
export type Trouble = '503 before' | '503 after' | 'cut before' | 'cut after'

export interface Front {
  url: string
  /** For the next requests, one each; later ones pass. */
  trouble: (...troubles: Trouble[]) => void
  /** Requests that have come. */
  requests: () => number
  close: () => Promise<void>
}

/** A load balancer before the API, with the troubles that load balancers have. */
export async function startFront(target: string): Promise<Front> {
  const next: Trouble[] = []
  let count = 0
  const server = createServer((request, response) => {
    count += 1
    pass(target, request, response, next.shift()).catch(() => response.destroy())
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    trouble: (...troubles) => void next.push(...troubles),
    requests: () => count,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

async function pass(
  target: string,
  request: IncomingMessage,
  response: ServerResponse,
  trouble: Trouble | undefined,
): Promise<void> {
  const body: Buffer[] = []
  for await (const chunk of request) body.push(chunk as Buffer)
  if (trouble === 'cut before') return void response.destroy()
  if (trouble === '503 before') return busy(response)
  const { method, headers } = request
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    httpRequest(`${target}${request.url}`, { method, headers }, resolve).once('error', reject).end(Buffer.concat(body))
  })
  if (trouble === undefined) {
    response.writeHead(answer.statusCode ?? 0, answer.headers)
    answer.pipe(response)
    return
  }
  answer.destroy()
  if (trouble === 'cut after') response.destroy()
  else busy(response)
}

function busy(response: ServerResponse): void {
  response.writeHead(503, { 'content-type': 'text/html', 'retry-after-ms': '10' }).end('<html>busy</html>')
}
