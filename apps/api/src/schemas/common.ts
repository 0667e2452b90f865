import { z } from 'zod'

/** A time in an answer: RFC 3339, UTC. */
export const utc = z.iso.datetime()

export const tokens = z.int().nullable()
export const dollars = z.number().nullable().describe('US dollars; null while unknown')

/** One page of a list, or a bulk answer. */
export function listOf<Item extends z.ZodType>(item: Item) {
  return z.strictObject({
    object: z.literal('list'),
    data: z.array(item),
    has_more: z.boolean(),
    next_cursor: z.string().nullable(),
  })
}

/** The beginning of keys. */
export const keyPrefix = z
  .string({ error: 'must be given once' })
  .regex(/^[\x20-\x7e]{1,255}$/, 'must have 1 to 255 printable ASCII characters')
