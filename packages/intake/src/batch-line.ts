import {
  JsonError,
  maxKeyLength,
  parseJson,
  parseKeyText,
  type CallBounds,
  type JsonObject,
  type Operation,
  type RequestHeaders,
} from '@askonce/core'
import { noDefaults, type NewJob } from '@askonce/store'
import { z } from 'zod'
import { IntakeError } from './error.ts'
import { faultsOf } from './issues.ts'
import type { JobFactory } from './new-job.ts'

/** What the calls of the OpenAI API that a batch can make are here. */
export const batchEndpoints = {
  '/v1/chat/completions': 'chat.completions',
  '/v1/responses': 'responses',
  '/v1/embeddings': 'embeddings',
} as const satisfies Record<string, Operation>

/** Longest prefix of the keys of a batch: what is left of a key is enough for the custom_ids that are in use. */
const maxKeyPrefixLength = 190

/** What is wrong with a line, in the words of the OpenAI API. */
export interface LineFault {
  code: string
  message: string
  /** JSON pointer into the line. */
  param: string | null
}

export type CheckedLine =
  | { ok: true; customId: string; job: NewJob; bounds: CallBounds }
  /** `customId` is set when only what would be sent is at fault. */
  | { ok: false; customId: string | null; fault: LineFault }

/** What is the same of all lines of a batch. */
export interface LineKind {
  kind: 'openai' | 'anthropic'
  operation: Operation
  /** What `url` has to say. */
  endpoint: string
  keyPrefix: string
  /** Go to the provider with every line. */
  headers: RequestHeaders | null
}

interface LineCheckOptions extends LineKind {
  factory: JobFactory
}

const text = z.string({ error: (issue) => (issue.input === undefined ? 'is missing' : 'must be a text') })
const anyObject = z.looseObject(
  {},
  { error: (issue) => (issue.input === undefined ? 'is missing' : 'must be an object') },
)

const envelopes = {
  openai: z.looseObject({
    custom_id: text,
    method: z.literal('POST', { error: 'must be POST' }),
    url: text,
    body: anyObject,
  }),
  anthropic: z.looseObject({ custom_id: text, params: anyObject }),
} as const

/**
 * Returns a function that checks one line of a batch, without its end, and makes the row of its job. Nothing is thrown for a line, and
 * no value of it is repeated.
 */
export function createLineCheck(options: LineCheckOptions): (line: string) => CheckedLine {
  const { factory, kind, operation, endpoint, keyPrefix, headers } = options
  const member = kind === 'openai' ? 'body' : 'params'
  const envelope = envelopes[kind]

  return (line) => {
    let parsed
    try {
      parsed = parseJson(line)
    } catch (error) {
      if (!(error instanceof JsonError)) throw error
      return bad('invalid_json_line', `The line is not valid JSON: ${error.message}.`, error.pointer)
    }
    const value = parsed.value as JsonObject
    const checked = envelope.safeParse(value, { reportInput: true })
    if (!checked.success) {
      const [fault] = faultsOf(checked.error)
      const { pointer = '', text: what = 'is not a request' } = fault ?? {}
      const code = pointer === '/custom_id' && what === 'is missing' ? 'missing_custom_id' : 'invalid_request'
      return bad(code, `${pointer === '' ? 'the line' : pointer}: ${what}`, pointer)
    }
    const customId = checked.data.custom_id
    const wrong = customIdFault(customId, keyPrefix)
    if (wrong !== null) return bad(customId === '' ? 'missing_custom_id' : 'invalid_request', wrong, '/custom_id')
    if ('url' in checked.data && checked.data.url !== endpoint) {
      return bad('url_mismatch', `/url: must be the endpoint of the batch, ${endpoint}`, '/url')
    }
    // The parsed original, not the validator's copy: its text is known.
    const request = value[member] as JsonObject
    for (const [name, why] of [
      ['stream', 'the results of a batch are read when they are finished'],
      ['background', 'a batch runs in the background anyway'],
    ] as const) {
      if (request[name] === true) {
        return bad(
          'invalid_request',
          `/${member}/${name}: must be false or left out: ${why}`,
          `/${member}/${name}`,
          customId,
        )
      }
    }
    try {
      const { job, bounds } = factory.fromRequest({
        // Of the job, only what is asked counts here; whose it is and how it is run is decided when it is submitted.
        tenantId: '',
        defaults: noDefaults,
        key: `${keyPrefix}/${customId}`,
        operation,
        request,
        text: parsed.textOf(request),
        base: [member],
        headers,
        options: {},
      })
      return { ok: true, customId, job, bounds }
    } catch (error) {
      if (!(error instanceof IntakeError)) throw error
      return bad('invalid_request', error.message, error.param, customId)
    }
  }
}

function bad(code: string, message: string, param: string | null, customId: string | null = null): CheckedLine {
  return { ok: false, customId, fault: { code, message, param } }
}

/** Why a custom_id cannot be the end of a key; null: it can. */
function customIdFault(customId: string, keyPrefix: string): string | null {
  if (customId === '') return '/custom_id: must not be empty'
  const key = `${keyPrefix}/${customId}`
  const most = maxKeyLength - keyPrefix.length - 1
  if (key.length > maxKeyLength)
    return `/custom_id: must have at most ${most} characters: it is the end of the line's key`
  const parsed = parseKeyText(key)
  // A key that is read otherwise than it is written would name the answer of another line.
  if (!parsed.ok || parsed.key !== key) {
    return "/custom_id: must be printable ASCII without blanks at its end: it is the end of the line's key"
  }
  return null
}

/** Why a text cannot begin the keys of a batch; null: it can. */
export function keyPrefixFault(prefix: string): string | null {
  if (prefix.length > maxKeyPrefixLength) return `must have at most ${maxKeyPrefixLength} characters`
  const parsed = parseKeyText(`${prefix}/x`)
  const good = prefix !== '' && parsed.ok && parsed.key === `${prefix}/x`
  return good ? null : 'must be printable ASCII that begins neither with a blank nor with a quote'
}
