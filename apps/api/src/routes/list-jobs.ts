import { listJobs } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import type { Parts } from '../context.ts'
import { positionOf, readCursor, toCursor } from '../cursor.ts'
import { jobJson, listJson } from '../job-view.ts'
import { keyInQuery } from '../query-key.ts'
import { sendJson, type ApiRoute } from '../route.ts'
import { jobList } from '../schemas/job.ts'
import { listQuery, pageSizeOf } from '../schemas/queries.ts'

async function list(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const query = request.query as z.infer<typeof listQuery>
  const limit = pageSizeOf(query)
  const byKey = query.key_prefix !== undefined
  const rows = await parts.reads.run({ tenantId: request.caller.tenantId, reply }, (db) =>
    listJobs(db, {
      tenantId: request.caller.tenantId,
      key: query.key === undefined ? undefined : keyInQuery(query.key),
      state: query.state,
      createdAfter: query.created_after,
      metadata: query.metadata === undefined ? undefined : JSON.stringify(query.metadata),
      keyPrefix: query.key_prefix,
      paid: query.paid,
      // One more than asked for tells whether there is a next page.
      limit: limit + 1,
      after: query.cursor === undefined ? undefined : readCursor(query.cursor, 'cursor', byKey),
    }),
  )
  const page = rows.slice(0, limit)
  const last = page.at(-1)
  const next = rows.length > limit && last !== undefined ? toCursor(positionOf(last, byKey)) : null
  return sendJson(
    reply,
    200,
    listJson(
      page.map((row) => jobJson(row, parts.lanes)),
      next,
    ),
  )
}

export const listRoute: ApiRoute = {
  method: 'GET',
  path: '/v1/jobs',
  scope: 'read',
  tag: 'Jobs',
  summary: 'List jobs, newest first; with a key prefix by key',
  query: listQuery,
  accepts: [],
  answers: { 200: { description: 'One page', schema: jobList } },
  errors: ['invalid_request', 'idempotency_key_invalid'],
  handle: list,
}
