import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import { joined, listHead, listTail, type JsonPiece } from './job-view.ts'
import { itemError, type Problem } from './problem.ts'

/** What became of one item: the status that it would have got alone, and its job or its error. */
export type ItemOutcome = { status: number; job: JsonPiece } | { status: number; problem: Problem }

/** The JSON of one item's outcome; a job's bytes are put in as they are. */
export function outcomeJson(head: { index: number; id?: string }, outcome: ItemOutcome): JsonPiece {
  const shown = { ...head, status: outcome.status }
  if ('problem' in outcome) return JSON.stringify({ ...shown, error: itemError(outcome.problem) })
  const before = `${JSON.stringify(shown).slice(0, -1)},"job":`
  return typeof outcome.job === 'string' ? `${before}${outcome.job}}` : joined([before, outcome.job, '}'])
}

/** A part of a bulk answer, and where the next part begins: null after the last. */
export interface OutcomePart {
  items: readonly JsonPiece[]
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
    // One write for each part: a thousand small ones take longer than making what is in them.
    const bytesOf = ({ items, nextCursor: cursor }: OutcomePart): Buffer => {
      const pieces: JsonPiece[] = []
      for (const item of items) {
        pieces.push(separator, item)
        separator = ','
      }
      nextCursor = cursor
      return joined(pieces)
    }
    yield bytesOf(first)
    for await (const part of rest) yield bytesOf(part)
    yield Buffer.from(`${separator === listHead ? listHead : ''}${listTail(nextCursor)}`)
  }
  return reply
    .code(200)
    .header('content-type', 'application/json; charset=utf-8')
    .send(Readable.from(text(), { objectMode: false }))
}
