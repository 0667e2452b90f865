import { Problem } from './problem.ts'
import { isJobId } from './route.ts'

/** Position of a row in a list: its time as the database writes it, with microseconds, and its id. */
export interface Position {
  createdAt: string
  id: string
}

const databaseTime = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?[+-]\d\d(:\d\d)?$/

/** Opaque to clients: they get it and give it back. */
export function toCursor({ createdAt, id }: Position): string {
  return Buffer.from(JSON.stringify([createdAt, id])).toString('base64url')
}

/** @throws Problem `invalid_request` when it is none of ours */
export function readCursor(text: string, param: string): Position {
  try {
    const value: unknown = JSON.parse(Buffer.from(text, 'base64url').toString())
    const [createdAt, id] = Array.isArray(value) ? (value as unknown[]) : []
    if (typeof createdAt === 'string' && typeof id === 'string' && isTime(createdAt) && isJobId(id))
      return { createdAt, id }
  } catch {
    // Not JSON: told below.
  }
  throw new Problem('invalid_request', `${param}: is not a cursor of this server`, { param })
}

function isTime(text: string): boolean {
  return databaseTime.test(text) && !Number.isNaN(Date.parse(text.replace(' ', 'T').replace(/([+-]\d\d)$/, '$1:00')))
}
