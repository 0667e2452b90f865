import { version } from '@askonce/config'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Parts } from '../context.ts'
import { sendJson, type ApiRoute } from '../route.ts'
import { health, readiness } from '../schemas/lanes.ts'
import { anyQuery } from '../schemas/queries.ts'

function isAlive(_parts: Parts, _request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  return Promise.resolve(sendJson(reply, 200, { status: 'ok', version }))
}

/**
 * 503 only when this process cannot serve: a lane in trouble, BullMQ away, or a worker in the same process that cannot keep its answers,
 * keeps nobody from submitting and reading.
 */
async function isReady(parts: Parts, _request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const checks = await parts.readiness.check()
  const lanes = parts.lanes.allPublic()
  const serves = checks.database.ok && checks.schema.ok
  const wellEnough = checks.queue.ok && checks.worker?.ok !== false && lanes.every(({ state }) => state !== 'stopped')
  const status = serves ? (wellEnough ? 'ready' : 'degraded') : 'unavailable'
  if (!serves) void reply.header('retry-after', '2')
  return sendJson(reply.header('cache-control', 'no-store'), serves ? 200 : 503, { status, checks, lanes })
}

async function metrics(parts: Parts, _request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  parts.metrics.setLaneStates(parts.lanes.allPublic())
  parts.metrics.setPausedModels(parts.lanes.pausedModels())
  const { contentType, text } = await parts.metrics.render()
  return reply.header('content-type', contentType).send(text)
}

const shared = { method: 'GET', scope: null, tag: 'Server', query: anyQuery, accepts: [], errors: [] } as const

/** For whoever opens the address that `npm start` prints: where everything else is. */
const pages = {
  '/docs': 'every call of the HTTP API, to read and to try (OpenAPI 3.1 at /openapi.json)',
  '/readyz': 'whether the server can work, and what is in trouble',
  '/metrics': 'figures for Prometheus',
}
const inRepository = ['README.md', 'docs/migrating.md', 'docs/client.md', 'docs/billing.md', 'docs/operations.md']

function front(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  if (request.headers.accept?.includes('text/html') !== true) {
    return Promise.resolve(sendJson(reply, 200, { name: 'askonce', version, pages, repository: inRepository }))
  }
  // Relative without a public address: a proxy may have taken something off the path.
  const base = parts.config.http.publicUrl ?? '.'
  const links = Object.entries(pages).map(([path, what]) => `<li><a href="${base}${path}">${path}</a>: ${what}</li>`)
  const files = inRepository.map((file) => `<code>${file}</code>`).join(', ')
  const page = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Askonce</title>
<h1>Askonce ${version}</h1>
<p>Ask an LLM once per key; get the stored answer as often as you like.</p>
<ul>${links.join('')}</ul>
<p>In the repository: ${files}</p></html>
`
  return Promise.resolve(
    reply
      .header('content-type', 'text/html; charset=utf-8')
      .header('content-security-policy', "default-src 'none'; frame-ancestors 'none'")
      .send(page),
  )
}

export const serverRoutes: ApiRoute[] = [
  {
    ...shared,
    path: '/',
    summary: 'Where the pages are',
    answers: { 200: { description: 'Paths and what is there; for a browser a page of links' } },
    handle: front,
  },
  {
    ...shared,
    path: '/healthz',
    summary: 'Is the process alive',
    answers: { 200: { description: 'It is', schema: health } },
    handle: isAlive,
  },
  {
    ...shared,
    path: '/readyz',
    summary: 'Can the process serve',
    answers: {
      200: { description: 'It can; `degraded` names what is in trouble', schema: readiness },
      503: { description: 'It cannot: Postgres is away, or its schema is not this version’s', schema: readiness },
    },
    handle: isReady,
  },
  {
    ...shared,
    path: '/metrics',
    summary: 'Metrics for Prometheus',
    answers: { 200: { description: 'Text format', contentType: 'text/plain' } },
    handle: metrics,
  },
]
