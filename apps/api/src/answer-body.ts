import { Readable } from 'node:stream'
import { readAnswerPiece, type Db, type JobRow } from '@askonce/store'
import type { FastifyReply } from 'fastify'
import { patiently } from './patience.ts'

type Answered = Pick<JobRow, 'response' | 'response_bytes' | 'response_pieces'>

/** The bytes of a stored answer, all at once or in pieces. */
export interface AnswerBody {
  bytes: number
  /** Null: it stands in pieces, and is too large to be held whole. */
  whole: Buffer | null
  pieces: () => AsyncIterable<Buffer>
}

/** Null: there is no answer. */
export function answerBody(db: Db, row: Answered): AnswerBody | null {
  const { response: whole, response_bytes: bytes, response_pieces: answer } = row
  if (whole !== null) return bodyOf(whole)
  if (bytes === null || answer === null) return null
  return { bytes, whole: null, pieces: () => readPieces(db, answer, bytes) }
}

/** Several, with commas between them: one is read after the other. */
export function inOneList(bodies: readonly AnswerBody[]): AnswerBody {
  const commas = Math.max(0, bodies.length - 1)
  return {
    bytes: bodies.reduce((sum, { bytes }) => sum + bytes, commas),
    whole: null,
    async *pieces() {
      for (const [index, { pieces }] of bodies.entries()) {
        if (index > 0) yield comma
        yield* pieces()
      }
    },
  }
}

const comma = Buffer.from(',')

/** Bytes that are there. */
export function bodyOf(whole: Buffer): AnswerBody {
  return { bytes: whole.length, whole, pieces: () => Readable.from([whole]) }
}

/**
 * One piece at a time, whatever the speed of the client, each by a statement of its own: no connection is held meanwhile.
 * Throws when the answer is gone before its end: who reads it must not take what it has for the whole.
 */
async function* readPieces(db: Db, answer: string, bytes: number): AsyncGenerator<Buffer> {
  for (let from = 0; from < bytes;) {
    const piece = await patiently(readAnswerPiece(db, answer, from))
    if (piece === null) throw new Error('the answer has expired, or was deleted, while it was read')
    from += piece.length
    yield piece
  }
}

/** Sends an answer, with what stands before and behind it; status and headers are set. One that breaks off ends the connection. */
export function sendBody(reply: FastifyReply, body: AnswerBody, before = '', after = ''): FastifyReply {
  const { bytes, whole, pieces } = body
  if (whole !== null && before === '' && after === '') return reply.send(whole)
  const [head, tail] = [Buffer.from(before), Buffer.from(after)]
  if (whole !== null) return reply.send(Buffer.concat([head, whole, tail]))
  const all = async function* (): AsyncGenerator<Buffer> {
    if (head.length > 0) yield head
    yield* pieces()
    if (tail.length > 0) yield tail
  }
  return reply
    .header('content-length', head.length + bytes + tail.length)
    .send(Readable.from(all(), { objectMode: true, highWaterMark: 1 }))
}
