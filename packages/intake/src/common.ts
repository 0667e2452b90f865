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

/** Up to 16 texts of the caller's own. */
export const metadata = z
  .record(
    z.string().min(1, 'must not be empty').max(64, 'must have at most 64 characters'),
    z.string().max(512, 'must have at most 512 characters'),
  )
  .refine((pairs) => Object.keys(pairs).length <= 16, 'must have at most 16 members')
