import type { z } from 'zod'
import { didYouMean } from './problems.ts'
import { variableDocs, type VariableDoc } from './variable.ts'
import { environmentSchema, type Environment } from './variables.ts'

/** Variables by name, as in `process.env`. */
export type Given = Readonly<Record<string, string | undefined>>

const schemas: Readonly<Record<string, z.ZodType>> = environmentSchema.shape
export const variableNames: readonly string[] = Object.keys(schemas)

/** A variable's value without surrounding white space (a mounted secret often ends in a newline); empty is unset. */
export function givenValue(env: Given, name: string): string | undefined {
  const value = env[name]?.trim()
  return value === '' ? undefined : value
}

/** Parses one variable: its value or what was expected. */
export function readVariable(
  env: Given,
  name: string,
): { doc: VariableDoc; value: unknown; expected: string | undefined } {
  const schema = schemas[name]
  const doc = schema && variableDocs.get(schema)
  if (!doc) throw new Error(`no such variable: ${name}`)
  const result = schema.safeParse(givenValue(env, name))
  return { doc, value: result.data, expected: result.error?.issues[0]?.message }
}

/** `NAME is "what was given"`, unless that must not be shown: an address may carry a password even where none belongs. */
function describe(env: Given, name: string, doc: VariableDoc): string {
  const given = givenValue(env, name)
  if (given === undefined) return `${name} is ${doc.unset} when unset`
  return doc.secret || given.includes('@') ? `${name} is set, but not as needed` : `${name} is ${JSON.stringify(given)}`
}

/** Variables that begin with ASKONCE_ and mean nothing here. ASKONCE_TEST_* belongs to the test suite. */
function unknownVariables(env: Given): string[] {
  const names = Object.keys(env).filter((name) => /^ASKONCE_(?!TEST_)/.test(name) && !variableNames.includes(name))
  return names
    .filter((name) => givenValue(env, name) !== undefined)
    .map((name) => {
      const meant = didYouMean(name, variableNames)
      return `${name} is not known: ${meant ? `did you mean ${meant}?` : 'docs/config.md lists every variable'}`
    })
}

/** Pairs of which the first must not be above the second, with what divides them into the unit of the environment. */
const ORDERED = [
  ['ASKONCE_DEFAULT_TTL_SECONDS', 'ASKONCE_MAX_TTL_SECONDS', 1000],
  ['ASKONCE_MAX_REQUEST_BYTES', 'ASKONCE_MAX_BODY_BYTES', 1],
] as const

/** All variables at once. With problems, `values` lacks the members that have one. */
export function readEnvironment(env: Given): { values: Environment; problems: string[] } {
  const problems: string[] = []
  const entries = variableNames.map((name): [string, unknown] => {
    const { doc, value, expected } = readVariable(env, name)
    if (expected) problems.push(`${describe(env, name, doc)}: expected ${expected}, for example ${name}=${doc.example}`)
    return [name, value]
  })
  const values = Object.fromEntries(entries) as Environment
  for (const [lower, upper, unit] of ORDERED) {
    if (values[lower] > values[upper]) {
      const { doc } = readVariable(env, lower)
      problems.push(`${describe(env, lower, doc)}: expected at most ${upper}, which is ${values[upper] / unit}`)
    }
  }
  if (values.DATABASE_DIRECT_URL && givenValue(env, 'DATABASE_URL') === undefined) {
    problems.push(
      'DATABASE_DIRECT_URL is set without DATABASE_URL: set DATABASE_URL to the pooler, or to this server alone',
    )
  }
  return { values, problems: [...problems, ...unknownVariables(env)] }
}
