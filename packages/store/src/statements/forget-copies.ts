import { sql } from 'kysely'
import type { Db } from '../tables.ts'
import type { SweptRows } from './sweep.ts'

/** A written result of a batch, and where it stands. */
interface WrittenLine {
  kind: 'openai' | 'anthropic'
  file_id: string
  custom_id: string
  position: number
  start: number
  length: number
}

const code = 'forgotten'
const message = 'The answer was deleted.'

/**
 * Results of batches that hold answers, or errors, of these deleted jobs: each is replaced by one that says so, padded with blanks to
 * its length. So every other line stays where it is, a reader in the middle of a file goes on, and the file still has one result for each line.
 * Doing it again changes nothing.
 */
export async function forgetCopies(db: Db, jobIds: readonly string[]): Promise<void> {
  const { rows } = await sql<WrittenLine>`
    select
      b.kind, case when l.in_errors then b.error_file_id else b.output_file_id end as file_id, l.custom_id,
      l.part_position as position, l.part_offset as start, l.length
    from batch_lines l join batches b on b.id = l.batch_id
    where l.job_id = any(${jobIds}::uuid[]) and l.state = 'done' and l.outcome in ('succeeded', 'failed')
    order by file_id, l.part_position
  `.execute(db)
  const pieces = new Map<string, WrittenLine[]>()
  for (const line of rows) {
    const piece = `${line.file_id} ${line.position}`
    const known = pieces.get(piece)
    if (known === undefined) pieces.set(piece, [line])
    else known.push(line)
  }
  for (const lines of pieces.values()) await blankPiece(db, lines)
}

/** One piece of a file, once, however many of its lines are meant. */
async function blankPiece(db: Db, lines: readonly WrittenLine[]): Promise<void> {
  const [{ file_id: fileId, position } = { file_id: '', position: 0 }] = lines
  await db.transaction().execute(async (transaction) => {
    const { rows } = await sql<{ body: Buffer }>`
      select body from file_parts where file_id = ${fileId}::uuid and "position" = ${position}::bigint for update
    `.execute(transaction)
    const before = rows[0]?.body
    // The file has been deleted, or has expired.
    if (before === undefined) return
    const after = Buffer.from(before)
    for (const line of lines) after.set(forgottenLine(line), line.start)
    if (after.equals(before)) return
    await sql`
      update file_parts set body = ${after}::bytea where file_id = ${fileId}::uuid and "position" = ${position}::bigint
    `.execute(transaction)
  })
}

/** Exactly as long as the result that it takes the place of. A result that was shorter than any of these becomes blank. */
function forgottenLine({ kind, custom_id, length }: WrittenLine): Buffer {
  const texts =
    kind === 'openai'
      ? [
          { custom_id, response: null, error: { code, message } },
          { custom_id, response: null, error: { code } },
        ]
      : [
          {
            custom_id,
            result: { type: 'errored', error: { type: 'error', error: { type: 'not_found_error', message, code } } },
          },
          {
            custom_id,
            result: { type: 'errored', error: { type: 'error', error: { type: 'not_found_error', message: code } } },
          },
          { custom_id, result: { type: 'canceled' } },
        ]
  const bytes = texts.map((text) => Buffer.from(JSON.stringify(text))).find((text) => text.length <= length)
  return Buffer.concat([bytes ?? Buffer.alloc(0), Buffer.alloc(length, ' ')], length)
}

/** Which of these jobs, that are gone, were deleted by somebody: a batch does not ask for them again. */
export async function readForgotten(db: Db, jobIds: readonly string[]): Promise<string[]> {
  const { rows } = await sql<{ job_id: string }>`
    select job_id from forgotten_jobs where job_id = any(${jobIds}::uuid[])
  `.execute(db)
  return rows.map(({ job_id }) => job_id)
}

/**
 * Removes copies once more that were read before the deletion and written behind its back, and forgets the deletion, at most `limit`. By
 * then nobody can hold such a copy: a transaction that writes results lives for seconds. A job that a line still waits for is kept in mind,
 * or the line would ask for it again.
 */
export async function sweepForgotten(db: Db, limit: number): Promise<SweptRows> {
  const { rows } = await sql<{ job_id: string }>`
    select f.job_id from forgotten_jobs f
    where
      f.at < now() - interval '2 minutes'
      and not exists (select from batch_lines l where l.job_id = f.job_id and l.state = 'open')
    order by f.at limit ${limit}
  `.execute(db)
  const ids = rows.map(({ job_id }) => job_id)
  if (ids.length === 0) return { count: 0, more: false }
  await forgetCopies(db, ids)
  await sql`delete from forgotten_jobs where job_id = any(${ids}::uuid[])`.execute(db)
  return { count: ids.length, more: ids.length === limit }
}
