import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Parts } from '../context.ts'
import { noSuchJob } from '../change.ts'
import { jobJson, joined, type JsonPiece } from '../job-view.ts'
import { idOf, isJobId, type ApiRoute } from '../route.ts'
import { noQuery } from '../schemas/queries.ts'
import { Problem } from '../problem.ts'
import { errorEvent } from './dialect.ts'
import { lastEventId, withId } from './event-ids.ts'
import { sendFollowed } from './send-stream.ts'

/** `GET /v1/jobs/{id}/events`: the provider's events as it wrote them, each with an id to resume behind, and at the end the job. */
async function events(parts: Parts, request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
  const after = lastEventId(request)
  const id = idOf(request)
  const job = isJobId(id) ? await parts.jobs.read(request.caller.tenantId, id) : null
  if (job === null) throw noSuchJob()
  if (!job.streamed) {
    throw new Problem(
      'invalid_request',
      'This job was not submitted with "stream": true; it has no events. Read the job with ?wait=.',
      {
        param: 'id',
      },
    )
  }
  return sendFollowed(reply, parts, {
    job,
    after,
    limitMs: Number.POSITIVE_INFINITY,
    passesLarge: true,
    show: (event, eventId) => withId(event, eventId, job.operation),
    showProblem: (problem) => Buffer.from(errorEvent('native', problem, null, request.id, 0)),
    ending: async () => {
      const row = await parts.jobs.read(job.tenant_id, job.id)
      if (row === null) throw noSuchJob()
      return joined(['event: job\ndata: ', oneLine(jobJson(row, await parts.waiting.of(row))), '\n\n'])
    },
  })
}

/** JSON without line ends, which would end the data of an event: between its tokens they are blanks, and in its texts there are none. */
function oneLine(json: JsonPiece): JsonPiece {
  if (typeof json === 'string' || (!json.includes(10) && !json.includes(13))) return json
  const line = Buffer.from(json)
  for (let at = 0; at < line.length; at += 1) if (line[at] === 10 || line[at] === 13) line[at] = 32
  return line
}

export const eventsRoute: ApiRoute = {
  method: 'GET',
  path: '/v1/jobs/{id}/events',
  scope: 'read',
  tag: 'Jobs',
  summary: 'Follow a streamed job',
  description:
    'Server-sent events: the provider’s, each with the id `<attempt>-<number>`, and last an event `job` with the finished job. While the call runs they come as they come; afterwards the whole stream comes from the stored answer. `Last-Event-ID` resumes behind an event. If what was shown turns out not to be of the answer that is stored, an event `error` says so.',
  query: noQuery,
  headers: { 'Last-Event-ID': { required: false, description: 'The last event that the client has' } },
  accepts: [],
  answers: { 200: { description: 'The events', contentType: 'text/event-stream' } },
  errors: ['not_found', 'stream_interrupted', 'job_uncertain', 'job_cancelled', 'upstream_failed'],
  handle: events,
}
