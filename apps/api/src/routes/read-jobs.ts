import { readDecisions, readLedger, type JobRow } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { noSuchJob } from '../change.ts'
import type { Parts } from '../context.ts'
import { answerBody, sendBody } from '../answer-body.ts'
import { sendJob } from '../job-view.ts'
import { attemptView, decisionView, duplicateWord, summarisedList, withTotals } from '../ledger-view.ts'
import { patiently } from '../patience.ts'
import { Problem } from '../problem.ts'
import { idOf, isJobId, sendJson, type ApiRoute } from '../route.ts'
import { job } from '../schemas/job.ts'
import { attemptList, decisionList } from '../schemas/ledger.ts'
import { noQuery, waitQuery } from '../schemas/queries.ts'
import { waitForJob, waitOf } from '../wait-for-job.ts'

/** The job in the path, or `not_found`. */
async function jobInPath(parts: Parts, request: FastifyRequest): Promise<JobRow> {
  const id = idOf(request)
  const row = isJobId(id) ? await parts.jobs.read(request.caller.tenantId, id) : null
  if (row === null) throw noSuchJob()
  return row
}

async function get(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const limitMs = waitOf(request, reply)
  const row = await waitForJob(parts, reply, await jobInPath(parts, request), limitMs)
  if (row === null) throw noSuchJob()
  return sendJob(parts, reply, row, { status: 200 })
}

async function getResponse(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const id = idOf(request)
  const row = isJobId(id) ? await parts.jobs.readAnswer(request.caller.tenantId, id) : null
  if (row === null) throw noSuchJob()
  const body = answerBody(parts.db, row)
  if (body === null) {
    throw new Problem('not_found', `The job is ${row.state}; it has no stored answer.`, {
      param: 'id',
      state: row.state,
    })
  }
  void reply
    .header('content-type', row.response_content_type ?? 'application/json')
    .header('x-provider-status', String(row.response_status))
  return sendBody(reply, body)
}

async function getAttempts(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const id = idOf(request)
  const { tenantId } = request.caller
  if (!isJobId(id)) throw noSuchJob()
  const { attempts, totals } = await patiently(readLedger(parts.db, tenantId, id))
  // The ledger outlives the job: only an id that has neither is unknown.
  if (attempts.length === 0) await jobInPath(parts, request)
  const rows = attempts.map((row) => JSON.stringify(attemptView(row)))
  return sendJson(reply, 200, summarisedList(rows, withTotals({ duplicate: duplicateWord(totals) }, totals)))
}

async function getDecisions(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const id = idOf(request)
  const { tenantId } = request.caller
  const rows = isJobId(id) ? await patiently(readDecisions(parts.db, tenantId, id)) : []
  // They outlive the job, as the ledger does.
  if (rows.length === 0) await jobInPath(parts, request)
  return sendJson(reply, 200, { object: 'list', data: rows.map(decisionView), has_more: false, next_cursor: null })
}

const shared = { method: 'GET', scope: 'read', tag: 'Jobs', accepts: [], errors: ['not_found'] } as const

export const readRoutes: ApiRoute[] = [
  {
    ...shared,
    path: '/v1/jobs/{id}',
    summary: 'Read a job, with its answer',
    query: waitQuery,
    headers: { Prefer: { required: false, description: '`wait=N`, as `?wait=N`' } },
    answers: { 200: { description: 'The job', schema: job } },
    handle: get,
  },
  {
    ...shared,
    path: '/v1/jobs/{id}/response',
    summary: 'Read the stored answer: the provider’s bytes',
    description: 'Byte for byte what the provider sent, with its content type; its status is in `x-provider-status`.',
    query: noQuery,
    answers: { 200: { description: 'The answer', contentType: '*/*' } },
    handle: getResponse,
  },
  {
    ...shared,
    path: '/v1/jobs/{id}/attempts',
    summary: 'Read the ledger of a job',
    description:
      'Every attempt with what it cost, oldest first, and what they come to. The ledger outlives the job. A duplicate is an attempt that was (or may have been) billed besides the one that is kept: the one whose answer is stored, else the first that was billed.',
    query: noQuery,
    answers: { 200: { description: 'The attempts', schema: attemptList } },
    handle: getAttempts,
  },
  {
    ...shared,
    path: '/v1/jobs/{id}/decisions',
    summary: 'Read who decided what about a job',
    description:
      'Every retry, fail and cancel that changed the job, oldest first: when, by which API key, and why. They outlive the job, as the ledger does.',
    query: noQuery,
    answers: { 200: { description: 'The decisions', schema: decisionList } },
    handle: getDecisions,
  },
]
