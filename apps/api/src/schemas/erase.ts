import { maxBulkItems, metadata, timestamp } from '@askonce/intake'
import { z } from 'zod'
import { keyPrefix } from './common.ts'

const filter = z
  .strictObject({
    created_before: timestamp.optional(),
    key: z
      .string({ error: 'must be a text' })
      .min(1, 'must not be empty')
      .max(255, 'must have at most 255 characters')
      .optional()
      .describe('Attempts of jobs that had this key'),
    key_prefix: keyPrefix.optional(),
    metadata: metadata.optional().describe('Attempts of jobs whose metadata had all of these'),
  })
  .refine((members) => Object.values(members).some((value) => value !== undefined), 'must have at least one member')

export const eraseBody = z
  .strictObject({
    ids: z
      .array(z.string(), { error: 'must be a list of job ids' })
      .min(1, 'must not be empty')
      .max(maxBulkItems, `must hold at most ${maxBulkItems} ids`)
      .optional(),
    filter: filter.optional().describe('Instead of ids'),
  })
  .refine(({ ids, filter: which }) => (ids === undefined) !== (which === undefined), 'must have either ids or filter')

export const erasedRows = z.strictObject({
  object: z.literal('erased'),
  erased: z.int().describe('Rows of attempts and of decisions'),
  has_more: z.boolean(),
})
