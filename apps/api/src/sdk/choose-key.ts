import { parseKey } from '@askonce/core'
import type { FastifyRequest } from 'fastify'
import { Problem } from '../problem.ts'
import { headerValues } from '../route.ts'

/** Keys that are made from what is asked; the rest is the fingerprint in hexadecimal. */
const derivedPrefix = 'derived/'

/**
 * The key of an SDK's request: its `Idempotency-Key`, or one that is derived from the fingerprint where the request
 * (`Askonce-Key: derive`) or its tenant asks for that. Equal requests then share one answer.
 * @throws Problem when there is none, or it is malformed.
 */
export function chooseKey(request: FastifyRequest, fingerprint: Buffer): string {
  const values = headerValues(request, 'idempotency-key')
  const wish = request.headers['askonce-key']
  if (wish !== undefined && wish !== 'derive') {
    throw new Problem('invalid_request', 'Askonce-Key must be derive, or left out.', { param: 'Askonce-Key' })
  }
  if (values.length === 0 && (wish === 'derive' || request.caller.deriveKeys)) {
    return `${derivedPrefix}${fingerprint.toString('hex')}`
  }
  const key = parseKey(values)
  if (key.ok) return key.key
  const more =
    key.code === 'idempotency_key_missing'
      ? ' Or send Askonce-Key: derive, and equal requests share one answer. The SDKs’ own idempotencyKey option sends nothing: use headers, or withIdempotency of @askonce/client.'
      : ''
  throw new Problem(key.code, key.detail + more, { param: 'Idempotency-Key' })
}
