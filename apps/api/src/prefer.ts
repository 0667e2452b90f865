import { Problem } from './problem.ts'

/** Longest wait in seconds. */
export const maxWaitSeconds = 60

const range = `an integer from 0 to ${maxWaitSeconds} (seconds)`

/** One preference: a name, and its value without quotes; null: it has none. */
interface Preference {
  name: string
  value: string | null
}

/**
 * `name`, `name=value` or `name="value"`, separated by commas that stand in no quotes; parameters after `;` are ignored (RFC 7240). One look at
 * each character: patterns that try again from every quote take seconds for a header full of them.
 */
function preferencesIn(values: readonly string[]): Preference[] {
  const parts: string[][] = [['']]
  let quoted = false
  let escaped = false
  for (const character of values.join(',')) {
    const part = parts.at(-1) as string[]
    if (!quoted && character === ',') parts.push([''])
    else if (!quoted && character === ';') part.push('')
    else part[part.length - 1] += character
    if (escaped) escaped = false
    else if (quoted && character === '\\') escaped = true
    else if (character === '"') quoted = !quoted
  }
  return parts.map(([first = '']) => {
    const at = first.indexOf('=')
    if (at < 0) return { name: first.trim().toLowerCase(), value: null }
    return { name: first.slice(0, at).trim().toLowerCase(), value: unquoted(first.slice(at + 1).trim()) }
  })
}

function unquoted(value: string): string {
  return value.length >= 2 && value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value
}

/**
 * The seconds of `Prefer: wait=N` in the values of the header; null without it. Other preferences may stand beside it; of two
 * waits the first counts.
 * @throws Problem `invalid_request` when it is not an integer from 0 to 60.
 */
export function preferredWaitSeconds(values: readonly string[]): number | null {
  const wait = preferencesIn(values).find(({ name }) => name === 'wait')
  return wait === undefined ? null : toSeconds(wait.value ?? '', `Prefer: wait must be ${range}.`, 'Prefer')
}

/** Whether the header asks for an answer before the job has ended (RFC 7240). */
export function prefersAsync(values: readonly string[]): boolean {
  return preferencesIn(values).some(({ name }) => name === 'respond-async')
}

/** The same of a `?wait=` parameter. */
export function waitParameterSeconds(text: string): number {
  return toSeconds(text, `wait must be ${range}.`, 'wait')
}

function toSeconds(text: string, detail: string, param: string): number {
  const seconds = /^\d{1,4}$/.test(text) ? Number(text) : Number.NaN
  if (!(seconds <= maxWaitSeconds)) throw new Problem('invalid_request', detail, { param })
  return seconds
}
