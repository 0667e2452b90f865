import { lacksAnswer, readRequest, type JobRef, type JobRow, type SubmitResult } from '@askonce/store'
import type { Parts } from './context.ts'
import type { PreparedJob } from '@askonce/intake'
import type { Operation, RequestHeaders } from '@askonce/core'
import { patiently } from './patience.ts'
import { Problem } from './problem.ts'
import { outcomeNames } from './submissions.ts'

/** Whether this submission started nothing. */
export function isReplayed({ kind }: SubmitResult): boolean {
  return kind !== 'created' && kind !== 'rerun'
}

/**
 * A job with the bytes of its answer: a submission brings them along only where they are few.
 * @throws Problem `unavailable` when it has just gone: whoever sends the request again makes it run
 */
export async function withAnswer({ jobs }: Pick<Parts, 'jobs'>, job: JobRow): Promise<JobRow> {
  if (!lacksAnswer(job)) return job
  const row = await jobs.read(job.tenant_id, job.id)
  if (row !== null) return row
  throw new Problem('unavailable', 'The answer has just expired, or was deleted. Send the same request again.')
}

/**
 * The answer to another request under a known key, with pointers to the members that differ, never their values. Without
 * the new request (`null`) it does not look for them.
 */
export async function reusedKey(
  parts: Parts,
  prepared: PreparedJob | null,
  existing: JobRow,
  param = 'Idempotency-Key',
  more = '',
): Promise<Problem> {
  const pointers =
    prepared === null ? [] : await differencesOf(parts, prepared, { tenantId: existing.tenant_id, id: existing.id })
  const where = pointers.length === 0 ? '' : `: they differ at ${pointers.join(', ')}`
  return new Problem(
    'idempotency_key_reused',
    `The key names another request${where}. Use a new key for a new request.${more}`,
    {
      param,
      pointers,
    },
  )
}

/** Without the database, or the row, there is nothing to tell; the refusal stands all the same. */
async function differencesOf(parts: Parts, prepared: PreparedJob, ref: JobRef): Promise<string[]> {
  try {
    const stored = await patiently(readRequest(parts.db, ref))
    if (stored === null) return []
    const { operation, request, requestHeaders } = prepared.job
    return await parts.intake.differences({
      left: { operation: stored.operation as Operation, text: stored.request, headers: stored.request_headers },
      right: {
        operation,
        text: request,
        headers: requestHeaders === null ? null : (JSON.parse(requestHeaders) as RequestHeaders),
      },
    })
  } catch {
    return []
  }
}

export function logSubmission(parts: Parts, requestId: string, { kind, job }: SubmitResult): void {
  parts.log.event('submission.settled', {
    req_id: requestId,
    tenant: job.tenant_id,
    job_id: job.id,
    generation: job.generation,
    operation: job.operation,
    model: job.model,
    lane: job.lane,
    state: job.state,
    outcome: outcomeNames[kind],
  })
}
