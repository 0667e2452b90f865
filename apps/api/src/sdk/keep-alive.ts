import { setTimeout as sleep } from 'node:timers/promises'
import type { Db, JobRow } from '@askonce/store'
import type { FastifyRequest } from 'fastify'
import { bodyOf } from '../answer-body.ts'
import { problemDocument, toProblem } from '../problem.ts'
import { isAnthropicPath } from '../paths.ts'
import { anthropicError } from './dialect.ts'
import { providerAnswer } from './settled-answer.ts'

/** Load balancers cut connections that are silent for a minute. */
const everyMs = 15_000

/**
 * The answer behind blanks that keep the connection alive; JSON may begin with them. The status is sent before it is known: an error
 * comes with status 200, which is why this is for those who ask for it.
 */
export async function* keptAlive(
  db: Db,
  settled: Promise<JobRow>,
  request: Pick<FastifyRequest, 'id' | 'url'>,
  blankEveryMs = everyMs,
): AsyncGenerator<Buffer, void, undefined> {
  const body = settled
    .then((row) => providerAnswer(db, row).body)
    .catch((error: unknown) => {
      const problem = toProblem(error)
      const told = isAnthropicPath(request.url)
        ? anthropicError(problem, request.id)
        : problemDocument(problem, request)
      return bodyOf(Buffer.from(JSON.stringify(told)))
    })
  for (;;) {
    const stop = new AbortController()
    const blank = sleep(blankEveryMs, null, { signal: stop.signal }).catch(() => null)
    const first = await Promise.race([body, blank])
    stop.abort()
    if (first !== null) {
      yield* first.pieces()
      return
    }
    yield Buffer.from(' ')
  }
}
