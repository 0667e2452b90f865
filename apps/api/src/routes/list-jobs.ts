import { listJobs, listWaiting, readLimitUses } from '@askonce/store'
import type { WaitKind } from '@askonce/core'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import type { Parts } from '../context.ts'
import { positionOf, readCursor, toCursor, type TimePosition } from '../cursor.ts'
import { jobJson, listJson } from '../job-view.ts'
import { keyInQuery } from '../query-key.ts'
import { sendJson, type ApiRoute } from '../route.ts'
import { jobList } from '../schemas/job.ts'
import { listQuery, pageSizeOf } from '../schemas/queries.ts'

type Query = z.infer<typeof listQuery>

async function list(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const query = request.query as Query
  if (query.waiting_for !== undefined) return listWaitingFor(parts, request, reply, query.waiting_for)
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
    listJson(await Promise.all(page.map(async (row) => jobJson(row, await parts.waiting.of(row)))), next),
  )
}

/** Jobs that wait for one kind of thing, with what was found to be their reason. */
async function listWaitingFor(
  parts: Parts,
  request: FastifyRequest,
  reply: FastifyReply,
  kind: WaitKind,
): Promise<unknown> {
  const query = request.query as Query
  const { tenantId } = request.caller
  // A cursor that is of no list by keys.
  const after = query.cursor === undefined ? undefined : (readCursor(query.cursor, 'cursor') as TimePosition)
  const { page, use } = await parts.reads.run({ tenantId, reply }, async (db) => ({
    use: (await readLimitUses(db, [tenantId]))[0] ?? null,
    page: await listWaiting(db, {
      tenantId,
      kind,
      createdAfter: query.created_after,
      limit: pageSizeOf(query),
      after,
    }),
  }))
  const items = page.jobs.map((row) => jobJson(row, parts.waiting.describe(row, row.cause, use)))
  return sendJson(reply, 200, listJson(items, page.next === null ? null : toCursor(page.next)))
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
