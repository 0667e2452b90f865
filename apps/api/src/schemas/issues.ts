import { faultsOf, maxFaults } from '@askonce/intake'
import type { z } from 'zod'
import { Problem } from '../problem.ts'

/** The answer to a query that does not fit; its parameters have names. */
export function queryProblem(error: z.ZodError): Problem {
  const faults = faultsOf(error)
  const names = faults.map(({ pointer }) => pointer.slice(1))
  const told = faults.map(({ text }, index) => `${names[index]}: ${text.replace('member', 'parameter')}`)
  return new Problem('invalid_request', told.slice(0, maxFaults).join('; '), { param: names[0] ?? '' })
}
