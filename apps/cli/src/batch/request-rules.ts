import { ExactInteger, toPointer, type Json, type JsonObject, type Operation } from '@askonce/core'
import type { Found } from './delivery-options.ts'

const longestModel = 200

/**
 * What is wrong with a request as far as the server would refuse it too: model, messages and input. Everything else is the
 * provider's to judge. `member` is where the request stands in the line, `` for the line itself.
 */
export function requestProblem(operation: Operation, request: JsonObject, member: string): Found | null {
  const at = (message: string, ...path: (string | number)[]): Found => ({
    message,
    pointer: toPointer(member === '' ? path : [member, ...path]),
  })
  const { model, messages, input, prompt } = request
  if (typeof model !== 'string' || model === '') return at('expected the name of a model', 'model')
  if (model.length > longestModel) return at(`expected at most ${longestModel} characters`, 'model')
  if (isOn(request['stream'])) return at('a batch cannot stream: leave it out', 'stream')
  switch (operation) {
    case 'chat.completions':
    case 'messages': {
      if (!Array.isArray(messages) || messages.length === 0)
        return at('expected a list of at least one message', 'messages')
      const bad = messages.findIndex((message) => !isMessage(message))
      return bad === -1 ? null : at('expected a message: {"role", "content"}', 'messages', bad)
    }
    case 'responses':
      if (isOn(request['background'])) return at('a job runs in the background anyway: leave it out', 'background')
      if (input === undefined && prompt === undefined) return at('expected a text or a list of items', 'input')
      return input === undefined || isInput(input) ? null : at('expected a text or a list of items', 'input')
    case 'embeddings':
      return isInput(input) ? null : at('expected a text, or a list of texts or tokens', 'input')
  }
}

function isOn(value: Json | undefined): boolean {
  return value !== undefined && value !== false && value !== null
}

function isInput(value: Json | undefined): boolean {
  return typeof value === 'string' || (Array.isArray(value) && value.length > 0)
}

function isMessage(value: Json): boolean {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof ExactInteger) return false
  const { role, content } = value
  const fits = content === undefined || content === null || typeof content === 'string' || Array.isArray(content)
  return typeof role === 'string' && role !== '' && fits
}
