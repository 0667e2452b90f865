import type { Operation } from '@askonce/core'
import { z } from 'zod'
import { manyOf } from './many.ts'

const model = z.string().min(1, 'must not be empty').max(200, 'must have at most 200 characters')

const off = (what: string) =>
  z.union([z.literal(false), z.null()], { error: `must be false or left out: ${what}` }).optional()

const shared = { model, stream: z.boolean({ error: 'must be true or false' }).nullable().optional() }

const message = z.looseObject({
  role: z.string().min(1, 'must not be empty'),
  content: z
    .union([z.string(), z.array(z.unknown()), z.null()], { error: 'must be a text or a list of parts' })
    .optional(),
})

/** Most messages are, and a look costs a tenth of what zod's takes. */
function isPlainMessage(value: unknown): boolean {
  if (!isObject(value)) return false
  const { role, content } = value
  return typeof role === 'string' && role !== '' && typeof content === 'string'
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

const messages = manyOf(message, 'must hold at least one message', isPlainMessage)

const isTextOrToken = (value: unknown): boolean => typeof value === 'string' || typeof value === 'number'

const vector = manyOf(
  z.union([z.string(), z.number(), manyOf(z.number(), 'must not be empty', (value) => typeof value === 'number')]),
  'must not be empty',
  isTextOrToken,
)

const keptInputs = ['prompt', 'previous_response_id', 'conversation'] as const

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null && !(Array.isArray(value) && value.length === 0)
}

/**
 * What is checked of the provider's own body: the model, and the messages or the input. Everything else is between the
 * caller and the provider, and passes byte for byte.
 */
export const providerRequests = {
  'chat.completions': z.looseObject({ ...shared, messages }),
  messages: z.looseObject({ ...shared, messages }),
  responses: z
    .looseObject({
      ...shared,
      input: z
        .union([z.string(), manyOf(z.looseObject({}), 'must not be empty', isObject)], {
          error: 'must be a text or a list of items',
        })
        .nullable()
        .optional(),
    })
    // What is kept at the provider brings its own input: a prompt, an earlier response, a conversation.
    .refine(({ input, ...body }) => isGiven(input) || keptInputs.some((name) => isGiven(body[name])), {
      path: ['input'],
      error: 'is missing, and so are prompt, previous_response_id and conversation',
    }),
  embeddings: z.looseObject({
    model,
    stream: off('embeddings have no stream'),
    input: z.union([z.string(), vector], { error: 'must be a text, or a list of texts or of tokens' }),
  }),
} as const satisfies Record<Operation, z.ZodType>

const unstreamed = off('submit with "stream": true beside `operation` to follow the answer as it comes')

/**
 * The same where the native surface asks: streams are asked for in the envelope, and nothing is left running at the provider. In one
 * schema, so that a body is walked through once.
 */
export const nativeRequests = {
  'chat.completions': providerRequests['chat.completions'].extend({ stream: unstreamed }),
  messages: providerRequests.messages.extend({ stream: unstreamed }),
  responses: providerRequests.responses.safeExtend({
    stream: unstreamed,
    background: off('a job runs in the background anyway, and the answer would be a mere receipt'),
  }),
  embeddings: providerRequests.embeddings,
} as const satisfies Record<Operation, z.ZodType>
