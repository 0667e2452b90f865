import { findByAnswerId, readWholeAnswer, type JobRow } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import { changeJobs, changes } from '../change.ts'
import type { Parts } from '../context.ts'
import { patiently } from '../patience.ts'
import { Problem } from '../problem.ts'
import { idOf, sendJson, type ApiRoute } from '../route.ts'
import { consentQuery, noQuery } from '../schemas/queries.ts'
import { jobIdOf, responseInStream, responseOf } from './response-object.ts'
import { resumeResponse } from './resume-response.ts'
import { jobHeaders, sendProviderAnswer } from './settled-answer.ts'

const retrieveQuery = z.looseObject({
  stream: z.enum(['true', 'false'], { error: 'must be true or false' }).optional().describe('Follow its stream'),
  starting_after: z
    .string()
    .regex(/^\d{1,9}$/, 'must be a sequence number')
    .meta({ type: 'integer', minimum: 0 })
    .optional()
    .describe('Only events behind the one with this sequence number'),
})

/** The job behind a response's id, ours or the provider's. */
async function jobOf(parts: Parts, request: FastifyRequest): Promise<JobRow> {
  const { tenantId } = request.caller
  const responseId = idOf(request)
  const id =
    jobIdOf(responseId) ??
    (responseId.length > 200 || responseId.includes('\0')
      ? null
      : await patiently(findByAnswerId(parts.db, tenantId, 'responses', responseId)))
  const row = id === null ? null : await parts.jobs.read(tenantId, id)
  if (row?.operation === 'responses') return row
  throw new Problem('not_found', 'There is no response with this id, or it has expired.', { param: 'id' })
}

async function retrieve(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const { stream, starting_after: startingAfter } = request.query as z.infer<typeof retrieveQuery>
  const row = await jobOf(parts, request)
  void reply.headers(jobHeaders(row))
  if (stream === 'true') return resumeResponse(parts, request, reply, row, startingAfter)
  return sendResponse(parts, reply, row)
}

/** A response as it stands: the provider's own object once there is one. */
export async function sendResponse(parts: Parts, reply: FastifyReply, row: JobRow): Promise<FastifyReply> {
  if (row.state !== 'succeeded') return sendJson(reply, 200, responseOf(row))
  if (row.response_content_type?.includes('event-stream') !== true) return sendProviderAnswer(parts, reply, row)
  const transcript = await patiently(readWholeAnswer(parts.db, row))
  if (transcript === null) {
    const detail = 'The stream of this response is too large to be read whole: follow it again with stream=true.'
    throw new Problem('payload_too_large', detail, { param: 'stream' })
  }
  return sendJson(reply, 200, (await responseInStream(transcript)) ?? responseOf(row))
}

async function cancel(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const row = await jobOf(parts, request)
  const asked = { caller: request.caller, consent: false, reason: null, generation: null }
  const [outcome] = await changeJobs(parts, changes.cancel, [row.id], asked)
  if (outcome !== undefined && 'problem' in outcome) throw outcome.problem
  return sendJson(reply, 200, responseOf(await jobOf(parts, request)))
}

async function remove(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const row = await jobOf(parts, request)
  const { accept_duplicate_charge: consent } = request.query as z.infer<typeof consentQuery>
  const asked = { caller: request.caller, consent: consent === 'true', reason: null, generation: null }
  const [outcome] = await changeJobs(parts, changes.delete, [row.id], asked)
  // Somebody else may have deleted it since.
  if (outcome !== undefined && 'problem' in outcome && outcome.problem.code !== 'not_found') throw outcome.problem
  return sendJson(reply, 200, { id: idOf(request), object: 'response', deleted: true })
}

const base = { tag: 'OpenAI SDK', accepts: [], errors: ['not_found'] } as const

export const responseRoutes: ApiRoute[] = [
  {
    ...base,
    method: 'GET',
    path: '/openai/v1/responses/{id}',
    scope: 'read',
    summary: 'Retrieve a response',
    description:
      'By the provider’s id or by the one that a background response got at first. With `stream=true` the stream again, from `starting_after` on, while it runs and afterwards.',
    query: retrieveQuery,
    answers: { 200: { description: 'The provider’s response; queued or in_progress while there is none' } },
    handle: retrieve,
  },
  {
    ...base,
    method: 'DELETE',
    path: '/openai/v1/responses/{id}',
    scope: 'submit',
    summary: 'Forget a response',
    description:
      'The answer is gone and its key is free; the ledger stays. One that was billed, or may have been, and has no answer needs `accept_duplicate_charge=true`.',
    query: consentQuery,
    answers: { 200: { description: 'It is gone' } },
    errors: ['not_found', 'state_conflict', 'consent_required'],
    handle: remove,
  },
  {
    ...base,
    method: 'POST',
    path: '/openai/v1/responses/{id}/cancel',
    scope: 'submit',
    summary: 'Cancel a response',
    description: 'A call that runs is aborted wherever it runs; it may have been billed.',
    query: noQuery,
    answers: { 200: { description: 'It is cancelled' } },
    errors: ['not_found', 'state_conflict'],
    handle: cancel,
  },
]
