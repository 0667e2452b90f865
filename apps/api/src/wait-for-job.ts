import { isSettled } from '@askonce/core'
import type { JobRow } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Parts } from './context.ts'
import { preferredWaitSeconds, waitParameterSeconds } from './prefer.ts'
import { headerValues } from './route.ts'

/** How long this request is ready to wait, in milliseconds, by its query or its `Prefer` header; the answer tells that it was heard. */
export function waitOf(request: FastifyRequest, reply: FastifyReply): number {
  const { wait } = request.query as { wait?: string }
  if (wait !== undefined) return waitParameterSeconds(wait) * 1000
  const seconds = preferredWaitSeconds(headerValues(request, 'prefer'))
  if (seconds === null) return 0
  void reply.header('preference-applied', `wait=${seconds}`)
  return seconds * 1000
}

/**
 * The job once nothing more happens to it by itself, or as it is when the time is up, the client has gone or the server
 * closes. Null: gone. `known` was read just now. Waiting changes nothing about the job.
 *
 * `justMade`: its commit was heard of in this turn of the event loop. Then no news of it can have come before the wait begins, and it is
 * not read before there are any; what is missed after all, the hub's poll finds.
 */
export async function waitForJob(
  parts: Parts,
  reply: FastifyReply,
  known: JobRow,
  limitMs: number,
  justMade = false,
): Promise<JobRow | null> {
  if (isSettled(known.state) || limitMs <= 0) return known
  const read = (): Promise<JobRow | null> => parts.jobs.read(known.tenant_id, known.id)
  const untilMs = performance.now() + limitMs
  const gone = new AbortController()
  const leave = (): void => gone.abort()
  reply.raw.once('close', leave)
  let row: JobRow | null = known
  try {
    for (let mayHaveNews = !justMade; ; mayHaveNews = true) {
      // Registered before the read: what happens between the two is not missed.
      const news = parts.waits.wait(known.id, untilMs - performance.now(), gone.signal)
      if (mayHaveNews) row = await read()
      if (row === null || isSettled(row.state)) return row
      if (!(await news)) return gone.signal.aborted ? row : await read()
    }
  } finally {
    reply.raw.off('close', leave)
    gone.abort()
  }
}
