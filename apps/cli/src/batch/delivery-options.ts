import { ExactInteger, toPointer, uncertainPolicies, type Json, type JsonObject } from '@askonce/core'

/** Something wrong, and an RFC 6901 pointer to it. */
export interface Found {
  message: string
  pointer: string
}

type Check = [expected: string, fits: (value: Json) => boolean]

const wholeFrom = (min: number): Check => [
  `expected a whole number of at least ${min}`,
  (value) => typeof value === 'number' && Number.isInteger(value) && value >= min,
]

/** What may stand beside the request. Types only: how large a ttl may be, the server knows. */
const checks: Record<string, Check> = {
  priority: [
    'expected a whole number from 0 (first) to 9',
    (value) => typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 9,
  ],
  run_at: [
    'expected a time such as 2030-01-31T12:00:00Z',
    (value) => typeof value === 'string' && /^\d{4}-\d\d-\d\dT/.test(value) && !Number.isNaN(Date.parse(value)),
  ],
  delay_seconds: wholeFrom(0),
  ttl_seconds: wholeFrom(1),
  deadline_seconds: wholeFrom(1),
  max_attempts: wholeFrom(1),
  max_paid_attempts: wholeFrom(1),
  timeout_seconds: wholeFrom(1),
  on_uncertain: [
    `expected one of ${uncertainPolicies.join(', ')}`,
    (value) => (uncertainPolicies as readonly Json[]).includes(value),
  ],
  metadata: ['expected an object of up to 16 texts of at most 512 characters, under names of at most 64', isMetadata],
}

export const optionNames: readonly string[] = Object.keys(checks)

/** The first delivery option of a line that does not fit; null: all do. */
export function envelopeProblem(value: JsonObject): Found | null {
  for (const [name, [expected, fits]] of Object.entries(checks)) {
    if (Object.hasOwn(value, name) && !fits(value[name] as Json))
      return { message: expected, pointer: toPointer([name]) }
  }
  const twice = Object.hasOwn(value, 'run_at') && Object.hasOwn(value, 'delay_seconds')
  return twice ? { message: 'not together with run_at', pointer: '/delay_seconds' } : null
}

function isMetadata(value: Json): boolean {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof ExactInteger) return false
  const pairs = Object.entries(value)
  return pairs.length <= 16 && pairs.every(isPair)
}

function isPair([name, text]: [string, Json]): boolean {
  return name.length >= 1 && name.length <= 64 && typeof text === 'string' && text.length <= 512
}
