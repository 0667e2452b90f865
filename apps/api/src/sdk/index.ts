import type { Config } from '@askonce/config'
import type { Operation } from '@askonce/core'
import { deliveryOptions, providerRequests } from '@askonce/intake'
import type { ApiRoute } from '../route.ts'
import { noQuery } from '../schemas/queries.ts'
import { ask } from './ask.ts'
import { anthropicBatchRoutes } from './batches/anthropic.ts'
import { openaiBatchRoutes } from './batches/openai.ts'
import { completionRoutes } from './completions.ts'
import { countTokensRoute } from './count-tokens.ts'
import { fileRoutes } from './files/index.ts'
import { modelRoutes } from './models.ts'
import { responseRoutes } from './responses.ts'

export { eventsRoute } from './job-events.ts'

const headers = {
  'Idempotency-Key': { required: false, description: 'Names this answer; without it `Askonce-Key`' },
  'Askonce-Key': {
    required: false,
    description: '`derive`: the key is made from the request; equal requests share one answer',
  },
  'Askonce-Options': {
    required: false,
    description: 'JSON with members of a submission: `{"on_uncertain":"hold","priority":0}`',
  },
  'Askonce-Keep-Alive': {
    required: false,
    description: '`true`: blanks before a slow answer keep the connection alive; errors then come with status 200',
  },
  'Last-Event-ID': { required: false, description: 'Of a stream: the last event that the client has' },
  Prefer: { required: false, description: '`respond-async`: the job at once (202) instead of the answer' },
} as const

const calls: { operation: Operation; path: string; tag: ApiRoute['tag']; summary: string }[] = [
  {
    operation: 'chat.completions',
    path: '/openai/v1/chat/completions',
    tag: 'OpenAI SDK',
    summary: 'Create a chat completion',
  },
  { operation: 'responses', path: '/openai/v1/responses', tag: 'OpenAI SDK', summary: 'Create a response' },
  { operation: 'embeddings', path: '/openai/v1/embeddings', tag: 'OpenAI SDK', summary: 'Create embeddings' },
  { operation: 'messages', path: '/anthropic/v1/messages', tag: 'Anthropic SDK', summary: 'Create a message' },
]

/** The calls of the providers' own SDKs, on the same jobs, keys and workers. */
export function sdkRoutes(limits: Config['limits']): ApiRoute[] {
  const options = deliveryOptions(limits)
  const asks = calls.map(({ operation, path, tag, summary }): ApiRoute => ({
    method: 'POST',
    path,
    scope: 'submit',
    tag,
    summary,
    description:
      'The provider’s own body and answer: its bytes, its status. Waits until the job of the key has its answer; `stream: true` follows it as it comes.',
    query: noQuery,
    headers,
    accepts: ['application/json'],
    body: providerRequests[operation],
    answers: {
      200: { description: 'The provider’s answer, or its events' },
      202: { description: 'The job, for `Prefer: respond-async`' },
    },
    errors: [
      'idempotency_key_missing',
      'idempotency_key_invalid',
      'idempotency_key_reused',
      'job_uncertain',
      'job_cancelled',
      'stream_interrupted',
      'upstream_failed',
      'overloaded',
      'wait_limit',
    ],
    handle: (parts, request, reply) => ask(parts, request, reply, { operation, options }),
  }))
  return [
    ...asks,
    ...completionRoutes,
    ...responseRoutes,
    ...modelRoutes,
    countTokensRoute,
    ...fileRoutes,
    ...openaiBatchRoutes,
    ...anthropicBatchRoutes,
  ]
}
