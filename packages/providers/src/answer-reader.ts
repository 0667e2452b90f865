import type { Operation } from '@askonce/core'
import { checkShape, type ShapeCheck } from './answer-shape.ts'
import type { BodyReader } from './exchange.ts'
import { JsonText } from './json-text.ts'

/** A success: what it means, and the bytes that are stored of it. */
export type Judged = ShapeCheck & { body: Buffer }

/** Reads a 2xx body as it comes, and judges it when it has come. */
export interface AnswerReader extends BodyReader {
  /** What the whole body is; also takes it, when none of it was pushed. */
  check: (body: Buffer) => Promise<Judged>
}

/** Reads the answer to a request that is not streamed. */
export function readPlain(operation: Operation): AnswerReader {
  return readJson(operation, new JsonText())
}

/** As `readPlain`, over a text that has begun. */
export function readJson(operation: Operation, text: JsonText): AnswerReader {
  return {
    push: (chunk) => text.push(chunk),
    standing: () => (text.isWhole() ? 'ended' : 'open'),
    parts: () => 0,
    end: () => {},
    check: async (body) => {
      if (text.length === 0) text.push(body)
      const read = await text.read(body)
      return { ...checkShape(operation, read?.value), body: read?.body ?? body }
    },
  }
}
