import { Problem } from './problem.ts'
import { isJobId } from './route.ts'

/** Position of a row in a list: its time as the database writes it, with microseconds, and its id; or its key in one by keys. */
export type Position = TimePosition | { key: string }

export interface TimePosition {
  createdAt: string
  id: string
}

/** Position of an attempt among those of its key. */
export interface AttemptPosition {
  startedAt: string
  jobId: string
  attempt: number
}

const databaseTime = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?[+-]\d\d(:\d\d)?$/

/** Opaque to clients: they get it and give it back. */
export function toCursor(position: Position): string {
  return 'key' in position ? encode(['key', position.key]) : encode([position.createdAt, position.id])
}

/**
 * @param byKey whether it must be of a list by keys
 * @throws Problem `invalid_request` when it is none of ours, or of another list
 */
export function readCursor(text: string, param: string, byKey = false): Position {
  const [createdAt, id, ...rest] = decode(text)
  if (byKey) {
    if (createdAt === 'key' && typeof id === 'string' && /^[\x20-\x7e]{1,255}$/.test(id) && rest.length === 0)
      return { key: id }
    throw foreign(param)
  }
  if (isTime(createdAt) && isId(id) && rest.length === 0) return { createdAt, id }
  throw foreign(param)
}

export function toAttemptCursor({ startedAt, jobId, attempt }: AttemptPosition): string {
  return encode([startedAt, jobId, attempt])
}

/** @throws Problem `invalid_request` when it is none of ours */
export function readAttemptCursor(text: string, param: string): AttemptPosition {
  const [startedAt, jobId, attempt, ...rest] = decode(text)
  if (isTime(startedAt) && isId(jobId) && isNumber(attempt) && rest.length === 0) return { startedAt, jobId, attempt }
  throw foreign(param)
}

function encode(parts: readonly (string | number)[]): string {
  return Buffer.from(JSON.stringify(parts)).toString('base64url')
}

/** Empty for what is no array in JSON. */
function decode(text: string): unknown[] {
  try {
    const value: unknown = JSON.parse(Buffer.from(text, 'base64url').toString())
    return Array.isArray(value) ? value : []
  } catch {
    return []
  }
}

function foreign(param: string): Problem {
  return new Problem('invalid_request', `${param}: is not a cursor of this server`, { param })
}

function isId(value: unknown): value is string {
  return typeof value === 'string' && isJobId(value)
}

/** Of an attempt: what fits the column. */
function isNumber(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) > 0 && Number(value) < 2 ** 31
}

function isTime(value: unknown): value is string {
  if (typeof value !== 'string' || !databaseTime.test(value)) return false
  return !Number.isNaN(Date.parse(value.replace(' ', 'T').replace(/([+-]\d\d)$/, '$1:00')))
}

/** Where a listed job stands in its list. */
export function positionOf(row: { cursor_at: string; id: string; idempotency_key: string }, byKey: boolean): Position {
  return byKey ? { key: row.idempotency_key } : { createdAt: row.cursor_at, id: row.id }
}
