import { canonicalize, isTerminal, type JsonObject } from '@askonce/core'
import type { Parts } from '../context.ts'
import { Problem } from '../problem.ts'
import { isJobId } from '../route.ts'
import { jobIdOf } from './response-object.ts'

const param = '/previous_response_id'

/**
 * A request that goes on from a background response by the id that it had at first: with the provider's own id in its place, so that the
 * key names the same request whichever of the two is sent. Null: there is nothing to replace.
 * @throws Problem when that response has no id of the provider, or is not known
 */
export async function withProvidersId(
  parts: Parts,
  tenantId: string,
  request: JsonObject,
): Promise<{ request: JsonObject; text: string } | null> {
  const { previous_response_id: previous } = request
  const id = typeof previous === 'string' ? jobIdOf(previous) : null
  if (id === null || !isJobId(id)) return null
  const row = await parts.jobs.read(tenantId, id)
  if (row?.operation !== 'responses') {
    throw new Problem('invalid_request', `${param}: there is no such response here, or it has expired`, { param })
  }
  if (row.state !== 'succeeded' || row.answer_id === null) {
    const what = isTerminal(row.state)
      ? 'nothing can follow it'
      : 'wait until it is completed, then send the same request with the same key again'
    throw new Problem('invalid_request', `${param}: the response is ${row.state}: ${what}`, { param })
  }
  const replaced = { ...request, previous_response_id: row.answer_id }
  return { request: replaced, text: canonicalize(replaced) }
}
