import type { PreparedJob } from '@askonce/intake'
import type { SubmitResult } from '@askonce/store'
import type { FastifyRequest } from 'fastify'
import { noWishes, wishesIn, withWishes, type Wishes } from './body-digests.ts'
import type { Parts } from './context.ts'
import { useBody } from './request-body.ts'
import { logSubmission, reusedKey } from './submission-answer.ts'

/** A request that submits one job. */
export interface Submission {
  /** What decides the meaning of the body beside it. Null: something that may change; then it is parsed each time. */
  callOf: (body: Buffer) => readonly unknown[] | null
  /** Its key; a function: how it is derived from the fingerprint. */
  key: string | ((fingerprint: Buffer) => string)
  /** Parses and checks the body. */
  prepare: (body: Buffer) => Promise<PreparedJob & Partial<Wishes>>
  /** What a caller is told of a reused key, beyond the usual. */
  advice?: string
}

export interface Settled {
  result: SubmitResult
  /** What the body asks for beside the request. */
  wishes: Wishes
}

type Prepared = { prepared: PreparedJob; wishes: Wishes; isAbsent: boolean }

/**
 * Settles a submission, after the commit where it starts something. A body that is byte for byte the one that made its job, and starts nothing, is
 * neither parsed nor checked: it was then, by the same settings.
 * @throws Problem or IntakeError when it is refused, also for a key that names another request
 */
export async function settle(parts: Parts, request: FastifyRequest, submission: Submission): Promise<Settled> {
  const found = await useBody(request, (body) => recallOrPrepare(parts, request.caller.tenantId, submission, body))
  if ('result' in found) {
    logSubmission(parts, request.id, found.result)
    return found
  }
  const { prepared, wishes, isAbsent } = found
  const result = await parts.submissions.submit(prepared.job, request.caller.limits, isAbsent)
  logSubmission(parts, request.id, result)
  if (result.kind !== 'mismatch') return { result, wishes }
  throw await reusedKey(parts, prepared, result.job, 'Idempotency-Key', submission.advice)
}

async function recallOrPrepare(
  parts: Parts,
  tenantId: string,
  { callOf, key: given, prepare }: Submission,
  body: Buffer,
): Promise<Settled | Prepared> {
  const { digests, submissions } = parts
  const call = callOf(body)
  const digest = call === null ? null : await digests.of(tenantId, call, body)
  let isAbsent = false
  if (digest !== null && submissions.shouldRecall(body)) {
    const key = typeof given === 'string' ? given : digests.derive(digest, given)
    if (key !== null) {
      const recalled = await submissions.recall({ tenantId, key, digest })
      if (recalled.kind === 'settled')
        return { result: recalled.result, wishes: wishesIn(recalled.result.job.body_digest) }
      isAbsent = recalled.kind === 'absent'
    }
  }
  const prepared = await prepare(body)
  const { background = false, wantsUsage = false } = prepared
  const wishes = background || wantsUsage ? { background, wantsUsage } : noWishes
  if (digest !== null) {
    prepared.job.bodyDigest = withWishes(digest, wishes)
    if (typeof given === 'function') digests.remember(digest, prepared.job.fingerprint)
  }
  return { prepared, wishes, isAbsent }
}
