import { keyPrefixFault } from '@askonce/intake'
import { createBatch, deleteBatch, listBatches, type BatchRow } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { uuidv7 } from 'uuidv7'
import { z } from 'zod'
import type { Parts } from '../../context.ts'
import { patiently } from '../../patience.ts'
import { Problem } from '../../problem.ts'
import { sendJson, type ApiRoute } from '../../route.ts'
import { noQuery } from '../../schemas/queries.ts'
import { sendContent } from '../files/content.ts'
import { pageOf, pageSize } from '../files/index.ts'
import { batchHeaders } from '../request-headers.ts'
import { batchIdInPath, batchInPath, cancelInPath } from './in-path.ts'
import { noSuchBatch, ours, publicId, readPublicId } from '../files/view.ts'
import { UploadWriter } from '../files/writer.ts'
import { customIds, itemsOf } from './request-items.ts'

const maxRequests = 100_000
const maxBodyBytes = 256 * 1024 * 1024
const windowSeconds = 86_400
/** A SHA-256 in hexadecimal, for checks before it is known. */
const digestLength = 64

/** The prefix of the keys that the request names; null: the SHA-256 of what it asks. */
function prefixOf(request: FastifyRequest): string | null {
  const prefix = request.headers['askonce-idempotency-prefix']
  if (prefix === undefined) return null
  const fault = keyPrefixFault(String(prefix))
  if (fault === null) return String(prefix)
  throw new Problem('invalid_request', `Askonce-Idempotency-Prefix ${fault}.`, { param: 'Askonce-Idempotency-Prefix' })
}

async function create(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const { tenantId, key } = request.caller
  const headers = batchHeaders(request, parts.config.forwardHeaders)
  const keyPrefix = prefixOf(request)
  const id = uuidv7()
  const writer = await UploadWriter.begin(parts.db, {
    id: uuidv7(),
    tenantId,
    purpose: 'batch_requests',
    filename: `${publicId('msgbatch_', id)}.jsonl`,
  })
  const newline = Buffer.from('\n')
  // Not destroyed where it is left: what follows of a refused body must be read, or the next request on the connection never comes.
  const body = request.raw.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>
  const items = itemsOf(body, {
    intake: parts.intake,
    keyPrefix: keyPrefix ?? 'x'.repeat(digestLength),
    maxParamsBytes: parts.config.limits.maxRequestBytes,
    maxRequests,
    maxBodyBytes,
  })
  try {
    for await (const some of items) {
      if (some.length > 0) await writer.add(Buffer.concat(some.flatMap((item) => [item, newline])))
    }
    const seal = await writer.close()
    const batch = await patiently(
      createBatch(parts.db, {
        id,
        tenantId,
        kind: 'anthropic',
        operation: 'messages',
        endpoint: '/v1/messages',
        apiKeyId: key.id,
        inputFileId: writer.id,
        outputFileId: uuidv7(),
        errorFileId: uuidv7(),
        outputTtlSeconds: null,
        metadata: null,
        requestHeaders: headers,
        keyPrefix,
        completionWindow: '24h',
        windowSeconds,
        seal,
      }),
    )
    if (batch === null) throw new Problem('unavailable', 'The upload was given up. Send it again.')
    parts.announce('batches', [batch.id])
    return await sendJson(reply, 200, batchView(parts, batch, request))
  } catch (error) {
    // A client that is cut off while it sends does not read the answer.
    request.raw.resume()
    await writer.drop()
    const cut = (error as { code?: unknown }).code === 'ECONNRESET'
    throw cut ? new Problem('invalid_request', 'The body was cut off.', { cause: error }) : error
  }
}

/** A batch as the Anthropic SDK knows it, with `askonce` beside. */
function batchView(parts: Parts, batch: BatchRow, request: FastifyRequest): object {
  const { status, ended_at: endedAt } = batch
  const id = publicId('msgbatch_', batch.id)
  return {
    id,
    type: 'message_batch',
    processing_status: endedAt !== null ? 'ended' : status === 'cancelling' ? 'canceling' : 'in_progress',
    request_counts: {
      processing: batch.total - batch.done,
      succeeded: batch.succeeded,
      errored: batch.failed,
      canceled: batch.cancelled,
      expired: batch.expired,
    },
    created_at: batch.created_at,
    expires_at: batch.expires_at,
    ended_at: endedAt,
    cancel_initiated_at: batch.cancelling_at,
    archived_at: null,
    results_url: endedAt === null ? null : `${addressFor(parts, request)}/anthropic/v1/messages/batches/${id}/results`,
    askonce: ours(batch),
  }
}

/** This server as the client names it: the SDK takes an absolute address only. A proxy's word on it counts where the proxy is trusted. */
function addressFor({ config }: Parts, { protocol, host }: FastifyRequest): string {
  return config.http.publicUrl ?? `${protocol === 'https' ? 'https' : 'http'}://${host === '' ? 'localhost' : host}`
}

