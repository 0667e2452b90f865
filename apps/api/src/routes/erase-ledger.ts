import { eraseAttempts, eraseDecisions } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Parts } from '../context.ts'
import { readBody } from '../request-body.ts'
import { isJobId, sendJson, type ApiRoute } from '../route.ts'
import { eraseBody, erasedRows } from '../schemas/erase.ts'
import { noQuery } from '../schemas/queries.ts'

/** Rows of one statement. */
const limit = 5_000
/** Metadata in the ledger has no index: all of a tenant's rows may have to be looked at. */
const searchPatienceMs = 25_000

async function erase(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const { ids, filter } = readBody(eraseBody, request.body)
  const whose = {
    tenantId: request.caller.tenantId,
    jobIds: ids === undefined ? null : ids.filter(isJobId),
    key: filter?.key,
    keyPrefix: filter?.key_prefix,
    metadata: filter?.metadata === undefined ? undefined : JSON.stringify(filter.metadata),
    before: filter?.created_before,
    limit,
  }
  // A search first of all, and in one commit: one that is cut off has erased nothing.
  const search = { tenantId: whose.tenantId, reply, limitMs: searchPatienceMs }
  const attempts = await parts.reads.run(search, (db) => eraseAttempts(db, whose))
  // A decision knows no metadata: of a filter that has some, those about the same jobs are erased with the attempts.
  const decisions = whose.metadata === undefined ? await parts.reads.run(search, (db) => eraseDecisions(db, whose)) : 0
  const more = attempts === limit || decisions === limit
  return sendJson(reply, 200, { object: 'erased', erased: attempts + decisions, has_more: more })
}

export const eraseRoute: ApiRoute = {
  method: 'POST',
  path: '/v1/attempts/erase',
  scope: 'admin',
  tag: 'Spend',
  summary: 'Erase what names somebody from the ledger',
  description:
    'Of jobs that are gone, by `ids` or by `filter`: keys, metadata, fingerprints and the provider’s request ids of their attempts, keys and reasons of the decisions about them. Times, models, tokens and dollars stay, so sums are what they were. At most 5,000 rows at once: send the same again while `has_more` says so.',
  query: noQuery,
  accepts: ['application/json'],
  body: eraseBody,
  example: { filter: { metadata: { customer: '17' } } },
  answers: { 200: { description: 'How many rows were erased', schema: erasedRows } },
  errors: [],
  handle: erase,
}
