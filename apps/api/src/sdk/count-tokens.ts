import { measureJson, routeModel, type JsonObject } from '@askonce/core'
import { checkBody, decodeBody, parseText } from '@askonce/intake'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { Parts } from '../context.ts'
import { Problem } from '../problem.ts'
import { bodyOf } from '../request-body.ts'
import type { ApiRoute } from '../route.ts'
import { noQuery } from '../schemas/queries.ts'
import { askUnkeyed } from './unkeyed.ts'

const body = z.looseObject({
  model: z.string().min(1, 'must not be empty').max(200, 'must have at most 200 characters'),
})

const maxBytes = 8 * 1024 * 1024
const maxValues = 50_000

/** Nothing is generated, so there is nothing to pay twice: it needs no key. */
async function countTokens(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const bytes = bodyOf(request)
  // It is parsed here and now, for its model alone.
  if (bytes.length > maxBytes || measureJson(bytes).values > maxValues) {
    throw new Problem('payload_too_large', `At most ${maxBytes} bytes and ${maxValues} JSON values are counted.`, {
      param: '',
    })
  }
  const text = decodeBody(bytes)
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
  errors: ['upstream_failed', 'overloaded', 'payload_too_large'],
  handle: countTokens,
}
