import { Readable } from 'node:stream'
import { readFilePart, type Db } from '@askonce/store'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Parts } from '../../context.ts'
import { Problem } from '../../problem.ts'

export interface Content {
  id: string
  bytes: number
  contentType: string
}

interface Span {
  /** First byte, and the one behind the last. */
  from: number
  to: number
}

/**
 * The part that a `Range` header asks for (RFC 9110); null: the whole. Several ranges, or what is none, are passed over, as it allows.
 * @throws Problem when the file has none of those bytes
 */
function spanOf(header: string | undefined, bytes: number): Span | null {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header?.replaceAll(' ', '') ?? '')
  const [, first = '', last = ''] = match ?? []
  if (match === null || (first === '' && last === '')) return null
  if (first !== '' && last !== '' && Number(first) > Number(last)) return null
  const from = first === '' ? Math.max(0, bytes - Number(last)) : Number(first)
  const to = first === '' || last === '' ? bytes : Math.min(bytes, Number(last) + 1)
  if (from < to) return { from, to }
  throw new Problem('range_not_satisfiable', `The file has ${bytes} bytes.`, {
    param: 'Range',
    headers: { 'content-range': `bytes */${bytes}` },
  })
}

/** Sends a file, or the part of it that was asked for, one piece in memory at a time. */
export function sendContent(
  parts: Parts,
  request: FastifyRequest,
  reply: FastifyReply,
  { id, bytes, contentType }: Content,
): FastifyReply {
  const span = spanOf(request.headers.range, bytes)
  const { from, to } = span ?? { from: 0, to: bytes }
  void reply.header('content-type', contentType).header('accept-ranges', 'bytes')
  void reply.header('content-length', String(to - from))
  if (span !== null) void reply.code(206).header('content-range', `bytes ${from}-${to - 1}/${bytes}`)
  return reply.send(Readable.from(pieces(parts.db, id, from, to), { objectMode: false, highWaterMark: 1 }))
}

/** A file that is deleted meanwhile breaks off: its length was promised. */
async function* pieces(db: Db, id: string, from: number, to: number): AsyncGenerator<Buffer> {
  for (let at = from; at < to;) {
    const part = await readFilePart(db, id, at)
    if (part === null) throw new Error('the file is gone')
    const bytes = part.body.subarray(at - part.position, to - part.position)
    at += bytes.length
    yield bytes
  }
}
