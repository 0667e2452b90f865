import { batchEndpoints, keyPrefixFault, metadata } from '@askonce/intake'
import { createBatch, listBatches, type BatchRow } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { uuidv7 } from 'uuidv7'
import { z } from 'zod'
import type { Parts } from '../../context.ts'
import { patiently } from '../../patience.ts'
import { Problem } from '../../problem.ts'
import { readBody } from '../../request-body.ts'
import { sendJson, type ApiRoute } from '../../route.ts'
import { noQuery } from '../../schemas/queries.ts'
import { pageOf, pageSize } from '../files/index.ts'
import { noSuchFile, ours, publicId, readPublicId, unix } from '../files/view.ts'
import { batchHeaders } from '../request-headers.ts'
import { batchInPath, cancelInPath } from './in-path.ts'
import { linesPage } from './lines.ts'

const endpoints = Object.keys(batchEndpoints) as [keyof typeof batchEndpoints, ...(keyof typeof batchEndpoints)[]]
const units = { m: 60, h: 3_600, d: 86_400 } as const
const maxWindowSeconds = 30 * 86_400

/** Seconds of a window such as `24h`; null: it is none. */
function windowSeconds(text: string): number | null {
  const match = /^([1-9]\d{0,4})([mhd])$/.exec(text)
  const seconds = match === null ? 0 : Number(match[1]) * units[match[2] as keyof typeof units]
  return seconds >= 60 && seconds <= maxWindowSeconds ? seconds : null
}

const createBody = z.strictObject({
  input_file_id: z.string({ error: 'must be the id of a file' }),
  endpoint: z.enum(endpoints, { error: `must be one of ${endpoints.join(', ')}` }),
  completion_window: z
    .string({ error: 'must be a time such as 24h' })
    .refine((text) => windowSeconds(text) !== null, 'must be a time such as 24h, from 1m to 30d'),
  metadata: metadata
    .nullable()
    .optional()
    .describe('Up to 16 texts of your own. `idempotency_prefix` begins the keys of the lines'),
  output_expires_after: z
    .strictObject({
      anchor: z.literal('created_at', { error: 'must be created_at' }),
      seconds: z.int().min(3_600, 'must be 3600 at least').max(2_592_000, 'must be 2592000 at most'),
    })
    .optional(),
})

async function create(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const headers = batchHeaders(request, parts.config.forwardHeaders)
  const body = readBody(createBody, request.body)
  const prefix = body.metadata?.['idempotency_prefix'] ?? null
  const fault = prefix === null ? null : keyPrefixFault(prefix)
  if (fault !== null) {
    const param = '/metadata/idempotency_prefix'
    throw new Problem('invalid_request', `${param}: ${fault}`, { param })
  }
  const inputFileId = readPublicId('file-', body.input_file_id)
  if (inputFileId === null) throw noSuchFile()
  const { tenantId, key } = request.caller
  const batch = await patiently(
    createBatch(parts.db, {
      id: uuidv7(),
      tenantId,
      kind: 'openai',
      operation: batchEndpoints[body.endpoint],
      endpoint: body.endpoint,
      apiKeyId: key.id,
      inputFileId,
      outputFileId: uuidv7(),
      errorFileId: uuidv7(),
      outputTtlSeconds: body.output_expires_after?.seconds ?? null,
      metadata: body.metadata === undefined || body.metadata === null ? null : JSON.stringify(body.metadata),
      requestHeaders: headers,
      keyPrefix: prefix,
      completionWindow: body.completion_window,
      windowSeconds: windowSeconds(body.completion_window) ?? 0,
      seal: null,
    }),
  )
  if (batch === null) throw noSuchFile()
  parts.announce('batches', [batch.id])
  return sendJson(reply, 200, batchView(batch))
}

/** A batch as the OpenAI SDK knows it, with `askonce` beside. */
function batchView(batch: BatchRow): object {
  const { status, ended_at: endedAt } = batch
  const fileId = (id: string, bytes: number): string | null =>
    endedAt !== null && bytes > 0 ? publicId('file-', id) : null
  const ended = (as: BatchRow['status']): number | null => (status === as ? unix(endedAt) : null)
  return {
    id: publicId('batch_', batch.id),
    object: 'batch',
    endpoint: batch.endpoint,
    errors: status === 'failed' ? { object: 'list', data: batch.errors } : null,
    input_file_id: publicId('file-', batch.input_file_id),
    completion_window: batch.completion_window,
    status,
    output_file_id: fileId(batch.output_file_id, batch.output_bytes),
    error_file_id: fileId(batch.error_file_id, batch.error_bytes),
    created_at: unix(batch.created_at),
    in_progress_at: unix(batch.in_progress_at),
    expires_at: unix(batch.expires_at),
    finalizing_at: unix(batch.finalizing_at),
    completed_at: ended('completed'),
    failed_at: ended('failed'),
    expired_at: ended('expired'),
    cancelling_at: unix(batch.cancelling_at),
    cancelled_at: ended('cancelled'),
    request_counts: {
      total: batch.total,
      completed: batch.succeeded,
      failed: batch.failed + batch.cancelled + batch.expired,
    },
    metadata: batch.metadata,
    askonce: ours(batch),
  }
}

