import { readSpend } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import type { Parts } from '../context.ts'
import { summarisedList, withTotals } from '../ledger-view.ts'
import { Problem } from '../problem.ts'
import { sendJson, type ApiRoute } from '../route.ts'
import { spendList } from '../schemas/ledger.ts'
import { spendQuery } from '../schemas/queries.ts'

const dayMs = 86_400_000
const defaultDays = 30
const maxDays = 366
/** A year by day and model is far below it; a tenant that names its models at random is not. */
const maxRows = 10_000
/** A year of a busy tenant is millions of rows of the ledger. */
const sumPatienceMs = 15_000

type Query = z.infer<typeof spendQuery>

/**
 * The days that are meant, both included. Today is this process's: a clock that is off by minutes moves the default range of a report, and
 * no decision.
 * @throws Problem `invalid_request` when there are none, or more than 366
 */
function rangeOf({ from, to }: Query): { from: string; to: string } {
  const last = to === undefined ? Date.now() : Date.parse(to)
  const first = from === undefined ? last - (defaultDays - 1) * dayMs : Date.parse(from)
  const range = { from: toDay(first), to: toDay(last) }
  const days = (Date.parse(range.to) - Date.parse(range.from)) / dayMs + 1
  if (days >= 1 && days <= maxDays) return range
  const told =
    days < 1 ? `is after to (${range.to})` : `and to (${range.to}) are ${days} days; at most ${maxDays} are allowed`
  throw new Problem('invalid_request', `from (${range.from}) ${told}`, { param: 'from' })
}

function toDay(timeMs: number): string {
  return new Date(timeMs).toISOString().slice(0, 10)
}

async function spend(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const query = request.query as Query
  const { from, to } = rangeOf(query)
  const byModel = query.group_by === 'model'
  const { tenantId } = request.caller
  const found = await parts.reads.run({ tenantId, reply, limitMs: sumPatienceMs }, (db) =>
    readSpend(db, { tenantId, from, to, byModel, limit: maxRows }),
  )
  if (found === null) {
    throw new Problem('invalid_request', `group_by: more than ${maxRows} rows; ask for fewer days`, {
      param: 'group_by',
    })
  }
  const rows = found.rows.map((row) => {
    const { date, lane, model } = row
    return withTotals(byModel ? { date, provider: lane, model } : { date }, row)
  })
  return sendJson(reply, 200, summarisedList(rows, withTotals({ from, to }, found.totals)))
}

export const spendRoute: ApiRoute = {
  method: 'GET',
  path: '/v1/spend',
  scope: 'read',
  tag: 'Spend',
  summary: 'Read what was spent, by day',
  description:
    'From the ledger: a row for each UTC day on which attempts started, oldest first, at most 366 days; `summary` is all of them. A duplicate belongs to the day of the attempt that was paid besides the one that is kept.',
  query: spendQuery,
  accepts: [],
  answers: { 200: { description: 'The days', schema: spendList } },
  errors: [],
  handle: spend,
}
