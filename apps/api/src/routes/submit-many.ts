import type { FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import { splitBulk } from '../bulk-items.ts'
import { sendOutcomes } from '../bulk-outcomes.ts'
import { BulkSubmission } from '../bulk-submission.ts'
import type { Parts } from '../context.ts'
import { bodyOf } from '../request-body.ts'
import type { ApiRoute } from '../route.ts'
import { submissionOutcomes } from '../schemas/job.ts'
import { refuseSdkHeaders } from '../sdk/request-headers.ts'
import { noQuery } from '../schemas/queries.ts'

async function submitMany(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  refuseSdkHeaders(request)
  const isNdjson = /^application\/x-ndjson\b/i.test(request.headers['content-type'] ?? '')
  const items = await splitBulk(bodyOf(request), isNdjson)
  const bulk = new BulkSubmission(parts, request.caller, request.id, items)
  return sendOutcomes(reply, await bulk.first(), bulk.rest())
}

/** POST /v1/jobs/bulk. */
export function submitManyRoute(body: z.ZodType): ApiRoute {
  return {
    method: 'POST',
    path: '/v1/jobs/bulk',
    scope: 'submit',
    tag: 'Many jobs',
    summary: 'Submit up to 10,000 jobs',
    description:
      'As JSON, or as NDJSON with one item a line. Every item has its own outcome, in order, with the status that it would have got alone; a bad one does not spoil the rest. An item is accepted when its status is 200 or 202.',
    query: noQuery,
    accepts: ['application/json', 'application/x-ndjson'],
    body,
    example: {
      jobs: ['one', 'two'].map((key) => ({
        key,
        operation: 'chat.completions',
        request: { model: 'simulated/small', messages: [{ role: 'user', content: `Tell me about ${key}.` }] },
      })),
    },
    answers: { 200: { description: 'One outcome for each item, in order', schema: submissionOutcomes } },
    errors: ['overloaded'],
    handle: submitMany,
  }
}
