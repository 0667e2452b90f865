import type { z } from 'zod'
import { completeDatabaseUrl, type Given, libpqProblems, libpqVariables } from './libpq.ts'
import { didYouMean } from './problems.ts'
import { databaseProblems, redisProblems } from './servers.ts'
import { variableDocs, type VariableDoc } from './variable.ts'
import { environmentSchema, type Environment } from './variables.ts'

const schemas: Readonly<Record<string, z.ZodType>> = environmentSchema.shape
export const variableNames: readonly string[] = Object.keys(schemas)

/**
 * A variable's value without surrounding white space (a mounted secret often ends in a newline); empty is unset. The address of a
 * database is completed by the variables of libpq.
 */
export function givenValue(env: Given, name: string): string | undefined {
  const value = env[name]?.trim()
  if (value === undefined || value === '') return undefined
  return /^DATABASE_(?:DIRECT_)?URL$/.test(name) ? completeDatabaseUrl(value, env) : value
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

/** Nothing of the value is a password: neither a key nor an address with more than host, port and path. */
const harmless = /^(?:https?:\/\/)?[\w .,-]*(?::\d{1,5})?(?:\/[\w./-]*)?$/

/** `NAME is "what was given"`, unless that must not be shown: an address may carry a password even where none belongs. */
function describe(env: Given, name: string, doc: VariableDoc): string {
  const given = givenValue(env, name)
  if (given === undefined) return `${name} is ${doc.unset} when unset`
  if (given !== env[name]?.trim()) return `${name}, completed by ${libpqVariables(env).join(', ')}, is not as needed`
  return doc.secret || !harmless.test(given)
    ? `${name} is set, but not as needed`
    : `${name} is ${JSON.stringify(given)}`
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
  return {
    values,
    problems: [
      ...problems,
      ...databaseProblems(values),
      ...redisProblems(values),
      ...libpqProblems(env),
      ...unknownVariables(env),
    ],
  }
}
