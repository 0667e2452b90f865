import type { Operation } from '@askonce/core'
import { checkShape, saysUsed } from './answer-shape.ts'
import { isObject, stringMember, type JsonObject } from './json-value.ts'

/** What the events of one streamed answer add up to. */
export interface StreamMeaning {
  /** Takes the JSON of the next event. True: with it the answer is complete or about to be said complete. */
  read: (json: JsonObject, type: string | null) => boolean
  /** Takes `[DONE]`. */
  done: () => void
  /** Whether an event has come behind which nothing counts. */
  isOver: () => boolean
  /** Whether it was said what the whole call used. */
  isBilled: () => boolean
  /** Null when the answer is complete; else what is missing. */
  missing: () => string | null
  flags: () => string[]
  /** Members `id`, `model` and `usage` as the operation's plain answer has them, as far as they have come. */
  answer: () => JsonObject
}

/** `choices`: how many the request asks for. */
export function meaningOf(operation: Operation, choices: number): StreamMeaning {
  if (operation === 'responses') return responses()
  return operation === 'messages' ? messages() : chatCompletions(choices)
}

function chatCompletions(wanted: number): StreamMeaning {
  /** Finish reason by index of the choice; null: it has begun. */
  const reasons = new Map<number, string | null>()
  const found: JsonObject = {}
  let refusal = false
  let done = false
  const open = (): number => [...reasons.values()].filter((reason) => reason === null).length
  // `[DONE]` is the provider's word that no more choices come: some compatible servers know only one.
  const isComplete = (): boolean => reasons.size > 0 && open() === 0 && (reasons.size >= wanted || done)
  return {
    read: (json) => {
      found['id'] ??= stringMember(json, 'id')
      found['model'] ??= stringMember(json, 'model')
      if (isObject(json['usage'])) found['usage'] = json['usage']
      const choices = Array.isArray(json['choices']) ? json['choices'].filter(isObject) : []
      for (const choice of choices) {
        const index = typeof choice['index'] === 'number' ? choice['index'] : 0
        reasons.set(index, stringMember(choice, 'finish_reason') ?? reasons.get(index) ?? null)
        const { delta } = choice
        if (isObject(delta) && stringMember(delta, 'refusal') !== null) refusal = true
      }
      return isComplete() || (choices.length === 0 && reasons.size > 0 && isObject(json['usage']))
    },
    done: () => {
      done = true
    },
    isOver: () => false,
    isBilled: () => saysUsed(found),
    missing: () => {
      if (isComplete()) return null
      const lacking = Math.max(wanted, reasons.size) - (reasons.size - open())
      return `${lacking} of ${Math.max(wanted, reasons.size)} choices have no finish_reason`
    },
    flags: () => {
      const choices = [...reasons.values()].map((reason) => ({ finish_reason: reason, message: {} }))
      return flagsOf('chat.completions', { choices }, refusal)
    },
    answer: () => found,
  }
}

function responses(): StreamMeaning {
  const found: JsonObject = {}
  let terminal: JsonObject | null = null
  let refusal = false
  return {
    read: (json, type) => {
      const { response } = json
      if (isObject(response)) {
        for (const name of ['id', 'model']) found[name] ??= stringMember(response, name)
        if (isObject(response['usage'])) found['usage'] = response['usage']
      }
      if (type === 'response.refusal.delta' || type === 'response.refusal.done') refusal = true
      if (type === 'response.completed' || type === 'response.incomplete') {
        const status = type.slice('response.'.length)
        terminal = { ...(isObject(response) ? response : {}), status }
        if (!Array.isArray(terminal['output'])) terminal['output'] = []
      }
      return terminal !== null
    },
    done: () => {},
    isOver: () => terminal !== null,
    isBilled: () => saysUsed(found),
    missing: () => (terminal === null ? 'there is no response.completed or response.incomplete' : null),
    flags: () => flagsOf('responses', terminal ?? {}, refusal),
    answer: () => found,
  }
}

function messages(): StreamMeaning {
  const found: JsonObject = {}
  const usage: JsonObject = {}
  let stopReason: string | null = null
  let started = false
  let stopped = false
  let totalled = false
  /** Counts are cumulative, and null where nothing new is said. */
  const merge = (counts: unknown): void => {
    if (!isObject(counts)) return
    for (const [name, value] of Object.entries(counts)) if (value !== null) usage[name] = value
    found['usage'] = usage
  }
  return {
    read: (json, type) => {
      const { message, delta } = json
      if (type === 'message_start' && isObject(message)) {
        started = true
        found['id'] ??= stringMember(message, 'id')
        found['model'] ??= stringMember(message, 'model')
        merge(message['usage'])
      }
      if (type === 'message_delta') {
        merge(json['usage'])
        totalled ||= isObject(json['usage'])
        if (isObject(delta)) stopReason = stringMember(delta, 'stop_reason') ?? stopReason
      }
      if (type === 'message_stop') stopped = true
      return stopReason !== null || stopped
    },
    done: () => {},
    isOver: () => stopped,
    // What the beginning of a message says is not what the call will have used.
    isBilled: () => totalled && saysUsed(found),
    missing: () => {
      if (!started) return 'there is no message_start'
      return stopped ? null : 'there is no message_stop'
    },
    flags: () => flagsOf('messages', { content: [], stop_reason: stopReason }, false),
    answer: () => found,
  }
}

/** As of the plain answer with these members. */
function flagsOf(operation: Operation, answer: JsonObject, refusal: boolean): string[] {
  const shape = checkShape(operation, answer)
  const flags = shape.ok ? shape.flags : []
  return refusal && !flags.includes('refused') ? [...flags, 'refused'] : flags
}
