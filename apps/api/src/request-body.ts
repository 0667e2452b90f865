import { measureJson } from '@askonce/core'
import { checkBody, decodeBody, parseText } from '@askonce/intake'
import type { FastifyRequest } from 'fastify'
import type { z } from 'zod'
import { Problem } from './problem.ts'

/** Ten thousand ids, and what may stand beside them. */
const maxSmallBytes = 1024 * 1024
const maxSmallValues = 12_000

/** The bytes of the body; empty where there is none. */
export function bodyOf({ body }: FastifyRequest): Buffer {
  return Buffer.isBuffer(body) ? body : Buffer.alloc(0)
}

/** Takes the body away from its request: one that waits for an answer for minutes does not hold it. */
export async function useBody<T>(request: FastifyRequest, use: (body: Buffer) => Promise<T>): Promise<T> {
  const body = bodyOf(request)
  request.body = undefined
  try {
    return await use(body)
  } finally {
    request.server.bodies.release(request)
  }
}

/** Whether it can be parsed and checked here and now. */
export function isSmall(body: Buffer): boolean {
  return body.length <= maxSmallBytes && measureJson(body).values <= maxSmallValues
}

/**
 * A body checked by a schema, of a request that names things and brings none. Without a body the schema sees `{}`: every member of such a body
 * is optional.
 * @throws Problem or IntakeError when it does not fit, or is larger than any such body
 */
export function readBody<Schema extends z.ZodType>(schema: Schema, body: unknown): z.infer<Schema> {
  if (body === undefined || (Buffer.isBuffer(body) && body.length === 0)) return checkBody(schema, {})
  if (Buffer.isBuffer(body) && !isSmall(body)) {
    throw new Problem('payload_too_large', 'The body is larger than this call can need.', { param: '' })
  }
  return checkBody(schema, parseText(decodeBody(body)).value)
}
