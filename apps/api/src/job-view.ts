import { isTerminal } from '@askonce/core'
import { embeddedJson } from '@askonce/intake'
import type { JobRow } from '@askonce/store'
import type { FastifyReply } from 'fastify'
import { answerBody, sendBody } from './answer-body.ts'
import type { Parts } from './context.ts'
import { timeText } from './time-text.ts'
import type { WaitingFor } from './waiting.ts'

/** A piece of JSON: text, or bytes where a stored answer is in it. Text is cheaper to put together than buffers are. */
export type JsonPiece = string | Buffer

/**
 * The JSON of a job. The stored answer's bytes are put in as they are: parsing and writing them again could change a number,
 * and costs more than all the rest.
 */
export function jobJson(row: JobRow, waitingFor: WaitingFor | null, replayed = false): JsonPiece {
  const [before, after] = aroundAnswer(row, waitingFor, replayed)
  if (row.response !== null && isJson(row)) return joined([before, embeddedJson(row.response), after])
  // An answer of many megabytes has no place in a list: it is read by itself.
  const url = row.response_bytes === null ? '' : `,"response_url":"/v1/jobs/${row.id}/response"`
  return `${before}null${url}${after}`
}

/** Sends one job, with its answer however large that is. */
export async function sendJob(
  { db, waiting }: Pick<Parts, 'db' | 'waiting'>,
  reply: FastifyReply,
  row: JobRow,
  { status = isTerminal(row.state) ? 200 : 202, replayed = false } = {},
): Promise<FastifyReply> {
  const waitingFor = await waiting.of(row)
  void reply.code(status).header('content-type', 'application/json; charset=utf-8')
  const body = row.response === null && isJson(row) ? answerBody(db, row) : null
  if (body === null) return reply.send(jobJson(row, waitingFor, replayed))
  return sendBody(reply, body, ...aroundAnswer(row, waitingFor, replayed))
}

/** The JSON of a job before and behind the answer in it. */
function aroundAnswer(row: JobRow, waitingFor: WaitingFor | null, replayed: boolean): [before: string, after: string] {
  const head = JSON.stringify({
    id: row.id,
    object: 'job',
    key: row.idempotency_key,
    operation: row.operation,
    model: row.model,
    state: row.state,
    generation: row.generation,
    attempts: row.attempt,
    replayed,
    streamed: row.streamed,
  })
  const middle = JSON.stringify({
    error: row.error,
    flags: row.flags,
    waiting_for: waitingFor,
    usage: {
      input_tokens: row.input_tokens,
      output_tokens: row.output_tokens,
      cost_usd: row.cost_usd,
      paid_attempts: row.billed,
      maybe_paid_attempts: Math.max(0, row.paid - row.billed - (row.state === 'running' ? 1 : 0)),
    },
    metadata: row.metadata ?? {},
  })
  const times = `"created_at":${time(row.created_at)},"run_at":${time(row.run_at)},"started_at":${time(row.started_at)},"completed_at":${time(row.completed_at)},"deadline_at":${time(row.deadline_at)},"expires_at":${time(row.expires_at)}}`
  return [`${head.slice(0, -1)},"response":`, `,${middle.slice(1, -1)},${times}`]
}

/** As JSON.stringify writes it. */
function time(value: Date | null): string {
  return value === null ? 'null' : `"${timeText(value)}"`
}

/** A stream is no JSON: it is read at /response and /events. */
function isJson({ streamed, response_content_type: type }: JobRow): boolean {
  return !streamed || type?.includes('event-stream') !== true
}

/** The bytes of pieces that follow each other. */
export function joined(pieces: Iterable<JsonPiece>): Buffer {
  const buffers: Buffer[] = []
  let text = ''
  for (const piece of pieces) {
    if (typeof piece === 'string') {
      text += piece
      continue
    }
    if (text !== '') buffers.push(Buffer.from(text))
    text = ''
    buffers.push(piece)
  }
  if (text !== '') buffers.push(Buffer.from(text))
  return buffers.length === 1 ? (buffers[0] as Buffer) : Buffer.concat(buffers)
}

/** One page of a list from the JSON of its items. */
export function listJson(items: readonly JsonPiece[], nextCursor: string | null): Buffer {
  return joined([
    listHead,
    ...items.flatMap((item, index) => (index === 0 ? [item] : [',', item])),
    listTail(nextCursor),
  ])
}

export const listHead = '{"object":"list","data":['

export function listTail(nextCursor: string | null): string {
  return `],"has_more":${nextCursor !== null},"next_cursor":${JSON.stringify(nextCursor)}}`
}
