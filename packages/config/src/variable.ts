import { z } from 'zod'
import { readInteger, readKey, type Reading } from './readers.ts'

/** What the reference page and a problem say about one variable. */
export type VariableDoc = {
  /** The default as it would be written, or what happens without the variable. */
  readonly unset: string
  readonly accepts: string
  readonly meaning: string
  readonly example: string
  /** A secret's value is never repeated in a problem, a table or a log line. */
  readonly secret?: boolean
}

/** The docs of every variable, keyed by its schema. */
export const variableDocs = z.registry<VariableDoc>()

/** One variable: absent means `unset`, anything else goes through `read`. */
export function variable<const T, const U>(doc: VariableDoc, unset: U, read: (given: string) => Reading<T>) {
  const schema = z
    .string()
    .optional()
    .transform((given, context): T | U => {
      if (given === undefined) return unset
      const reading = read(given)
      if ('value' in reading) return reading.value
      context.addIssue({ code: 'custom', message: reading.expected })
      return z.NEVER
    })
  return schema.register(variableDocs, doc)
}

type Bounds = { unset: number; min: number; max: number; unit: string; scale?: number }

/** A whole number with its unit; `scale` turns the unit into that of the code. */
export function integer({ unset, min, max, unit, scale = 1 }: Bounds, meaning: string) {
  const doc = { unset: String(unset), accepts: `${unit}, ${min} to ${max}`, meaning, example: String(unset) }
  return variable(doc, unset * scale, (given) => readInteger(given, min, max, scale))
}

/** A duration: seconds in the environment, milliseconds in the configuration. */
export function seconds(unset: number, min: number, max: number, meaning: string) {
  return integer({ unset, min, max, unit: 'seconds', scale: 1000 }, meaning)
}

/** A secret of printable ASCII without spaces: anything else cannot travel in an HTTP header. */
export function key(unset: string, example: string, meaning: string, min = 1, max = 4096) {
  const accepts = `${min} to ${max} printable ASCII characters without spaces`
  return variable({ unset, accepts, meaning, example, secret: true }, null, (given) => readKey(given, min, max))
}

/** A file system path, taken as it is; whether it can be used shows when it is used. */
export function path<U>(unset: string, value: U, example: string, meaning: string) {
  return variable({ unset, accepts: 'path', meaning, example }, value, (given) => ({ value: given }))
}
