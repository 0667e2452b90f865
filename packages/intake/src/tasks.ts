import {
  differences,
  namedParts,
  parseKeyText,
  type JsonObject,
  type Operation,
  type RequestHeaders,
} from '@askonce/core'
import type { TenantDefaults } from '@askonce/store'
import { createLineCheck, type CheckedLine, type LineKind } from './batch-line.ts'
import { decodeBody, parseText } from './body.ts'
import { prepareCall, type AskedCall, type PreparedCall } from './call.ts'
import { IntakeError, type IntakeCode } from './error.ts'
import { isStoredWith } from './stored-metadata.ts'
import { createJobFactory, type IntakeSettings, type JobFactory, type PreparedJob } from './new-job.ts'

interface StoredRequest {
  operation: Operation
  text: Uint8Array
  headers: RequestHeaders | null
}

/** What is done with bytes that somebody sent, by name: what it needs and what it makes. Nothing here waits for anything. */
export interface Tasks {
  /** A submission of the native surface, whose key came in a header. */
  submission: {
    needs: { tenantId: string; defaults: TenantDefaults; key: string; body: Uint8Array }
    makes: PreparedJob
  }
  /** One of many, which brings its key. */
  item: { needs: { tenantId: string; defaults: TenantDefaults; body: Uint8Array }; makes: PreparedJob }
  /** A call of a provider's API; the key is put in by whoever asks. */
  call: { needs: { call: AskedCall; body: Uint8Array }; makes: PreparedCall }
  /** A line of a batch. */
  line: { needs: { kind: LineKind; body: Uint8Array }; makes: CheckedLine }
  /** Whether a stored request asked the provider to keep its answer, with these metadata. */
  stored: { needs: { body: Uint8Array; wanted: Record<string, string> }; makes: boolean }
  /** JSON pointers to where two requests differ. */
  differences: { needs: { left: StoredRequest; right: StoredRequest }; makes: string[] }
}

export type TaskName = keyof Tasks

const tasks: { [Name in TaskName]: (factory: JobFactory, given: Tasks[Name]['needs']) => Tasks[Name]['makes'] } = {
  submission: (factory, { body, ...given }) => {
    const { value, textOf } = parseText(decodeBody(body))
    return factory.fromSubmission({ ...given, body: value, textOf })
  },
  item: (factory, { tenantId, defaults, body }) => {
    const { value, textOf } = parseText(decodeBody(body), 'The item')
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new IntakeError('invalid_request', 'the item: must be an object', '')
    }
    const { key: text, ...envelope } = value as JsonObject
    if (text === undefined) throw new IntakeError('idempotency_key_missing', '/key: is missing', '/key')
    if (typeof text !== 'string') throw new IntakeError('idempotency_key_invalid', '/key: must be a string', '/key')
    const key = parseKeyText(text)
    if (!key.ok) throw new IntakeError(key.code, key.detail, '/key')
    return factory.fromSubmission({ tenantId, defaults, key: key.key, body: envelope, textOf })
  },
  call: (factory, { call, body }) => prepareCall(factory, call, body),
  line: (factory, { kind, body }) => createLineCheck({ factory, ...kind })(Buffer.from(body).toString()),
  stored: (_factory, { body, wanted }) => isStoredWith(body, wanted),
  differences: (_factory, { left, right }) => differences(parsed(left), parsed(right)),
}

function parsed({ operation, text, headers }: StoredRequest): JsonObject {
  return namedParts(operation, parseText(decodeBody(text)).value, headers)
}

/** An outcome that survives the way out of a thread, where errors lose their class. */
export type TaskResult<Name extends TaskName> =
  | { ok: true; made: Tasks[Name]['makes'] }
  | { ok: false; code: IntakeCode; detail: string; param: string }

let last: { settings: IntakeSettings; factory: JobFactory } | null = null

/** Runs a task. */
export function runTask<Name extends TaskName>(
  settings: IntakeSettings,
  name: Name,
  given: Tasks[Name]['needs'],
): Tasks[Name]['makes'] {
  // Its schemas are built once.
  if (last?.settings !== settings) {
    last = { settings, factory: createJobFactory(settings) }
  }
  return tasks[name](last.factory, given)
}
