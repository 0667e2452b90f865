import { resumeLane } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Parts } from '../context.ts'
import { patiently } from '../patience.ts'
import { Problem } from '../problem.ts'
import { readBody } from '../request-body.ts'
import { sendJson, type ApiRoute } from '../route.ts'
import { lane, laneList, resumeRequest } from '../schemas/lanes.ts'
import { noQuery } from '../schemas/queries.ts'

async function list(parts: Parts, _request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  await patiently(parts.refreshLanes())
  return sendJson(reply, 200, { object: 'list', data: parts.lanes.all(), has_more: false, next_cursor: null })
}

async function resume(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const { model } = readBody(resumeRequest, request.body)
  const { name } = request.params as { name: string }
  const row = await patiently(resumeLane(parts.db, name, model ?? null))
  if (row !== null) {
    parts.announceLane(name)
    parts.log.event('lane.resumed', { lane: name, tenant: request.caller.tenantId, reason: 'on request' })
    await patiently(parts.refreshLanes()).catch(() => undefined)
  }
  const view = parts.lanes.find(name, row)
  if (view === null) throw new Problem('not_found', 'There is no lane of this name.', { param: 'name' })
  return sendJson(reply, 200, view)
}

const shared = { scope: 'operator', tag: 'Lanes', query: noQuery } as const

export const laneRoutes: ApiRoute[] = [
  {
    ...shared,
    method: 'GET',
    path: '/v1/lanes',
    summary: 'List provider lanes',
    description:
      'Each is one provider endpoint. A stopped one waits for a person: money or credentials. A rate limit pauses one model of it. The reasons are the providers’ words about anybody’s request.',
    accepts: [],
    answers: { 200: { description: 'The lanes', schema: laneList } },
    errors: [],
    handle: list,
  },
  {
    ...shared,
    method: 'POST',
    path: '/v1/lanes/{name}/resume',
    summary: 'Open a lane again',
    description: 'Whatever closed it, and every model in it, or only the one that is named. Its waiting jobs go on.',
    accepts: ['application/json'],
    body: resumeRequest,
    answers: { 200: { description: 'The lane', schema: lane } },
    errors: ['not_found'],
    handle: resume,
  },
]
