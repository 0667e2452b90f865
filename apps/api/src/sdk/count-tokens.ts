import { routeModel, type JsonObject } from '@askonce/core'
import { checkBody } from '@askonce/intake'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { Parts } from '../context.ts'
import { Problem } from '../problem.ts'
import { decodeBody, parseText } from '../request-body.ts'
import type { ApiRoute } from '../route.ts'
import { noQuery } from '../schemas/queries.ts'
import { askUnkeyed } from './unkeyed.ts'

const body = z.looseObject({
  model: z.string().min(1, 'must not be empty').max(200, 'must have at most 200 characters'),
})

/** Nothing is generated, so there is nothing to pay twice: it needs no key. */
async function countTokens(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const text = decodeBody(request.body)
  const { model } = checkBody(body, parseText(text).value as JsonObject)
  const route = routeModel(model, parts.config.lanes)
  if (!route.ok) throw new Problem('invalid_request', route.detail, { param: '/model' })
  const lane = parts.config.lanes.find(({ name }) => name === route.lane)
  if (lane?.kind !== 'anthropic') {
    const detail = `/model: ${JSON.stringify(model)} goes to the lane ${route.lane}, whose provider (${lane?.kind}) does not count tokens; Anthropic’s does, for its own models.`
    throw new Problem('invalid_request', detail, { param: '/model' })
  }
  return askUnkeyed(parts, request, reply, lane, {
    method: 'POST',
    path: '/v1/messages/count_tokens',
    body: Buffer.from(text),
  })
}

export const countTokensRoute: ApiRoute = {
  method: 'POST',
  path: '/anthropic/v1/messages/count_tokens',
  scope: 'submit',
  tag: 'Anthropic SDK',
  summary: 'Count the tokens of a message',
  description: 'Passed on to the provider, and its answer back as it is. It needs no key, and is in no ledger.',
  query: noQuery,
  accepts: ['application/json'],
  body,
  answers: { 200: { description: 'The provider’s count' } },
  errors: ['upstream_failed', 'overloaded'],
  handle: countTokens,
}
