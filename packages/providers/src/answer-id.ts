import type { Operation } from '@askonce/core'
import { stringMember, type JsonObject } from './json-value.ts'

/** The provider's own id of an answer; null when it has none, or none that is up to 200 printable ASCII characters. */
export function answerIdOf(operation: Operation, answer: JsonObject): string | null {
  const id = operation === 'embeddings' ? null : stringMember(answer, 'id')
  return id !== null && /^[\x20-\x7e]{1,200}$/.test(id) ? id : null
}