const once = { error: 'must be given once' }
const listQuery = z.strictObject({
  after: z.string(once).optional().describe('Id of the last batch of the page before'),
  limit: pageSize(100, 20),
})

const nameOf = ({ id }: BatchRow): string => publicId('batch_', id)

async function list(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const { after, limit: size } = request.query as z.infer<typeof listQuery>
  const limit = Number(size ?? 20)
  const from = after === undefined ? null : readPublicId('batch_', after)
  const { tenantId } = request.caller
  const rows =
    after !== undefined && from === null
      ? null
      : await parts.reads.run({ tenantId, reply }, (db) =>
          listBatches(db, { tenantId, kind: 'openai', from, backward: false, limit: limit + 1 }),
        )
  if (rows === null) throw new Problem('invalid_request', 'after: is not the id of a batch', { param: 'after' })
  return sendJson(reply, 200, pageOf(rows.slice(0, limit), rows.length > limit, batchView, nameOf))
}

const linesQuery = z.strictObject({
  after: z
    .string(once)
    .regex(/^\d{1,9}$/, 'must be a number')
    .meta({ type: 'integer', minimum: 0, default: 0 })
    .optional()
    .describe('`next_after` of the page before; default 0'),
  limit: pageSize(1_000, 100),
})

async function lines(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const batch = await batchInPath(parts, request, 'openai')
  const { after, limit } = request.query as z.infer<typeof linesQuery>
  return sendJson(reply, 200, await linesPage(parts, reply, batch, Number(after ?? 0), Number(limit ?? 100)))
}

async function cancel(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const { batch, changed } = await cancelInPath(parts, request, 'openai')
  if (changed || batch.status === 'cancelling' || batch.status === 'cancelled')
    return sendJson(reply, 200, batchView(batch))
  throw new Problem('state_conflict', `The batch is ${batch.status}.`, { param: 'id' })
}

const shared = { scope: 'read', tag: 'OpenAI SDK', query: noQuery, accepts: [], errors: ['not_found'] } as const
const answers = { 200: { description: 'The batch' } } as const

export const openaiBatchRoutes: ApiRoute[] = [
  {
    ...shared,
    method: 'POST',
    path: '/openai/v1/batches',
    scope: 'submit',
    summary: 'Create a batch',
    description:
      'Its file is validated first: an invalid one turns the batch `failed`, with `errors`. Each line is a job under the key `<metadata.idempotency_prefix, or the SHA-256 of the file>/<custom_id>`, so a file that is uploaded again pays only for what is missing.',
    accepts: ['application/json'],
    body: createBody,
    answers,
    handle: create,
  },
  {
    ...shared,
    method: 'GET',
    path: '/openai/v1/batches',
    summary: 'List batches',
    query: listQuery,
    answers: { 200: { description: 'A page of batches, newest first' } },
    errors: [],
    handle: list,
  },
  {
    ...shared,
    method: 'GET',
    path: '/openai/v1/batches/{id}',
    summary: 'Read a batch',
    answers,
    handle: async (parts, request, reply) =>
      sendJson(reply, 200, batchView(await batchInPath(parts, request, 'openai'))),
  },
  {
    ...shared,
    method: 'GET',
    path: '/openai/v1/batches/{id}/lines',
    summary: 'Read results of a batch while it runs',
    description:
      'In the order in which they came. `after` continues where a page ended; a page may be empty while the batch runs.',
    query: linesQuery,
    answers: { 200: { description: 'A page of results' } },
    handle: lines,
  },
  {
    ...shared,
    method: 'POST',
    path: '/openai/v1/batches/{id}/cancel',
    scope: 'submit',
    summary: 'Cancel a batch',
    description:
      'What is done is kept. Calls under way are waited for; what is queued is cancelled, unless somebody else wants it too.',
    answers,
    errors: ['not_found', 'state_conflict'],
    handle: cancel,
  },
]
