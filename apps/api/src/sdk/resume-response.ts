import { readEvent } from '@askonce/core'
import type { JobRow } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Parts } from '../context.ts'
import { Problem } from '../problem.ts'
import { idOf } from '../route.ts'
import { errorEvent } from './dialect.ts'
import { withId } from './event-ids.ts'
import { interrupted, type EventId } from './follow.ts'
import { jobIdOf } from './response-object.ts'
import { sendFollowed } from './send-stream.ts'

/**
 * The stream of a response again, behind the event with the sequence number `startingAfter`. Each attempt numbers its events from 0, so the
 * number alone could join the beginning of one to the rest of another. What tells them apart is the id of the response, which the first
 * events of a stream name: nothing is shown of a stream that does not name the id that was asked for.
 */
export function resumeResponse(
  parts: Parts,
  request: FastifyRequest,
  reply: FastifyReply,
  job: JobRow,
  startingAfter: string | undefined,
): Promise<unknown> {
  if (!job.streamed) {
    throw new Problem('invalid_request', 'This response was not made with stream: true; there is no stream of it.', {
      param: 'stream',
    })
  }
  const from = startingAfter === undefined ? -1 : Number(startingAfter)
  const check = startingAfter === undefined ? () => undefined : attemptCheck(idOf(request))
  let sequence = from
  return sendFollowed(reply, parts, {
    job,
    after: null,
    resumes: startingAfter !== undefined,
    limitMs: parts.config.limits.sdkWaitMs,
    show: (event, id) => {
      const read = readResponseEvent(event)
      sequence = read.sequence ?? sequence
      const isNew = sequence > from
      check(read.responseId, id, isNew)
      return isNew ? withId(event, id, job.operation) : null
    },
    showProblem: (problem, refusal) =>
      Buffer.from(errorEvent('openai-responses', problem, refusal, request.id, sequence + 1)),
  })
}

/** Throws at an event of another attempt than the one that the client has seen. */
function attemptCheck(asked: string): (named: string | null, id: EventId, isNew: boolean) => void {
  // Our own name is of the job, whatever the attempt. It says enough as long as there has been one.
  if (jobIdOf(asked) !== null) {
    return (_named, { attempt }) => {
      if (attempt === 1) return
      throw new Problem(
        'stream_interrupted',
        'Several calls were made for this response. Use the id that the stream itself has named, or begin without starting_after.',
        { param: 'starting_after' },
      )
    }
  }
  let isKnown = false
  return (named, _id, isNew) => {
    isKnown ||= named === asked
    if (isNew ? !isKnown : named !== null && named !== asked) throw interrupted()
  }
}

function readResponseEvent(event: Buffer): { sequence: number | null; responseId: string | null } {
  try {
    const { sequence_number: sequence, response } = JSON.parse(readEvent(event).data ?? '{}') as {
      sequence_number?: unknown
      response?: { id?: unknown } | null
    }
    const id = response?.id
    return {
      sequence: typeof sequence === 'number' ? sequence : null,
      responseId: typeof id === 'string' ? id : null,
    }
  } catch {
    return { sequence: null, responseId: null }
  }
}
