import { z } from 'zod'
import { maxFaults } from './issues.ts'

/**
 * A list whose elements are checked one after the other, as far as the first faults that are told: of half a million bad elements zod itself
 * would note each, which takes seconds and gigabytes. `isPlain`: elements that need no look.
 */
export function manyOf(element: z.ZodType, ifEmpty: string, isPlain: (value: unknown) => boolean = () => false) {
  return z
    .array(z.unknown())
    .min(1, ifEmpty)
    .check(({ value, issues }) => {
      let faults = 0
      for (const [index, item] of value.entries()) {
        if (isPlain(item)) continue
        const checked = element.safeParse(item, { reportInput: true })
        if (checked.success) continue
        for (const issue of checked.error.issues) {
          // As it is, but for its place.
          issues.push({ ...issue, input: issue.input, path: [index, ...issue.path] } as (typeof issues)[number])
        }
        faults += checked.error.issues.length
        if (faults > maxFaults) return
      }
    })
}
