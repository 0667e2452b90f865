import { jobStates } from '@askonce/core'
import { timestamp } from '@askonce/intake'
import { z } from 'zod'
import { maxWaitSeconds } from '../prefer.ts'

const once = { error: 'must be given once' }

/** A whole number in a query; what it must be is said by whoever reads it. Described as the number that it is. */
const digits = (meta: { minimum: number; maximum?: number; default?: number }) =>
  z.string(once).meta({ type: 'integer', ...meta })

export const noQuery = z.strictObject({})
/** For probes, whose authors add what they like. */
export const anyQuery = z.looseObject({})

export const waitQuery = z.strictObject({
  wait: digits({ minimum: 0, maximum: maxWaitSeconds })
    .optional()
    .describe(`Seconds to wait until the job has settled, 0 to ${maxWaitSeconds}`),
})

const day = z.string(once).pipe(z.iso.date({ error: 'must be a day, such as 2026-01-31' }))

export const spendQuery = z.strictObject({
  from: day.optional().describe('First day, UTC; default 29 days before `to`'),
  to: day.optional().describe('Last day, UTC; default today'),
  group_by: z
    .enum(['model'], { error: 'must be model' })
    .optional()
    .describe('`model`: a row for each day, lane and model'),
})

const maxPageSize = 200
const defaultPageSize = 50

const page = (things: string) => ({
  limit: z
    .string(once)
    .refine((text) => /^\d{1,4}$/.test(text) && Number(text) >= 1 && Number(text) <= maxPageSize, {
      error: `must be an integer from 1 to ${maxPageSize}`,
    })
    .meta({ type: 'integer', minimum: 1, maximum: maxPageSize, default: defaultPageSize })
    .optional()
    .describe(`${things} per page, at most ${maxPageSize}; default ${defaultPageSize}`),
  cursor: z.string(once).optional().describe('`next_cursor` of the page before'),
})

/** How many are asked for. */
export function pageSizeOf({ limit }: { limit?: string | undefined }): number {
  return limit === undefined ? defaultPageSize : Number(limit)
}

export const listQuery = z.strictObject({
  key: z.string(once).optional().describe('The one job with this key'),
  state: z.enum(jobStates, { error: `must be one of ${jobStates.join(', ')}` }).optional(),
  // A plus sign in a query is read as a space.
  created_after: z
    .string(once)
    .transform((text) => text.replace(' ', '+'))
    .pipe(timestamp)
    .optional()
    .describe('Later than this, RFC 3339'),
  ...page('Jobs'),
})

export const attemptsQuery = z.strictObject({
  key: z.string(once).describe('The key whose attempts are meant'),
  ...page('Attempts'),
})
