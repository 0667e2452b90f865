import { Problem } from './problem.ts'

/** Longest wait in seconds. */
export const maxWaitSeconds = 60

const range = `an integer from 0 to ${maxWaitSeconds} (seconds)`

/** `name`, `name=value` or `name="value"`; parameters after `;` are ignored (RFC 7240). */
const preference = /(?:[^,"]|"(?:\\.|[^"\\])*")+/g

/**
 * The seconds of `Prefer: wait=N` in the values of the header; null without it. Other preferences may stand beside it; of two
 * waits the first counts.
 * @throws Problem `invalid_request` when it is not an integer from 0 to 60.
 */
export function preferredWaitSeconds(values: readonly string[]): number | null {
  for (const part of values.join(',').match(preference) ?? []) {
    const match = /^\s*([^\s=;]+)\s*(?:=\s*("(?:\\.|[^"\\])*"|[^;]*))?/.exec(part)
    if (match?.[1]?.toLowerCase() !== 'wait') continue
    return toSeconds((match[2] ?? '').trim().replace(/^"(.*)"$/s, '$1'), `Prefer: wait must be ${range}.`, 'Prefer')
  }
  return null
}

/** Whether the header asks for an answer before the job has ended (RFC 7240). */
export function prefersAsync(values: readonly string[]): boolean {
  const parts = values.join(',').match(preference) ?? []
  return parts.some((part) => /^\s*respond-async\s*(?:;|=|$)/i.test(part))
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
