import type { Scope } from '@askonce/store'
import type { FastifyRequest } from 'fastify'
import type { KeyRing } from './key-ring.ts'
import { Problem } from './problem.ts'
import type { Caller } from './route.ts'
import { isAnthropicPath } from './paths.ts'

/** Keys are shorter; what is longer is not worth a hash. */
const maxKeyLength = 512

function unauthorized(detail: string, error = ''): Problem {
  return new Problem('unauthorized', detail, {
    param: 'Authorization',
    headers: { 'www-authenticate': `Bearer realm="askonce"${error}` },
  })
}

/**
 * Who asks, by `Authorization: Bearer <key>`, or by `x-api-key` where Anthropic's SDK asks.
 * @throws Problem `unauthorized` without a known key, `forbidden` when the key lacks the scope.
 */
export async function authorize(keys: KeyRing, request: FastifyRequest, scope: Scope): Promise<Caller> {
  const given = request.headers['x-api-key']
  const header =
    request.headers.authorization ??
    (isAnthropicPath(request.url) && typeof given === 'string' ? `Bearer ${given}` : undefined)
  if (header === undefined) throw unauthorized('Send your API key as Authorization: Bearer <key>.')
  const key = /^Bearer +([\x21-\x7e]+) *$/i.exec(header)?.[1]
  if (key === undefined || key.length > maxKeyLength) {
    throw unauthorized('The Authorization header is not Bearer <key>.', ', error="invalid_request"')
  }
  const found = await keys.find(key)
  if (found === null) throw unauthorized('The API key is unknown or revoked.', ', error="invalid_token"')
  if (!found.scopes.includes(scope)) {
    throw new Problem('forbidden', `This needs a key with the scope ${scope}; this one has ${found.scopes.join(', ')}.`)
  }
  return {
    tenantId: found.tenantId,
    scopes: found.scopes,
    deriveKeys: found.deriveKeys,
    defaults: found.defaults,
    limits: found.limits,
    key: { id: found.id, name: found.name },
  }
}
