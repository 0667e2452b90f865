import { isSettled, jobError } from '@askonce/core'
import type { Db, JobRow } from '@askonce/store'
import type { FastifyReply } from 'fastify'
import { answerBody, bodyOf, sendBody, type AnswerBody } from '../answer-body.ts'
import type { Parts } from '../context.ts'
import { Problem } from '../problem.ts'

/** Headers that say which job an answer is of. While it runs, the provider's request is that of an earlier call. */
export function jobHeaders(row: JobRow): Record<string, string> {
  return {
    'x-askonce-job-id': row.id,
    ...(row.cost_usd === null ? {} : { 'x-askonce-cost-usd': String(row.cost_usd) }),
    ...(row.provider_request_id === null || !isSettled(row.state)
      ? {}
      : { 'x-askonce-provider-request-id': row.provider_request_id }),
  }
}

/** Status and bytes of the provider. */
export interface ProviderAnswer {
  status: number
  contentType: string
  body: AnswerBody
  /** What the provider refused, the SDK must not send again by itself. */
  headers: Record<string, string>
}

/**
 * What a caller of an SDK gets of a job as it stands: the provider's own answer or refusal.
 * @throws Problem where the provider has said nothing: held, cancelled, failed without its words, or not finished.
 */
export function providerAnswer(db: Db, row: JobRow): ProviderAnswer {
  const body = answerBody(db, row)
  if (body !== null) {
    return {
      status: row.response_status ?? 200,
      contentType: row.response_content_type ?? 'application/json',
      body,
      headers: {},
    }
  }
  const refusal = refusalOf(row)
  if (refusal !== null) return refusal
  throw unanswered(row)
}

/** The provider's refusal that a failed job ended with; null: there is none, or not in its words. */
export function refusalOf(row: JobRow): ProviderAnswer | null {
  const status = row.error?.provider_status ?? null
  if (row.state !== 'failed' || row.error_response === null || status === null || status < 400) return null
  return {
    status,
    contentType: row.error_content_type ?? 'application/json',
    body: bodyOf(row.error_response),
    headers: { 'x-should-retry': 'false' },
  }
}

/** Why a job has no words of the provider. */
export function unanswered(row: JobRow): Problem {
  const { code, message } = row.error ?? jobError('provider_error')
  switch (row.state) {
    case 'uncertain':
      return new Problem(
        'job_uncertain',
        `The job ${row.id} is held: ${message}. POST /v1/jobs/${row.id}/retry with consent runs it again, /fail gives it up.`,
        { state: row.state },
      )
    case 'cancelled':
      return new Problem(
        'job_cancelled',
        `The job ${row.id} was cancelled; POST /v1/jobs/${row.id}/retry runs it again.`,
        {
          state: row.state,
        },
      )
    case 'failed':
      return new Problem('upstream_failed', `The job ${row.id} failed (${code}): ${message}`, { state: row.state })
    default:
      return new Problem(
        'wait_limit',
        `The job ${row.id} is ${row.state}, and this server does not wait longer in one request. It goes on; the same request with the same key continues.`,
        { state: row.state },
      )
  }
}

/** Sends it. */
export function sendProviderAnswer({ db }: Pick<Parts, 'db'>, reply: FastifyReply, row: JobRow): FastifyReply {
  const { status, contentType, body, headers } = providerAnswer(db, row)
  void reply.code(status).headers({ ...jobHeaders(row), ...headers, 'content-type': contentType })
  return sendBody(reply, body)
}
