import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import { listHead, listTail } from './job-view.ts'
import { itemError, type Problem } from './problem.ts'

/** What became of one item: the status that it would have got alone, and its job or its error. */
export type ItemOutcome = { status: number; job: Buffer } | { status: number; problem: Problem }

const close = Buffer.from('}')

/** The JSON of one item's outcome; a job's bytes are put in as they are. */
export function outcomeJson(head: { index: number; id?: string }, outcome: ItemOutcome): Buffer {
  const shown = { ...head, status: outcome.status }
  if ('problem' in outcome) return Buffer.from(JSON.stringify({ ...shown, error: itemError(outcome.problem) }))
  return Buffer.concat([Buffer.from(`${JSON.stringify(shown).slice(0, -1)},"job":`), outcome.job, close])
}

/** A part of a bulk answer, and where the next part begins: null after the last. */
export interface OutcomePart {
  items: readonly Buffer[]
  /** Set by the last part, when there is more than one answer may hold. */
  nextCursor: string | null
}

/**
 * Sends a list of outcomes while they come: ten thousand answers need not be in memory at once, and a client that does not
 * read holds up its own request only. The first part is there already, so what fails as a whole has failed before.
 */
export function sendOutcomes(reply: FastifyReply, first: OutcomePart, rest: AsyncIterable<OutcomePart>): FastifyReply {
  async function* text(): AsyncGenerator<Buffer> {
    let nextCursor: string | null = null
    let separator = listHead
    const comma = Buffer.from(',')
    const write = function* ({ items, nextCursor: cursor }: OutcomePart): Generator<Buffer> {
      for (const item of items) {
        yield Buffer.concat([separator, item])
        separator = comma
      }
      nextCursor = cursor
    }
    yield* write(first)
    for await (const part of rest) yield* write(part)
    if (separator === listHead) yield listHead
    yield listTail(nextCursor)
  }
  return reply
    .code(200)
    .header('content-type', 'application/json; charset=utf-8')
    .send(Readable.from(text(), { objectMode: false }))
}
