import { jobStates } from '@askonce/core'
import { integer, maxBulkItems, metadata, timestamp } from '@askonce/intake'
import { z } from 'zod'
import { keyPrefix } from './common.ts'

const consent = z
  .boolean()
  .optional()
  .describe('Accepts that the provider may charge once more for what it may have charged already')

const reason = z
  .string({ error: 'must be a string' })
  .min(1, 'must not be empty')
  .max(500, 'must have at most 500 characters')
  .optional()
  .describe('Why, for whoever reads the decisions later')

const decision = {
  reason,
  generation: integer(1, 2 ** 31 - 1)
    .optional()
    .describe('Only if the job is still in this generation; else 409: somebody else has decided since you looked'),
}

export const decisionBody = z.strictObject(decision)
export const retryBody = z.strictObject({ ...decision, accept_duplicate_charge: consent })

const filter = z
  .strictObject({
    state: z.enum(jobStates, { error: `must be one of ${jobStates.join(', ')}` }).optional(),
    created_before: timestamp.optional(),
    key_prefix: keyPrefix.optional().describe('Jobs whose key begins with this; in the order of keys instead of time'),
    metadata: metadata.optional().describe('Jobs whose metadata has all of these'),
  })
  .refine((members) => Object.values(members).some((value) => value !== undefined), 'must have at least one member')

const which = {
  ids: z
    .array(z.string(), { error: 'must be a list of job ids' })
    .min(1, 'must not be empty')
    .max(maxBulkItems, `must hold at most ${maxBulkItems} ids`)
    .optional(),
  filter: filter.optional().describe('Instead of ids; newest first'),
  cursor: z.string().optional().describe('With a filter: `next_cursor` of the answer before'),
  reason,
}

const onlyOne = (body: { ids?: unknown; filter?: unknown; cursor?: unknown }): boolean =>
  (body.ids === undefined) !== (body.filter === undefined) && (body.cursor === undefined || body.filter !== undefined)

const onlyOneText = 'must have either ids or filter, and a cursor only with a filter'

export const bulkChangeBody = z.strictObject(which).refine(onlyOne, onlyOneText)
export const bulkRetryBody = z.strictObject({ ...which, accept_duplicate_charge: consent }).refine(onlyOne, onlyOneText)

export const bulkDeleteBody = z
  .strictObject({
    ...which,
    accept_duplicate_charge: consent,
    dry_run: z.boolean().optional().describe('Says what would become of each job, and changes nothing'),
  })
  .refine(onlyOne, onlyOneText)

export type BulkChangeBody = z.infer<typeof bulkDeleteBody>
