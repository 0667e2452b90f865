import { maxKeyLength, parseKey } from '@askonce/core'
import type { FastifyRequest } from 'fastify'
import { Problem } from '../problem.ts'
import { headerValues } from '../route.ts'

/** Keys that are made from what is asked; the rest is the fingerprint in hexadecimal. */
const derivedPrefix = 'derived/'

/** What a derived key has behind the name of a run: a slash and the fingerprint. */
const derivedLength = 65

/**
 * The key of an SDK's request: its `Idempotency-Key`, or how it is derived from the fingerprint where the request
 * (`Askonce-Key: derive`) or its tenant asks for that. Equal requests then share one answer. With both headers the key names a run of
 * several calls, as agents make them: within it equal requests share one answer, and another run has its own.
 * @throws Problem when there is none, or it is malformed.
 */
export function chooseKey(request: FastifyRequest): string | ((fingerprint: Buffer) => string) {
  const values = headerValues(request, 'idempotency-key')
  const wish = request.headers['askonce-key']
  if (wish !== undefined && wish !== 'derive') {
    throw new Problem('invalid_request', 'Askonce-Key must be derive, or left out.', { param: 'Askonce-Key' })
  }
  if (values.length === 0 && (wish === 'derive' || request.caller.deriveKeys)) {
    return (fingerprint) => `${derivedPrefix}${fingerprint.toString('hex')}`
  }
  const key = parseKey(values)
  if (key.ok && wish !== 'derive') return key.key
  if (key.ok) {
    const most = maxKeyLength - derivedLength
    if (key.key.length <= most) return (fingerprint) => `${key.key}/${fingerprint.toString('hex')}`
    const detail = `The key has ${key.key.length} characters; with Askonce-Key: derive at most ${most} are allowed: the fingerprint of the request follows it.`
    throw new Problem('idempotency_key_invalid', detail, { param: 'Idempotency-Key' })
  }
  const more =
    key.code === 'idempotency_key_missing'
      ? ' Or send Askonce-Key: derive, and equal requests share one answer. The SDKs’ own idempotencyKey option sends nothing: use headers, or withIdempotency of @askonce/client.'
      : ''
  throw new Problem(key.code, key.detail + more, { param: 'Idempotency-Key' })
}
