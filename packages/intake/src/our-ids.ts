import { toPointer, type JsonObject } from '@askonce/core'
import { IntakeError } from './error.ts'

/** 32 hexadecimal digits of a UUIDv7: how the ids of our files and background responses look, and no provider's. */
const ours = /^(?:file-|resp_)[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}$/
/** Whether a text may hold one: a request is walked through only then. */
const mayHold = /"(?:file-|resp_)[0-9a-f]{32}"/

const fileMembers = new Set(['file_id', 'file_ids'])

/**
 * Refuses a request that names by our ids what the provider knows by other ids, or not at all: it would be sent as it is, and mean nothing
 * there.
 * @throws IntakeError at the first of them
 */
export function refuseOurIds(request: JsonObject, text: string, base: readonly string[]): void {
  if (!mayHold.test(text)) return
  const previous = request['previous_response_id']
  if (typeof previous === 'string' && ours.test(previous)) {
    throw refuse(
      [...base, 'previous_response_id'],
      'is the id that this server gave a background response before the provider had named it; read the response, and send the id that it has then',
    )
  }
  const walk = (value: unknown, path: readonly string[], isFile: boolean): void => {
    if (isFile && typeof value === 'string' && ours.test(value)) {
      throw refuse(
        path,
        'is the id of a file here, which the provider does not know; upload it to the provider, or put its content into the request',
      )
    }
    if (typeof value !== 'object' || value === null) return
    for (const [name, member] of Object.entries(value)) {
      walk(member, [...path, name], fileMembers.has(name) || (isFile && Array.isArray(value)))
    }
  }
  walk(request, base, false)
}

function refuse(path: readonly string[], why: string): IntakeError {
  const pointer = toPointer(path)
  return new IntakeError('invalid_request', `${pointer}: ${why}`, pointer)
}