const once = { error: 'must be given once' }
const listQuery = z.strictObject({
  after_id: z.string(once).optional().describe('Id of the last batch of the page before'),
  before_id: z.string(once).optional().describe('Id of the first batch of the page behind'),
  limit: pageSize(1_000, 20),
})

const nameOf = ({ id }: BatchRow): string => publicId('msgbatch_', id)

async function list(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const { after_id: after, before_id: before, limit: size } = request.query as z.infer<typeof listQuery>
  const limit = Number(size ?? 20)
  if (after !== undefined && before !== undefined) {
    throw new Problem('invalid_request', 'before_id: give either after_id or before_id', { param: 'before_id' })
  }
  const param = before === undefined ? 'after_id' : 'before_id'
  const given = before ?? after
  const from = given === undefined ? null : readPublicId('msgbatch_', given)
  const { tenantId } = request.caller
  const backward = before !== undefined
  const rows =
    given !== undefined && from === null
      ? null
      : await parts.reads.run({ tenantId, reply }, (db) =>
          listBatches(db, { tenantId, kind: 'anthropic', from, backward, limit: limit + 1 }),
        )
  if (rows === null) throw new Problem('invalid_request', `${param}: is not the id of a batch`, { param })
  // The one too many is at the far end.
  const page = backward ? rows.slice(-limit) : rows.slice(0, limit)
  return sendJson(
    reply,
    200,
    pageOf(page, rows.length > limit, (row) => batchView(parts, row, request), nameOf),
  )
}

async function cancel(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const { batch } = await cancelInPath(parts, request, 'anthropic')
  return sendJson(reply, 200, batchView(parts, batch, request))
}

async function remove(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const id = batchIdInPath(request, 'anthropic')
  const found = await patiently(deleteBatch(parts.db, request.caller.tenantId, 'anthropic', id))
  if (found === null) throw noSuchBatch()
  if (!found.ended) throw new Problem('state_conflict', 'The batch has not ended; cancel it first.', { param: 'id' })
  return sendJson(reply, 200, { id: publicId('msgbatch_', id), type: 'message_batch_deleted' })
}

async function results(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const batch = await batchInPath(parts, request, 'anthropic')
  if (batch.ended_at === null) {
    throw new Problem('state_conflict', 'The batch has not ended; its results come then.', { param: 'id' })
  }
  const content = { id: batch.output_file_id, bytes: batch.output_bytes, contentType: 'application/x-jsonl' }
  return sendContent(parts, request, reply, content)
}

const shared = { scope: 'read', tag: 'Anthropic SDK', query: noQuery, accepts: [], errors: ['not_found'] } as const
const answers = { 200: { description: 'The batch' } } as const
const path = '/anthropic/v1/messages/batches'

const createBody = z.object({
  requests: z
    .array(z.object({ custom_id: z.string().regex(customIds), params: z.looseObject({}) }))
    .min(1)
    .max(maxRequests),
})

export const anthropicBatchRoutes: ApiRoute[] = [
  {
    ...shared,
    method: 'POST',
    path,
    scope: 'submit',
    summary: 'Create a message batch',
    description:
      'Up to 100,000 requests in a body of up to 256 MB. Each is a job under the key `<prefix>/<custom_id>`, so a batch that is sent again pays only for what is missing.',
    headers: {
      'Askonce-Idempotency-Prefix': {
        required: false,
        description: 'Begins the keys of the requests; default: the SHA-256 of them all',
      },
    },
    accepts: ['application/json'],
    streamed: true,
    maxBytes: () => maxBodyBytes,
    body: createBody,
    answers,
    errors: [],
    handle: create,
  },
  {
    ...shared,
    method: 'GET',
    path,
    summary: 'List message batches',
    query: listQuery,
    answers: { 200: { description: 'A page of batches, newest first' } },
    errors: [],
    handle: list,
  },
  {
    ...shared,
    method: 'GET',
    path: `${path}/{id}`,
    summary: 'Read a message batch',
    answers,
    handle: async (parts, request, reply) =>
      sendJson(reply, 200, batchView(parts, await batchInPath(parts, request, 'anthropic'), request)),
  },
  {
    ...shared,
    method: 'POST',
    path: `${path}/{id}/cancel`,
    scope: 'submit',
    summary: 'Cancel a message batch',
    description: 'Calls under way are waited for; what is queued is cancelled, unless somebody else wants it too.',
    answers,
    handle: cancel,
  },
  {
    ...shared,
    method: 'DELETE',
    path: `${path}/{id}`,
    scope: 'submit',
    summary: 'Delete a message batch that has ended',
    answers: { 200: { description: 'It is gone' } },
    errors: ['not_found', 'state_conflict'],
    handle: remove,
  },
  {
    ...shared,
    method: 'GET',
    path: `${path}/{id}/results`,
    summary: 'Read the results of a message batch',
    answers: { 200: { description: 'A result a line, in no order', contentType: 'application/x-jsonl' } },
    errors: ['not_found', 'state_conflict', 'range_not_satisfiable'],
    handle: results,
  },
]
