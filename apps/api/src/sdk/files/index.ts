import { deleteFile, listFiles, readFileRow, type FileRow } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { uuidv7 } from 'uuidv7'
import { z } from 'zod'
import type { Parts } from '../../context.ts'
import { patiently } from '../../patience.ts'
import { Problem } from '../../problem.ts'
import { idOf, sendJson, type ApiRoute } from '../../route.ts'
import { noQuery } from '../../schemas/queries.ts'
import { sendContent } from './content.ts'
import { readForm } from './multipart.ts'
import { fileView, noSuchFile, publicId, readPublicId } from './view.ts'
import { UploadWriter } from './writer.ts'

/** What a form may have besides its file. */
const formBytes = 1024 * 1024
/** What a file can be for here. With any other purpose its id would go to the provider, which does not know it. */
const ourPurpose = 'batch'
const minTtlSeconds = 3_600
const maxTtlSeconds = 2_592_000

const secondsText = `expires_after[seconds]: must be an integer from ${minTtlSeconds} to ${maxTtlSeconds}`

function refuse(detail: string, param: string): Problem {
  return new Problem('invalid_request', detail, { param })
}

/** What the fields of the form say. */
function readFields(
  fields: ReadonlyMap<string, string>,
  batchTtlSeconds: number,
): { purpose: string; ttlSeconds: number } {
  const purpose = fields.get('purpose')
  if (purpose === undefined) throw refuse('purpose: is missing', 'purpose')
  if (purpose !== ourPurpose) {
    const why =
      'files are kept here for batches only, and a provider does not know their ids. Upload other files to the provider itself and send the id that it gives them, or put the content into the request'
    throw refuse(`purpose: must be ${ourPurpose}: ${why}`, 'purpose')
  }
  for (const name of fields.keys()) {
    if (!['purpose', 'expires_after[anchor]', 'expires_after[seconds]'].includes(name)) {
      throw refuse(`${name.slice(0, 100)}: unknown field`, name.slice(0, 100))
    }
  }
  const anchor = fields.get('expires_after[anchor]')
  const seconds = fields.get('expires_after[seconds]')
  if (anchor === undefined && seconds === undefined) {
    return { purpose, ttlSeconds: batchTtlSeconds }
  }
  if (anchor !== 'created_at') throw refuse('expires_after[anchor]: must be created_at', 'expires_after[anchor]')
  const ttlSeconds = /^\d{1,9}$/.test(seconds ?? '') ? Number(seconds) : 0
  if (ttlSeconds < minTtlSeconds || ttlSeconds > maxTtlSeconds) throw refuse(secondsText, 'expires_after[seconds]')
  return { purpose, ttlSeconds }
}

/** A name that can be shown anywhere. */
function tidyName(filename: string): string {
  const name = filename.replaceAll(/[\p{Cc}\p{Cs}\ufffd]/gu, '').trim()
  // A pair that the cut has halved goes with it.
  return name.slice(0, 200).replace(/[\ud800-\udbff]$/, '') || 'upload'
}

async function create(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const id = uuidv7()
  const upload: { writer: UploadWriter | null; filename: string } = { writer: null, filename: '' }
  try {
    const fields = await readForm(request.raw, {
      maxFileBytes: parts.config.limits.maxFileBytes,
      onFile: async (content, given) => {
        upload.filename = tidyName(given)
        const { tenantId } = request.caller
        const writer = await UploadWriter.begin(parts.db, { id, tenantId, purpose: '', filename: upload.filename })
        upload.writer = writer
        for await (const bytes of content) await writer.add(bytes)
      },
    })
    const { purpose, ttlSeconds } = readFields(fields, Math.round(parts.config.limits.batchRetentionMs / 1000))
    if (upload.writer === null) throw new Error('a form without a file was taken for whole')
    const row = await upload.writer.finish({ purpose, filename: upload.filename, ttlSeconds })
    return await sendJson(reply, 200, fileView(row))
  } catch (error) {
    await upload.writer?.drop()
    throw error
  }
}

const order = z.enum(['asc', 'desc'], { error: 'must be asc or desc' })
const maxPage = 10_000
const once = { error: 'must be given once' }

/** Of a list that an SDK pages through. */
export const pageSize = (most: number, usual: number) =>
  z
    .string(once)
    .refine((text) => /^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= most, {
      error: `must be an integer from 1 to ${most}`,
    })
    .meta({ type: 'integer', minimum: 1, maximum: most, default: usual })
    .optional()
    .describe(`Items of a page, at most ${most}; default ${usual}`)

