import type { FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import { changeMany } from '../bulk-change.ts'
import { sendOutcomes } from '../bulk-outcomes.ts'
import { changeJobs, changes, noSuchJob, type Change } from '../change.ts'
import type { Parts } from '../context.ts'
import { readBody } from '../request-body.ts'
import { idOf, sendJson, type ApiRoute } from '../route.ts'
import {
  bulkChangeBody,
  bulkDeleteBody,
  bulkRetryBody,
  decisionBody,
  retryBody,
  type BulkChangeBody,
} from '../schemas/changes.ts'
import { changeOutcomes, deletedJob, deleteOutcomes, job } from '../schemas/job.ts'
import { consentQuery, noQuery } from '../schemas/queries.ts'

/** POST /v1/jobs/{id}/<change>. */
function changeOne(
  change: Change,
  body: z.ZodType,
  summary: string,
  description: string,
  errors: ApiRoute['errors'],
): ApiRoute {
  return {
    method: 'POST',
    path: `/v1/jobs/{id}/${change.name}`,
    scope: 'submit',
    tag: 'Jobs',
    summary,
    description,
    query: noQuery,
    accepts: ['application/json'],
    body,
    answers:
      change.news === 'due'
        ? { 202: { description: 'It is queued', schema: job } }
        : { 200: { description: 'It has ended', schema: job } },
    errors: ['not_found', 'state_conflict', ...errors],
    async handle(parts: Parts, request: FastifyRequest, reply: FastifyReply) {
      const asked = readBody(body, request.body) as z.infer<typeof retryBody>
      const { accept_duplicate_charge: consent = false, reason = null, generation = null } = asked
      const [outcome] = await changeJobs(parts, change, [idOf(request)], {
        caller: request.caller,
        consent,
        reason,
        generation,
      })
      if (outcome === undefined || 'problem' in outcome) throw outcome?.problem ?? noSuchJob()
      return sendJson(reply, outcome.status, outcome.job)
    },
  }
}

/** POST /v1/jobs/bulk/<change>. */
function changeSeveral(change: Change, body: z.ZodType, summary: string, schema: z.ZodType = changeOutcomes): ApiRoute {
  return {
    method: 'POST',
    path: `/v1/jobs/bulk/${change.name}`,
    scope: 'submit',
    tag: 'Many jobs',
    summary,
    description:
      'Jobs by `ids` (up to 10,000), or by `filter`, newest first. With a filter at most 10,000 are handled at once; when `has_more` says so, send the same with `cursor`.',
    query: noQuery,
    accepts: ['application/json'],
    body,
    example: { filter: { state: change.from[0] } },
    answers: { 200: { description: 'One outcome for each job', schema } },
    errors: [],
    async handle(parts: Parts, request: FastifyRequest, reply: FastifyReply) {
      const asked = readBody(body, request.body) as BulkChangeBody
      const outcomes = changeMany({ parts, change, caller: request.caller, body: asked, reply })
      const first = await outcomes.next()
      // It always has a first part; the type of a generator does not know.
      return sendOutcomes(reply, first.done === true ? { items: [], nextCursor: null } : first.value, outcomes)
    },
  }
}

async function remove(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const { accept_duplicate_charge: consent } = request.query as z.infer<typeof consentQuery>
  const asked = { caller: request.caller, consent: consent === 'true', reason: null, generation: null }
  const [outcome] = await changeJobs(parts, changes.delete, [idOf(request)], asked)
  if (outcome === undefined || 'problem' in outcome) throw outcome?.problem ?? noSuchJob()
  return sendJson(reply, outcome.status, outcome.job)
}

const { retry, cancel, fail } = changes

export const changeRoutes: ApiRoute[] = [
  changeOne(
    cancel,
    decisionBody,
    'Cancel a job',
    'A running call is aborted wherever it runs; it may still be billed, as the ledger then says.',
    [],
  ),
  changeOne(
    retry,
    retryBody,
    'Run a failed, cancelled or uncertain job again',
    'A job that was billed, or may have been, runs again only with `{"accept_duplicate_charge": true}`, unless its policy lets it run unasked.',
    ['consent_required'],
  ),
  changeOne(fail, decisionBody, 'Decide that an uncertain job has failed', 'A late answer is still stored.', []),
  {
    method: 'DELETE',
    path: '/v1/jobs/{id}',
    scope: 'submit',
    tag: 'Jobs',
    summary: 'Forget a job that has ended',
    description:
      'Its request and answer are gone, also from the results of batches, and its key is free; the ledger stays. A job that was billed, or may have been, and has no answer needs `accept_duplicate_charge=true`, and leaves a decision.',
    query: consentQuery,
    accepts: [],
    answers: { 200: { description: 'It is gone', schema: deletedJob } },
    errors: ['not_found', 'state_conflict', 'consent_required'],
    handle: remove,
  },
  changeSeveral(cancel, bulkChangeBody, 'Cancel many jobs'),
  changeSeveral(retry, bulkRetryBody, 'Run many jobs again'),
  changeSeveral(fail, bulkChangeBody, 'Decide that many uncertain jobs have failed'),
  changeSeveral(changes.delete, bulkDeleteBody, 'Forget many jobs that have ended', deleteOutcomes),
]
