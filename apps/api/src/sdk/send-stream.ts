import { Readable } from 'node:stream'
import { readEvent } from '@askonce/core'
import type { JobRow } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { noSuchJob } from '../change.ts'
import type { Parts } from '../context.ts'
import { dialectOf, errorEvent } from './dialect.ts'
import { withId } from './event-ids.ts'
import { AnsweredOtherwise, follow, Unanswered, type EventId, type Following } from './follow.ts'
import { sendProviderAnswer } from './settled-answer.ts'

export interface StreamAsked {
  job: JobRow
  after: EventId | null
  /** Whether this client asked for the usage at the end of the stream. */
  wantsUsage: boolean
}

/** Follows the stream of a job to its end. The first piece decides about the status. */
export async function sendStream(
  parts: Parts,
  request: FastifyRequest,
  reply: FastifyReply,
  { job, after, wantsUsage }: StreamAsked,
): Promise<unknown> {
  const dialect = dialectOf[job.operation]
  const hidesUsage = job.operation === 'chat.completions' && !wantsUsage
  let sequence = 0
  return sendFollowed(reply, parts, {
    job,
    after,
    limitMs: parts.config.limits.sdkWaitMs,
    passesLarge: true,
    show: (event, id) => {
      sequence += 1
      return hidesUsage && isUsage(event) ? null : withId(event, id, job.operation)
    },
    showProblem: (problem, refusal) => Buffer.from(errorEvent(dialect, problem, refusal, request.id, sequence)),
  })
}

const streamHeaders = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-store',
  // nginx would gather events before it passes them on.
  'x-accel-buffering': 'no',
}

/** Sends what a follower yields; before its first piece, a status. */
export async function sendFollowed(
  reply: FastifyReply,
  parts: Parts,
  asked: Omit<Following, 'isGone'>,
): Promise<unknown> {
  const following = { ...asked, isGone: () => reply.raw.destroyed }
  const send = (body: AsyncIterable<Buffer> | Buffer[]): FastifyReply =>
    reply
      .code(200)
      .headers(streamHeaders)
      .send(Readable.from(body, { objectMode: true, highWaterMark: 1 }))
  // Of a stream it is asked what it would be, and not what is in it.
  if (reply.request.method === 'HEAD') return send([])
  const pieces = follow(parts, following)
  try {
    const first = await pieces.next()
    return await send(resumed(first, pieces))
  } catch (error) {
    if (error instanceof Unanswered) return sendProviderAnswer(parts, reply, error.row)
    if (!(error instanceof AnsweredOtherwise)) throw error
    const row = await parts.jobs.read(following.job.tenant_id, following.job.id)
    if (row === null) throw noSuchJob()
    return sendProviderAnswer(parts, reply, row)
  }
}

async function* resumed(
  first: IteratorResult<Buffer, void>,
  rest: AsyncGenerator<Buffer, void, undefined>,
): AsyncGenerator<Buffer, void, undefined> {
  try {
    if (!first.done) yield first.value
    yield* rest
  } finally {
    await rest.return()
  }
}

/** The event that the worker asks for on our behalf: usage, and no choice. */
function isUsage(event: Buffer): boolean {
  if (!event.includes('"usage"') || !event.includes('"choices"')) return false
  const data = readEvent(event).data
  if (data === null) return false
  try {
    const { choices, usage } = JSON.parse(data) as { choices?: unknown; usage?: unknown }
    return Array.isArray(choices) && choices.length === 0 && typeof usage === 'object' && usage !== null
  } catch {
    return false
  }
}
