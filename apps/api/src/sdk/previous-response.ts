import { isTerminal } from '@askonce/core'
import type { PreviousResponse } from '@askonce/intake'
import type { Parts } from '../context.ts'
import { isJobId } from '../route.ts'
import { jobIdOf } from './response-object.ts'

/** In the text of a request: within a string of JSON its quotes would have backslashes. */
const member = /"previous_response_id"\s*:\s*"(resp_[0-9a-f]{32})"/

/** Whether a request may go on from a response of before. */
export function namesPrevious(body: Buffer): boolean {
  return body.includes('"previous_response_id"')
}

/**
 * What the id of a background response, as it had it at first, stands for; null: the request names none. A member of that name deeper in the request
 * is looked up in vain, and stays as it is.
 */
export async function givenPreviousId(
  parts: Parts,
  tenantId: string,
  body: Uint8Array,
): Promise<PreviousResponse | null> {
  // What is larger is refused anyway, and looking through it takes its time.
  if (body.byteLength > parts.config.limits.maxRequestBytes) return null
  const text = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  if (!namesPrevious(text)) return null
  const ours = member.exec(text.toString('latin1'))?.[1]
  const id = ours === undefined ? null : jobIdOf(ours)
  if (ours === undefined || id === null || !isJobId(id)) return null
  const row = await parts.jobs.read(tenantId, id)
  if (row?.operation !== 'responses') {
    return { ours, providers: null, refusal: 'there is no such response here, or it has expired' }
  }
  const what = isTerminal(row.state)
    ? 'nothing can follow it'
    : 'wait until it is completed, then send the same request with the same key again'
  const providers = row.state === 'succeeded' ? row.answer_id : null
  return { ours, providers, refusal: `the response is ${row.state}: ${what}` }
}
