import { setImmediate as nextTurn } from 'node:timers/promises'
import { findByAnswerId, listStoredCompletions, readRequest, type JobRow, type StoredCandidate } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import { answerBody, inOneList, sendBody } from '../answer-body.ts'
import type { Parts } from '../context.ts'
import { patiently } from '../patience.ts'
import { Problem } from '../problem.ts'
import { idOf, type ApiRoute } from '../route.ts'
import { noQuery } from '../schemas/queries.ts'
import { jobHeaders, sendProviderAnswer } from './settled-answer.ts'

const defaultLimit = 20
const maxLimit = 100

const listQuery = z.looseObject({
  after: z.string().optional().describe('Id of the last completion of the page before'),
  limit: z
    .string()
    .refine((text) => /^\d{1,3}$/.test(text) && Number(text) >= 1 && Number(text) <= maxLimit, {
      error: `must be an integer from 1 to ${maxLimit}`,
    })
    .meta({ type: 'integer', minimum: 1, maximum: maxLimit, default: defaultLimit })
    .optional()
    .describe(`Completions per page, at most ${maxLimit}; default ${defaultLimit}`),
  model: z.string().optional(),
  order: z.enum(['asc', 'desc'], { error: 'must be asc or desc' }).optional().describe('By time; default asc'),
})

/** Of one page: it is gathered in memory. */
const maxPageBytes = 16 * 1024 * 1024
/** Others get the processor when requests have been looked at for so long. */
const turnMs = 10
/** Rows that are looked at in one go, once the first look, at as many as are wanted, has found others among them. */
const minReadAgain = 50

const metadataParameter = /^metadata\[(.{1,64})\]$/
const known = new Set(['after', 'limit', 'model', 'order'])

/** `metadata[name]=value` parameters as one object. */
function metadataOf(query: Record<string, unknown>): Record<string, string> {
  const pairs = Object.entries(query)
    .filter(([name]) => !known.has(name))
    .map(([name, value]): [string, string] => {
      const member = metadataParameter.exec(name)?.[1]
      if (member === undefined || typeof value !== 'string') {
        throw new Problem('invalid_request', `${name} is not a parameter of this list.`, { param: name })
      }
      return [member, value]
    })
  return Object.fromEntries(pairs)
}

interface PageFilter {
  tenantId: string
  model: string | undefined
  metadata: Record<string, string>
  order: 'asc' | 'desc'
  /** Job id of the last one of the page before. */
  after: string | undefined
}

interface Page {
  found: StoredCandidate[]
  hasMore: boolean
}

/** A page of at most so many completions and bytes; one comes in any case. What the database finds may not be stored: then more is read. */
async function readPage(parts: Parts, reply: FastifyReply, filter: PageFilter, size: number): Promise<Page> {
  const { metadata, ...rest } = filter
  const found: StoredCandidate[] = []
  let bytes = 0
  let { after } = filter
  let turnEndsAt = performance.now() + turnMs
  for (let limit = size + 1; ; limit = Math.max(limit, minReadAgain)) {
    const rows = await parts.reads.run({ tenantId: filter.tenantId, reply }, (db) =>
      listStoredCompletions(db, {
        ...rest,
        metadata: JSON.stringify(metadata),
        after,
        limit,
        maxBytes: maxPageBytes,
      }),
    )
    for (const row of rows) {
      // What is large is parsed elsewhere; of what is not there may be much.
      if (performance.now() >= turnEndsAt) {
        await nextTurn()
        turnEndsAt = performance.now() + turnMs
      }
      if (!(await parts.intake.isStoredWith({ body: row.request, wanted: metadata }))) continue
      const length = answerBody(parts.db, row)?.bytes ?? 0
      if (found.length === size || (found.length > 0 && bytes + length > maxPageBytes)) return { found, hasMore: true }
      found.push(row)
      bytes += length
    }
    const last = rows.at(-1)
    if (last === undefined) return { found, hasMore: false }
    after = last.id
  }
}

async function list(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const { after, limit, model, order = 'asc' } = request.query as z.infer<typeof listQuery>
  const { tenantId } = request.caller
  const size = limit === undefined ? defaultLimit : Number(limit)
  const behind = after === undefined ? undefined : (await completion(parts, tenantId, after)).id
  const metadata = metadataOf(request.query as Record<string, unknown>)
  const { found, hasMore } = await readPage(parts, reply, { tenantId, model, metadata, order, after: behind }, size)
  const bodies = found.flatMap((row) => answerBody(parts.db, row) ?? [])
  const tail = `],"first_id":${JSON.stringify(found[0]?.answer_id ?? null)},"last_id":${JSON.stringify(found.at(-1)?.answer_id ?? null)},"has_more":${hasMore}}`
  void reply.header('content-type', 'application/json; charset=utf-8')
  return sendBody(reply, inOneList(bodies), '{"object":"list","data":[', tail)
}

async function completion(parts: Parts, tenantId: string, answerId: string): Promise<JobRow> {
  const possible = answerId.length <= 200 && !answerId.includes('\0')
  const id = possible ? await patiently(findByAnswerId(parts.db, tenantId, 'chat.completions', answerId)) : null
  const row = id === null ? null : await parts.jobs.read(tenantId, id)
  if (row?.state === 'succeeded' && !row.streamed) {
    const asked = await patiently(readRequest(parts.db, { tenantId, id: row.id }))
    if (asked !== null && (await parts.intake.isStoredWith({ body: asked.request, wanted: {} }))) return row
  }
  throw new Problem('not_found', 'There is no stored completion with this id, or it has expired.', { param: 'id' })
}

async function retrieve(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const row = await completion(parts, request.caller.tenantId, idOf(request))
  return sendProviderAnswer(parts, reply.headers(jobHeaders(row)), row)
}

export const completionRoutes: ApiRoute[] = [
  {
    method: 'GET',
    path: '/openai/v1/chat/completions',
    scope: 'read',
    tag: 'OpenAI SDK',
    summary: 'List stored completions',
    description:
      'Answers of requests with `"store": true` that were not streamed, by `metadata[name]=value`. From here, not from the provider. A page has at most 16 MiB, so it may be shorter than asked for.',
    query: listQuery,
    accepts: [],
    answers: { 200: { description: 'A page of completions, as the provider wrote them' } },
    errors: ['not_found'],
    handle: list,
  },
  {
    method: 'GET',
    path: '/openai/v1/chat/completions/{id}',
    scope: 'read',
    tag: 'OpenAI SDK',
    summary: 'Retrieve a stored completion',
    query: noQuery,
    accepts: [],
    answers: { 200: { description: 'The completion, as the provider wrote it' } },
    errors: ['not_found'],
    handle: retrieve,
  },
]
