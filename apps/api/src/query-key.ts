import { parseKeyText } from '@askonce/core'
import { Problem } from './problem.ts'

/**
 * The key that `?key=` names.
 * @throws Problem when it can be no key
 */
export function keyInQuery(text: string): string {
  const parsed = parseKeyText(text)
  if (!parsed.ok) throw new Problem(parsed.code, parsed.detail, { param: 'key' })
  return parsed.key
}
