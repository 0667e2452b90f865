import type { FastifyRequest } from 'fastify'
import { Problem } from '../problem.ts'

/** What an SDK's user can do about a path, by how it begins; the first that fits. */
const hints: readonly [prefix: RegExp, hint: string][] = [
  [/^\/openai\/v1\/v1\//, 'The base URL ends in /openai/v1, and the path adds /v1 once more: leave one of them out.'],
  [/^\/anthropic\/v1\/v1\//, 'The base URL of Anthropic’s SDK ends in /anthropic: it adds /v1 itself.'],
  [
    /^\/openai\/v1\//,
    'Here are chat/completions, responses, embeddings, models, files and batches. Call the provider itself for the rest: it is neither keyed nor stored.',
  ],
  [
    /^\/anthropic\/v1\//,
    'Here are messages, messages/count_tokens, messages/batches and models. Call the provider itself for the rest: it is neither keyed nor stored.',
  ],
  [/^\/openai(?:\/|$)/, 'The base URL for OpenAI’s SDK ends in /openai/v1.'],
  [/^\/anthropic(?:\/|$)/, 'The base URL for Anthropic’s SDK ends in /anthropic, and its paths begin with /v1.'],
  [
    /^\/(?:v1\/)?(?:chat\/completions|responses|embeddings|models|files|batches)(?:\/|$)/,
    'The base URL for OpenAI’s SDK ends in /openai/v1.',
  ],
  [/^\/(?:v1\/)?messages(?:\/|$)/, 'The base URL for Anthropic’s SDK ends in /anthropic.'],
]

const longestPath = 200

/** Names a route that is not here, and says what to do. `docs` is where the routes are listed. */
export function noSuchRoute({ method, url }: Pick<FastifyRequest, 'method' | 'url'>, docs: string): Problem {
  const path = url.split('?', 1)[0] ?? ''
  const hint = hints.find(([prefix]) => prefix.test(path))?.[1] ?? `${docs} lists what there is.`
  return new Problem('not_found', `There is no ${method} ${path.slice(0, longestPath)} here. ${hint}`)
}
