import type { FastifyRequest } from 'fastify'
import { Problem } from '../problem.ts'
import type { EventId } from './follow.ts'

const form = /^(\d{1,9})-(\d{1,9})$/

/**
 * The last event that a client has, by its `Last-Event-ID`; null: it begins.
 * @throws Problem when it is not of our form.
 */
export function lastEventId(request: FastifyRequest): EventId | null {
  const value = request.headers['last-event-id']
  if (value === undefined || value === '') return null
  const match = form.exec(String(value))
  if (match === null) {
    throw new Problem('invalid_request', 'Last-Event-ID is not the id of an event that this server has sent.', {
      param: 'Last-Event-ID',
    })
  }
  return { attempt: Number(match[1]), index: Number(match[2]) }
}

const bom = Buffer.from('\uFEFF')

/** The event as the provider wrote it, with our id before it. */
export function withId(event: Buffer, { attempt, index }: EventId): Buffer {
  const body = event.subarray(0, bom.length).equals(bom) ? event.subarray(bom.length) : event
  return Buffer.concat([Buffer.from(`id: ${attempt}-${index}\n`), body])
}
