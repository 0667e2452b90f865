import { z } from 'zod'

/** An integer in a range; every fault of it reads the same. */
export function integer(minimum: number, maximum: number) {
  return z
    .int({ error: wrong(minimum, maximum) })
    .min(minimum, { error: wrong(minimum, maximum) })
    .max(maximum, { error: wrong(minimum, maximum) })
}

function wrong(minimum: number, maximum: number) {
  return (issue: { input?: unknown }) =>
    issue.input === undefined ? 'is missing' : `must be an integer from ${minimum} to ${maximum}`
}

/** RFC 3339 with any offset. */
export const timestamp = z.iso.datetime({
  offset: true,
  error: 'must be a time as RFC 3339 writes it, such as 2026-01-31T12:00:00Z',
})

/** A time in an answer: RFC 3339, UTC. */
export const utc = z.iso.datetime()

export const tokens = z.int().nullable()
export const dollars = z.number().nullable().describe('US dollars; null while unknown')

/** Up to 16 texts of the caller's own. */
export const metadata = z
  .record(
    z.string().min(1, 'must not be empty').max(64, 'must have at most 64 characters'),
    z.string().max(512, 'must have at most 512 characters'),
  )
  .refine((pairs) => Object.keys(pairs).length <= 16, 'must have at most 16 members')

/** One page of a list, or a bulk answer. */
export function listOf<Item extends z.ZodType>(item: Item) {
  return z.strictObject({
    object: z.literal('list'),
    data: z.array(item),
    has_more: z.boolean(),
    next_cursor: z.string().nullable(),
  })
}
