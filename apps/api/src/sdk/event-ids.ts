import type { Operation } from '@askonce/core'
import type { FastifyRequest } from 'fastify'
import { Problem } from '../problem.ts'
import type { EventId } from './follow.ts'
import { plainEvent } from './plain-event.ts'

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

/** The event of the provider with our id before it; null: it says nothing. */
export function withId(event: Buffer, { attempt, index }: EventId, operation: Operation): Buffer | null {
  const body = plainEvent(event, operation)
  return body === null ? null : Buffer.concat([Buffer.from(`id: ${attempt}-${index}\n`), body])
}
