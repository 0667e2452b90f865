import { parseKey } from '@askonce/core'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import type { Parts } from '../context.ts'
import { sendJob } from '../job-view.ts'
import { linkTo } from '../paths.ts'
import { Problem } from '../problem.ts'
import { refuseSdkHeaders } from '../sdk/request-headers.ts'
import { headerValues, type ApiRoute } from '../route.ts'
import { job as jobSchema } from '../schemas/job.ts'
import { waitQuery } from '../schemas/queries.ts'
import { settle } from '../settle.ts'
import { isReplayed, withAnswer } from '../submission-answer.ts'
import { waitForJob, waitOf } from '../wait-for-job.ts'

const nativeCall = ['native'] as const

async function submit(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const { tenantId, defaults } = request.caller
  refuseSdkHeaders(request)
  const limitMs = waitOf(request, reply)
  const key = parseKey(headerValues(request, 'idempotency-key'))
  if (!key.ok) throw new Problem(key.code, key.detail, { param: 'Idempotency-Key' })
  const { result } = await settle(parts, request, {
    callOf: () => nativeCall,
    key: key.key,
    prepare: (body) => parts.intake.submission({ tenantId, defaults, key: key.key, body }),
  })

  const { job: accepted } = result
  // Gone while we waited (deleted, or a very short ttl), or Postgres away: that it was accepted stays true all the same.
  const waited = (await waitForJob(parts, reply, accepted, limitMs, !isReplayed(result)).catch(() => null)) ?? accepted
  const row = await withAnswer(parts, waited)
  const replayed = isReplayed(result)
  const location = linkTo(parts.config.http.publicUrl, `/v1/jobs/${row.id}`)
  void reply.header('location', location).header('idempotent-replayed', String(replayed))
  return sendJob(parts, reply, row, { replayed })
}

/** POST /v1/jobs; its body depends on the limits that this server is configured with. */
export function submitRoute(body: z.ZodType): ApiRoute {
  return {
    method: 'POST',
    path: '/v1/jobs',
    scope: 'submit',
    tag: 'Jobs',
    summary: 'Submit a job',
    description:
      'One key, one answer: the same key with the same request gets the stored answer, or joins the job that runs. The answer comes after the commit: a 2xx survives everything.',
    query: waitQuery,
    headers: {
      'Idempotency-Key': {
        required: true,
        description: 'Names this answer: 1 to 255 printable ASCII characters. Quoted or not is the same',
      },
      Prefer: {
        required: false,
        description: '`wait=N`: answer when the job has settled, after N seconds (0 to 60) at the latest',
      },
    },
    accepts: ['application/json'],
    body,
    example: {
      operation: 'chat.completions',
      request: { model: 'simulated/small', messages: [{ role: 'user', content: 'Why do idempotency keys matter?' }] },
    },
    answers: {
      200: { description: 'The job has ended: with its answer, failed or cancelled', schema: jobSchema },
      202: { description: 'Accepted: queued, running or uncertain', schema: jobSchema },
    },
    errors: [
      'idempotency_key_missing',
      'idempotency_key_invalid',
      'idempotency_key_reused',
      'no_price',
      'rate_limited',
      'backlog_full',
      'overloaded',
    ],
    handle: submit,
  }
}
