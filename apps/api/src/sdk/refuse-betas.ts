import type { FastifyRequest } from 'fastify'
import { Problem } from '../problem.ts'

/** Betas change what a request means, and are headers, which no key covers: better refused than lost. For every call that makes jobs. */
export function refuseBetas(request: FastifyRequest): void {
  for (const name of ['anthropic-beta', 'openai-beta']) {
    if (request.headers[name] === undefined) continue
    throw new Problem('invalid_request', `The header ${name} is not supported: it would not reach the provider.`, {
      param: name,
    })
  }
}
