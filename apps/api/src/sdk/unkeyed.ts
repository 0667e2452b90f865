import type { LaneConfig } from '@askonce/config'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Parts } from '../context.ts'
import { Problem } from '../problem.ts'
import { requestHeaders } from './request-headers.ts'

/** Questions of all callers together that wait for providers: they are held in memory, and nothing else bounds them. */
const maxAtOnce = 32
/** Of one tenant: others find room. */
const maxOfTenant = 8
let atOnce = 0
const atOnceOf = new Map<string, number>()

interface Asked {
  method: 'GET' | 'POST'
  path: string
  body: Buffer | null
}

/** Passes a question on to the provider of a lane, and its answer back as it is. It has no key, makes no job and is in no ledger. */
export async function askUnkeyed(
  parts: Parts,
  request: FastifyRequest,
  reply: FastifyReply,
  lane: LaneConfig,
  asked: Asked,
): Promise<FastifyReply> {
  const { tenantId } = request.caller
  const ofTenant = atOnceOf.get(tenantId) ?? 0
  if (atOnce >= maxAtOnce || ofTenant >= maxOfTenant) {
    const waiting = ofTenant >= maxOfTenant ? `${maxOfTenant} of your questions` : `${maxAtOnce} questions`
    throw new Problem('overloaded', `${waiting} wait for providers already.`)
  }
  const gone = new AbortController()
  const leave = (): void => gone.abort()
  reply.raw.once('close', leave)
  atOnce += 1
  atOnceOf.set(tenantId, ofTenant + 1)
  try {
    const { passThrough } = await import('@askonce/providers')
    const answer = await passThrough(
      { name: lane.name, kind: lane.kind, baseUrl: lane.baseUrl, apiKey: lane.apiKey?.reveal() ?? null },
      { ...asked, headers: requestHeaders(request, parts.config.forwardHeaders) ?? {}, signal: gone.signal },
    )
    if (answer.kind === 'lost') {
      throw new Problem('upstream_failed', `The provider of the lane ${lane.name} has not answered: ${answer.detail}`)
    }
    const { status, contentType, body, requestId, retryAfter } = answer
    if (requestId !== null) void reply.header('x-askonce-provider-request-id', requestId)
    if (retryAfter !== null) void reply.header('retry-after', retryAfter)
    return await reply.code(status).header('content-type', contentType).send(body)
  } finally {
    atOnce -= 1
    const left = (atOnceOf.get(tenantId) ?? 1) - 1
    if (left > 0) atOnceOf.set(tenantId, left)
    else atOnceOf.delete(tenantId)
    reply.raw.off('close', leave)
  }
}

/** The first lane that is on and speaks to providers of this kind; null: there is none. */
export function laneOfKind(parts: Parts, kind: LaneConfig['kind']): LaneConfig | null {
  const lanes = parts.config.lanes.filter((lane) => lane.kind === kind)
  // The built-in lane is named as its kind: its account is the one that most models are asked of.
  return lanes.find(({ name }) => name === kind) ?? lanes[0] ?? null
}
