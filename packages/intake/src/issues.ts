import { toPointer } from '@askonce/core'
import type { z } from 'zod'
import { IntakeError } from './error.ts'

/** At most so many faults are told at once. */
export const maxFaults = 5

type Issue = z.core.$ZodIssue

/** What is wrong with a value, as `pointer` and `text`; a member that is not known is named itself. No value is repeated. */
export function faultsOf(error: z.ZodError, base: readonly PropertyKey[] = []): { pointer: string; text: string }[] {
  return error.issues.flatMap((issue) => describe(issue, base))
}

function describe(issue: Issue, base: readonly PropertyKey[]): { pointer: string; text: string }[] {
  const path = [...base, ...issue.path].map(String)
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({ pointer: toPointer([...path, key]), text: 'unknown member' }))
  }
  if (issue.code === 'invalid_key' || issue.code === 'invalid_element') {
    return issue.issues.map(({ message }) => ({ pointer: toPointer(path), text: `bad member name: ${lower(message)}` }))
  }
  const missing = issue.code === 'invalid_type' && issue.input === undefined
  return [{ pointer: toPointer(path), text: missing ? 'is missing' : lower(issue.message) }]
}

function lower(text: string): string {
  return text.slice(0, 1).toLowerCase() + text.slice(1)
}

/**
 * What a schema makes of a part of a body. `base` is where it stands in the body.
 * @throws IntakeError with JSON pointers where it does not fit
 */
export function checkBody<Schema extends z.ZodType>(
  schema: Schema,
  value: unknown,
  base: readonly PropertyKey[] = [],
): z.infer<Schema> {
  const checked = schema.safeParse(value)
  if (checked.success) return checked.data
  // Telling what is missing needs the input beside each issue, which nearly doubles the cost of every check.
  throw bodyFault(schema.safeParse(value, { reportInput: true }).error ?? checked.error, base)
}

function bodyFault(error: z.ZodError, base: readonly PropertyKey[]): IntakeError {
  const faults = faultsOf(error, base)
  const told = faults
    .slice(0, maxFaults)
    .map(({ pointer, text }) => `${pointer === '' ? 'the body' : pointer}: ${text}`)
  const more = faults.length > told.length ? ` (and ${faults.length - told.length} more)` : ''
  return new IntakeError('invalid_request', `${told.join('; ')}${more}`, faults[0]?.pointer ?? '')
}
