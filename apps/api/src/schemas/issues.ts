import { toPointer } from '@askonce/core'
import type { z } from 'zod'
import { Problem } from '../problem.ts'

/** At most so many faults are told at once. */
const maxFaults = 5

type Issue = z.core.$ZodIssue

/** What is wrong, as `pointer: text`; a member that is not known is named itself. */
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

/** The answer to a body that does not fit, with JSON pointers. No value of the body is repeated. */
export function bodyProblem(error: z.ZodError, base: readonly PropertyKey[] = []): Problem {
  const faults = error.issues.flatMap((issue) => describe(issue, base))
  const told = faults
    .slice(0, maxFaults)
    .map(({ pointer, text }) => `${pointer === '' ? 'the body' : pointer}: ${text}`)
  const more = faults.length > told.length ? ` (and ${faults.length - told.length} more)` : ''
  return new Problem('invalid_request', `${told.join('; ')}${more}`, { param: faults[0]?.pointer ?? '' })
}

/** The same for a query, whose parameters have names. */
export function queryProblem(error: z.ZodError): Problem {
  const faults = error.issues.flatMap((issue) => describe(issue, []))
  const names = faults.map(({ pointer }) => pointer.slice(1))
  const told = faults.map(({ text }, index) => `${names[index]}: ${text.replace('member', 'parameter')}`)
  return new Problem('invalid_request', told.slice(0, maxFaults).join('; '), { param: names[0] ?? '' })
}
