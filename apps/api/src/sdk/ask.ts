import { Readable } from 'node:stream'
import { isSettled, type Operation } from '@askonce/core'
import { checkBody, parseText, type DeliveryOptions, type deliveryOptions } from '@askonce/intake'
import type { JobRow } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import type { Parts } from '../context.ts'
import { sendJob } from '../job-view.ts'
import { linkTo } from '../paths.ts'
import { prefersAsync } from '../prefer.ts'
import { Problem } from '../problem.ts'
import { headerValues } from '../route.ts'
import { settle, type Submission } from '../settle.ts'
import { isReplayed, withAnswer } from '../submission-answer.ts'
import { waitForJob } from '../wait-for-job.ts'
import { chooseKey } from './choose-key.ts'
import { lastEventId } from './event-ids.ts'
import { allowSilence } from './idle-timeout.ts'
import { keptAlive } from './keep-alive.ts'
import { givenPreviousId, namesPrevious } from './previous-response.ts'
import { requestHeaders } from './request-headers.ts'
import { sendResponse } from './responses.ts'
import { sendStream } from './send-stream.ts'
import { jobHeaders, sendProviderAnswer } from './settled-answer.ts'

/** What a caller is told who makes several calls under one key, as agents and chunked embeddings do. */
const severalCalls =
  ' If this key is for a run of several calls, send Askonce-Key: derive beside it: each call then has a key of its own within the run.'

/** What differs between the calls of the SDKs. */
export interface Call {
  operation: Operation
  /** Of the header that carries our own members. */
  options: ReturnType<typeof deliveryOptions>
}

/** A call of a stock SDK: attach to the key's job, wait for it, and answer as the provider did. */
export async function ask(parts: Parts, request: FastifyRequest, reply: FastifyReply, call: Call): Promise<unknown> {
  const after = lastEventId(request)
  const { result, wishes } = await settle(parts, request, submissionOf(parts, request, call))
  const { job } = result
  void reply.headers({
    ...jobHeaders(job),
    'idempotent-replayed': String(isReplayed(result)),
    location: linkTo(parts.config.http.publicUrl, `/v1/jobs/${job.id}`),
  })
  if (prefersAsync(headerValues(request, 'prefer'))) {
    void reply.header('preference-applied', 'respond-async')
    return sendJob(parts, reply, job, { replayed: isReplayed(result) })
  }
  // Streamed in the background: the stream is followed at once, and again by the id of the response.
  if (job.streamed) return sendStream(parts, request, reply, { job, after, wantsUsage: wishes.wantsUsage })
  if (wishes.background) return sendResponse(parts, reply, await withAnswer(parts, job))
  allowSilence(request, reply, parts.config.limits.sdkWaitMs)
  const settled = waitForJob(parts, reply, job, parts.config.limits.sdkWaitMs, !isReplayed(result)).then((row) =>
    withAnswer(parts, row ?? job),
  )
  if (request.headers['askonce-keep-alive'] === 'true' && !isSettled(job.state)) {
    return sendKeptAlive(parts, request, reply, settled)
  }
  return sendProviderAnswer(parts, reply, await settled)
}

function submissionOf(parts: Parts, request: FastifyRequest, { operation, options }: Call): Submission {
  const { tenantId, defaults } = request.caller
  const headers = requestHeaders(request, parts.config.forwardHeaders)
  const asked = { tenantId, defaults, operation, headers, options: readOptions(request, options) }
  const callKey = chooseKey(request)
  const call = [operation, headers, request.headers['askonce-options'] ?? null]
  return {
    // What an earlier response has become, the bytes do not tell.
    callOf: (body) => (operation === 'responses' && namesPrevious(body) ? null : call),
    key: callKey,
    prepare: async (body) => {
      const previous = operation === 'responses' ? await givenPreviousId(parts, tenantId, body) : null
      const prepared = await parts.intake.call({ call: { ...asked, previous }, body })
      prepared.job.key = typeof callKey === 'string' ? callKey : callKey(prepared.job.fingerprint)
      return prepared
    },
    advice: severalCalls,
  }
}

/** Our own members travel in a header: `Askonce-Options: {"on_uncertain":"hold"}`. */
function readOptions(request: FastifyRequest, schema: z.ZodType<DeliveryOptions>): DeliveryOptions {
  const text = request.headers['askonce-options']
  if (text === undefined) return {}
  try {
    return checkBody(schema, parseText(String(text), 'it').value)
  } catch (error) {
    const { message } = error as Error
    throw new Problem('invalid_request', `Askonce-Options: ${message}`, { param: 'Askonce-Options' })
  }
}

function sendKeptAlive(
  parts: Parts,
  request: FastifyRequest,
  reply: FastifyReply,
  settled: Promise<JobRow>,
): FastifyReply {
  const body = keptAlive(parts.db, settled, request)
  // nginx would gather the blanks.
  const headers = { 'content-type': 'application/json', 'x-accel-buffering': 'no' }
  return reply.code(200).headers(headers).send(Readable.from(body))
}
