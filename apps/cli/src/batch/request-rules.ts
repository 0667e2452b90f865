import { ExactInteger, toPointer, type Json, type JsonObject, type Operation } from '@askonce/core'
import type { Found } from './delivery-options.ts'

/**
 * What is wrong with a request as far as the server would refuse it too: model, messages and input. Everything else is the
 * provider's to judge. `member` is where the request stands in the line.
 */
export function requestProblem(operation: Operation, request: Json, member: string): Found | null {
  const body = request as JsonObject
  const at = (name: string, message: string): Found => ({
    message,
    pointer: toPointer(member === '' ? [name] : [member, name]),
  })
  const { model, messages, input, stream } = body
  if (typeof model !== 'string' || model === '') return at('model', 'expected the name of a model')
  if (stream !== undefined && stream !== false) return at('stream', 'a batch cannot stream: leave it out')
  if (operation === 'chat.completions' || operation === 'messages') {
    const fits = Array.isArray(messages) && messages.length > 0 && messages.every(isObject)
    return fits ? null : at('messages', 'expected a list of at least one message')
  }
  if (operation === 'embeddings' && input === undefined) return at('input', 'expected a text or a list')
  if (input !== undefined && typeof input !== 'string' && !Array.isArray(input))
    return at('input', 'expected a text or a list')
  return null
}

function isObject(value: Json): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof ExactInteger)
}
