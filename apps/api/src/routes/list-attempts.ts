import { readKeyLedger } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import type { Parts } from '../context.ts'
import { readAttemptCursor, toAttemptCursor } from '../cursor.ts'
import { attemptView, duplicateWord, summarisedList, withTotals } from '../ledger-view.ts'
import { keyInQuery } from '../query-key.ts'
import { sendJson, type ApiRoute } from '../route.ts'
import { keyAttemptList } from '../schemas/ledger.ts'
import { attemptsQuery, pageSizeOf } from '../schemas/queries.ts'

async function list(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const query = request.query as z.infer<typeof attemptsQuery>
  const limit = pageSizeOf(query)
  const { attempts, totals } = await parts.reads.run({ tenantId: request.caller.tenantId, reply }, (db) =>
    readKeyLedger(db, {
      tenantId: request.caller.tenantId,
      key: keyInQuery(query.key),
      // One more than asked for tells whether there is a next page.
      limit: limit + 1,
      after: query.cursor === undefined ? null : readAttemptCursor(query.cursor, 'cursor'),
    }),
  )
  const page = attempts.slice(0, limit)
  const last = page.at(-1)
  const next =
    attempts.length > limit && last !== undefined
      ? toAttemptCursor({ startedAt: last.cursor_at, jobId: last.job_id, attempt: last.attempt })
      : null
  const rows = page.map((row) => JSON.stringify({ job_id: row.job_id, ...attemptView(row) }))
  return sendJson(reply, 200, summarisedList(rows, withTotals({ duplicate: duplicateWord(totals) }, totals), next))
}

export const attemptsRoute: ApiRoute = {
  method: 'GET',
  path: '/v1/attempts',
  scope: 'read',
  tag: 'Jobs',
  summary: 'Read the ledger of a key',
  description:
    'Every attempt under the key, of jobs that have expired, were deleted or were replaced too, oldest first; `summary` is what all of them come to, whatever the page. Empty where nothing was ever attempted, or the ledger’s own retention is over.',
  query: attemptsQuery,
  accepts: [],
  answers: { 200: { description: 'One page, and the sums of all', schema: keyAttemptList } },
  errors: ['invalid_request', 'idempotency_key_invalid'],
  handle: list,
}
