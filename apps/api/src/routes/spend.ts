import { isDataError, readSpan, readSpend, readSpentTwice, type Moment, type SpendScope } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import type { Parts } from '../context.ts'
import { summarisedList, withTotals } from '../ledger-view.ts'
import { patiently } from '../patience.ts'
import { Problem } from '../problem.ts'
import { sendJson, type ApiRoute } from '../route.ts'
import { spendList } from '../schemas/ledger.ts'
import { spendQuery } from '../schemas/queries.ts'

const dayMs = 86_400_000
const defaultDays = 30
const maxDays = 366
/** A year by day and model is far below it; a tenant that names its models at random is not. */
const maxRows = 10_000
/** Jobs that are named because something was paid for twice. */
const maxTwice = 100
/** A year of a busy tenant is millions of rows of the ledger. */
const sumPatienceMs = 15_000

type Query = z.infer<typeof spendQuery>

const local = (text: string): Moment => ({ text, isLocal: true })

/** A moment as somebody wrote it. */
function momentOf(text: string): Moment {
  return { text, isLocal: !/(?:Z|[+-]\d\d:\d\d)$/.test(text) }
}

/**
 * The days that are meant, both included, as the span from the first midnight to the one behind the last. Today is this process's: a clock
 * that is off by minutes moves the default range of a report, and no decision.
 * @throws Problem `invalid_request` when there are none, or more than 366
 */
function daysOf({ from, to }: Query, timeZone: string): Pick<SpendScope, 'since' | 'until'> {
  const last = Date.parse(to ?? today(timeZone))
  const first = from === undefined ? last - (defaultDays - 1) * dayMs : Date.parse(from)
  const days = (last - first) / dayMs + 1
  if (days >= 1 && days <= maxDays) return { since: local(toDay(first)), until: local(toDay(last + dayMs)) }
  const told =
    days < 1
      ? `is after to (${toDay(last)})`
      : `and to (${toDay(last)}) are ${days} days; at most ${maxDays} are allowed`
  throw new Problem('invalid_request', `from (${toDay(first)}) ${told}`, { param: 'from' })
}

/** @throws Problem `invalid_request` for a mixture of days and moments */
function spanOf(query: Query, timeZone: string): Pick<SpendScope, 'since' | 'until'> {
  const { from, to, since, until } = query
  if (since === undefined && until === undefined) return daysOf(query, timeZone)
  if (from !== undefined || to !== undefined) {
    const param = from === undefined ? 'to' : 'from'
    throw new Problem('invalid_request', `${param}: give either from and to, or since and until`, { param })
  }
  const end = until === undefined ? { text: new Date().toISOString(), isLocal: false } : momentOf(until)
  if (since !== undefined) return { since: momentOf(since), until: end }
  // Back from the same clock, so that a local time stays one.
  const before = new Date(Date.parse(end.isLocal ? asUtc(end.text) : end.text) - defaultDays * dayMs).toISOString()
  return { since: { text: end.isLocal ? before.slice(0, -1) : before, isLocal: end.isLocal }, until: end }
}

function asUtc(text: string): string {
  return text.includes('T') ? `${text}Z` : text
}

function today(timeZone: string): string {
  // This locale writes days as the ISO does.
  return new Intl.DateTimeFormat('en-CA', { timeZone, dateStyle: 'short' }).format(new Date())
}

function toDay(timeMs: number): string {
  return new Date(timeMs).toISOString().slice(0, 10)
}

/** @throws Problem `invalid_request` where the database does not know the zone or the time, or the span is empty or too long */
async function resolvedSpan(parts: Parts, scope: SpendScope): Promise<Awaited<ReturnType<typeof readSpan>>> {
  const span = await patiently(readSpan(parts.db, scope)).catch((error: unknown) => {
    if (!isDataError(error)) throw error
    throw new Problem('invalid_request', 'tz, since, until: the database knows no such time zone, or no such time', {
      param: 'tz',
      cause: error,
    })
  })
  // An hour more: a year of days can have one, where clocks change.
  if (span.days > 0 && span.days <= maxDays + 1 / 24) return span
  const told = span.days <= 0 ? 'since: is not before until' : `since: more than ${maxDays} days before until`
  throw new Problem('invalid_request', told, { param: 'since' })
}

async function spend(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const query = request.query as Query
  const timeZone = query.tz ?? 'UTC'
  const scope: SpendScope = {
    tenantId: request.caller.tenantId,
    ...spanOf(query, timeZone),
    timeZone,
    keyPrefix: query.key_prefix,
    metadata: query.metadata === undefined ? undefined : JSON.stringify(query.metadata),
    simulated: query.simulated === 'true',
  }
  const { from, to, since, until } = await resolvedSpan(parts, scope)
  const byModel = query.group_by === 'model'
  const found = await parts.reads.run({ tenantId: scope.tenantId, reply, limitMs: sumPatienceMs }, (db) =>
    readSpend(db, { ...scope, byModel, limit: maxRows }),
  )
  if (found === null) {
    throw new Problem('invalid_request', `group_by: more than ${maxRows} rows; ask for fewer days`, {
      param: 'group_by',
    })
  }
  const { totals } = found
  const none = totals.duplicates + totals.possible_duplicates === 0
  const twice = none
    ? []
    : await parts.reads.run({ tenantId: scope.tenantId, reply, limitMs: sumPatienceMs }, (db) =>
        readSpentTwice(db, { ...scope, limit: maxTwice }),
      )
  const rows = found.rows.map((row) => {
    const { date, lane, model } = row
    return withTotals(byModel ? { date, provider: lane, model } : { date }, row)
  })
  const named = twice.map(
    ({ key, job_id, duplicates, possible_duplicates, duplicate_cost_usd, possible_duplicate_cost_usd }) =>
      `${JSON.stringify({ key, job_id, duplicates, possible_duplicates }).slice(0, -1)},"duplicate_cost_usd":${duplicate_cost_usd},"possible_duplicate_cost_usd":${possible_duplicate_cost_usd}}`,
  )
  const summary = withTotals({ from, to, since, until, tz: timeZone }, totals)
  return sendJson(reply, 200, summarisedList(rows, `${summary.slice(0, -1)},"twice":[${named.join(',')}]}`))
}

export const spendRoute: ApiRoute = {
  method: 'GET',
  path: '/v1/spend',
  scope: 'read',
  tag: 'Spend',
  summary: 'Read what was spent, by day',
  description:
    'From the ledger: a row for each day on which attempts started, oldest first, at most 366 days; `summary` is all of them, and `twice` in it names the jobs behind the duplicates. Of a run by `metadata`, of keys by `key_prefix`. A duplicate belongs to the day of the attempt that was paid besides the one that is kept. What the simulator was asked is left out.',
  query: spendQuery,
  accepts: [],
  answers: { 200: { description: 'The days', schema: spendList } },
  errors: [],
  handle: spend,
}