const listQuery = z.strictObject({
  after: z.string(once).optional().describe('Id of the last file of the page before'),
  limit: pageSize(maxPage, 1_000),
  order: order.optional().describe('By age; default desc'),
  purpose: z.string(once).optional().describe('Only files with this purpose'),
})

async function list(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const query = request.query as z.infer<typeof listQuery>
  const limit = Number(query.limit ?? 1_000)
  const after = query.after === undefined ? null : readPublicId('file-', query.after)
  const rows =
    query.after !== undefined && after === null
      ? null
      : await parts.reads.run({ tenantId: request.caller.tenantId, reply }, (db) =>
          listFiles(db, {
            tenantId: request.caller.tenantId,
            purpose: query.purpose ?? null,
            ascending: query.order === 'asc',
            after,
            limit: limit + 1,
          }),
        )
  if (rows === null) throw new Problem('invalid_request', 'after: is not the id of a file', { param: 'after' })
  return sendJson(
    reply,
    200,
    pageOf(rows.slice(0, limit), rows.length > limit, fileView, (row) => publicId('file-', row.id)),
  )
}

/** A page as both SDKs read it. */
export function pageOf<Row>(
  rows: readonly Row[],
  hasMore: boolean,
  view: (row: Row) => object,
  nameOf: (row: Row) => string,
): object {
  const [first] = rows
  const last = rows.at(-1)
  return {
    object: 'list',
    data: rows.map(view),
    has_more: hasMore,
    first_id: first === undefined ? null : nameOf(first),
    last_id: last === undefined ? null : nameOf(last),
  }
}

async function fileInPath(parts: Parts, request: FastifyRequest): Promise<FileRow> {
  const id = readPublicId('file-', idOf(request))
  const row = id === null ? null : await patiently(readFileRow(parts.db, request.caller.tenantId, id))
  if (row === null) throw noSuchFile()
  return row
}

const shared = { scope: 'read', tag: 'OpenAI SDK', query: noQuery, accepts: [], errors: ['not_found'] } as const

export const fileRoutes: ApiRoute[] = [
  {
    ...shared,
    method: 'POST',
    path: '/openai/v1/files',
    scope: 'submit',
    summary: 'Upload a file',
    description:
      'A form with `file`, `purpose` and perhaps `expires_after[anchor]` and `expires_after[seconds]`, in any order. At most `ASKONCE_MAX_FILE_BYTES`. A file whose upload breaks off is never seen.',
    accepts: ['multipart/form-data'],
    streamed: true,
    maxBytes: ({ maxFileBytes }) => maxFileBytes + formBytes,
    body: z.object({ file: z.string().meta({ format: 'binary' }), purpose: z.literal(ourPurpose) }),
    answers: { 200: { description: 'The file' } },
    errors: [],
    handle: create,
  },
  {
    ...shared,
    method: 'GET',
    path: '/openai/v1/files',
    summary: 'List files',
    query: listQuery,
    answers: { 200: { description: 'A page of files' } },
    errors: [],
    handle: list,
  },
  {
    ...shared,
    method: 'GET',
    path: '/openai/v1/files/{id}',
    summary: 'Read what is known of a file',
    answers: { 200: { description: 'The file' } },
    handle: async (parts, request, reply) => sendJson(reply, 200, fileView(await fileInPath(parts, request))),
  },
  {
    ...shared,
    method: 'GET',
    path: '/openai/v1/files/{id}/content',
    summary: 'Read a file',
    headers: { Range: { required: false, description: 'One range of bytes' } },
    answers: {
      200: { description: 'The content', contentType: 'application/octet-stream' },
      206: { description: 'The range that was asked for', contentType: 'application/octet-stream' },
    },
    errors: ['not_found', 'range_not_satisfiable'],
    handle: async (parts, request, reply) => {
      const { id, bytes } = await fileInPath(parts, request)
      return sendContent(parts, request, reply, { id, bytes, contentType: 'application/octet-stream' })
    },
  },
  {
    ...shared,
    method: 'DELETE',
    path: '/openai/v1/files/{id}',
    scope: 'submit',
    summary: 'Delete a file',
    description: 'A batch that is still validating it fails; one that runs does not need it any more.',
    answers: { 200: { description: 'It is gone' } },
    handle: async (parts, request, reply) => {
      const { id } = await fileInPath(parts, request)
      if (!(await patiently(deleteFile(parts.db, request.caller.tenantId, id)))) throw noSuchFile()
      return sendJson(reply, 200, { id: publicId('file-', id), object: 'file', deleted: true })
    },
  },
]
