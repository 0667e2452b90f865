import { readBatch, requestCancel, type BatchRow } from '@askonce/store'
import type { FastifyRequest } from 'fastify'
import type { Parts } from '../../context.ts'
import { patiently } from '../../patience.ts'
import { idOf } from '../../route.ts'
import { noSuchBatch, readPublicId } from '../files/view.ts'

const prefixes = { openai: 'batch_', anthropic: 'msgbatch_' } as const
type Kind = keyof typeof prefixes

/** The id of the batch in the path. @throws Problem `not_found` when it is none of ours */
export function batchIdInPath(request: FastifyRequest, kind: Kind): string {
  const id = readPublicId(prefixes[kind], idOf(request))
  if (id === null) throw noSuchBatch()
  return id
}

/** The batch in the path. @throws Problem `not_found` */
export async function batchInPath(parts: Parts, request: FastifyRequest, kind: Kind): Promise<BatchRow> {
  const id = batchIdInPath(request, kind)
  const batch = await patiently(readBatch(parts.db, request.caller.tenantId, kind, id))
  if (batch === null) throw noSuchBatch()
  return batch
}

/** Asks for the end of the batch in the path. @throws Problem `not_found` */
export async function cancelInPath(
  parts: Parts,
  request: FastifyRequest,
  kind: Kind,
): Promise<{ batch: BatchRow; changed: boolean }> {
  const id = batchIdInPath(request, kind)
  const found = await patiently(requestCancel(parts.db, request.caller.tenantId, kind, id))
  if (found === null) throw noSuchBatch()
  return found
}
