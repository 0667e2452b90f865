import type { JobState } from '@askonce/core'
import { listJobs } from '@askonce/store'
import type { FastifyReply } from 'fastify'
import { outcomeJson, type ItemOutcome, type OutcomePart } from './bulk-outcomes.ts'
import { changeJobs, type Change } from './change.ts'
import type { Parts } from './context.ts'
import { positionOf, readCursor, toCursor, type Position } from './cursor.ts'
import { Problem, toProblem } from './problem.ts'
import type { Caller } from './route.ts'
import type { BulkChangeBody } from './schemas/changes.ts'
import { maxBulkItems } from '@askonce/intake'

/** Looking for rare metadata among many jobs takes longer than a read by id. */
const searchPatienceMs = 25_000

interface BulkChange {
  parts: Parts
  change: Change
  caller: Caller
  body: BulkChangeBody
  /** The answer to it: nothing is looked for when its client has gone. */
  reply: FastifyReply
}

/** Changes what the body names, by ids or by filter, in bounded batches: each is one statement, and one part of the answer. */
export function changeMany(asked: BulkChange): AsyncGenerator<OutcomePart> {
  return asked.body.ids === undefined ? changeMatching(asked) : changeListed(asked, asked.body.ids)
}

async function* changeListed(asked: BulkChange, ids: readonly string[]): AsyncGenerator<OutcomePart> {
  const { atOnce } = asked.change
  for (let start = 0; start < ids.length; start += atOnce) {
    const batch = ids.slice(start, start + atOnce)
    yield part(start, batch, await changeBatch(asked, batch, start > 0), null)
  }
}

async function* changeMatching(asked: BulkChange): AsyncGenerator<OutcomePart> {
  const { states, after: first } = startOf(asked)
  let done = 0
  let after = first
  for (const state of states) {
    for (;;) {
      const rows = await search(asked, state, after).catch((error: unknown) => {
        if (done === 0) throw error
        return null
      })
      // The database went away in the middle: the answer ends here, and the cursor says where to go on.
      if (rows === null) {
        yield { items: [], nextCursor: cursorAt(state, after) }
        return
      }
      const last = rows.at(-1)
      if (last === undefined) break
      const ids = rows.map(({ id }) => id)
      const outcomes = await changeBatch(asked, ids, done > 0)
      after = positionOf(last, asked.body.filter?.key_prefix !== undefined)
      const start = done
      done += rows.length
      const full = done >= maxBulkItems
      yield part(start, ids, outcomes, full ? cursorAt(state, after) : null)
      if (full) return
      if (rows.length < asked.change.atOnce) break
    }
    after = undefined
  }
  if (done === 0) yield { items: [], nextCursor: null }
}

/** A place in the list of a state; without a position, its beginning. */
function cursorAt(state: JobState, after: Position | undefined): string {
  return `${state}.${after === undefined ? '' : toCursor(after)}`
}

/** The states to go through, one after the other because each has an index of its own, and where to begin in the first. */
function startOf({ change, body }: BulkChange): { states: readonly JobState[]; after: Position | undefined } {
  const wanted = body.filter?.state
  if (wanted !== undefined && !change.from.includes(wanted)) {
    const detail = `/filter/state: ${change.name} is for jobs that are ${change.from.join(' or ')}`
    throw new Problem('invalid_request', detail, { param: '/filter/state' })
  }
  const states = wanted === undefined ? change.from : [wanted]
  if (body.cursor === undefined) return { states, after: undefined }
  const [state = '', position = ''] = body.cursor.split('.')
  const index = (states as readonly string[]).indexOf(state)
  if (index < 0) throw new Problem('invalid_request', '/cursor: is not a cursor of this request', { param: '/cursor' })
  return {
    states: states.slice(index),
    after: position === '' ? undefined : readCursor(position, '/cursor', body.filter?.key_prefix !== undefined),
  }
}

function search(
  { parts, change, caller, reply, body: { filter } }: BulkChange,
  state: JobState,
  after: Position | undefined,
) {
  const metadata = filter?.metadata === undefined ? undefined : JSON.stringify(filter.metadata)
  const { tenantId } = caller
  const wanted = {
    tenantId,
    state,
    createdBefore: filter?.created_before,
    metadata,
    keyPrefix: filter?.key_prefix,
    limit: change.atOnce,
    after,
  }
  return parts.reads.run({ tenantId, reply, limitMs: searchPatienceMs }, (db) => listJobs(db, wanted))
}

/** A batch that fails after others have succeeded is told item by item: what was done must not be hidden. */
async function changeBatch(
  { parts, change, caller, body }: BulkChange,
  ids: readonly string[],
  othersAreDone: boolean,
): Promise<ItemOutcome[]> {
  try {
    const { accept_duplicate_charge: consent = false, reason = null, dry_run: rehearsal = false } = body
    return await changeJobs(parts, change, ids, { caller, consent, reason, generation: null, rehearsal })
  } catch (error) {
    if (!othersAreDone) throw error
    const problem = toProblem(error)
    return ids.map(() => ({ status: problem.status, problem }))
  }
}

function part(
  start: number,
  ids: readonly string[],
  outcomes: readonly ItemOutcome[],
  nextCursor: string | null,
): OutcomePart {
  const items = outcomes.map((outcome, offset) =>
    outcomeJson({ index: start + offset, id: ids[offset] ?? '' }, outcome),
  )
  return { items, nextCursor }
}
