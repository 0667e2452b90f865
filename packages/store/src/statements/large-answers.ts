import { sql } from 'kysely'
import pg from 'pg'
import type { Db, JobRow } from '../tables.ts'
import { endAttempts, type AttemptEndRecord, type EndedAttempt } from './end-attempts.ts'
import type { SweptRows } from './sweep.ts'

/** Answers up to this many bytes stand in their job's row and share statements with others; larger ones are stored in pieces. */
export const inlineAnswerBytes = 1024 * 1024
export const pieceBytes = 1024 * 1024
/** Answers in pieces up to this many bytes may be put together where somebody needs them whole. */
export const wholeAnswerBytes = 8 * 1024 * 1024

/** A sweeper leaves an answer alone for so long after somebody began to write it. */
const writingSeconds = 3_600

/** The pieces of an answer are not all there (a sweeper was faster than a writer that stood still): they are to be written again. */
export class PiecesMissingError extends Error {
  constructor() {
    super('pieces of the answer are not there any more')
  }
}

const foreignKeyViolation = '23503'

/**
 * Writes an answer in pieces, each in a statement of its own, so that others get their turn between them. Nobody sees it before the
 * end of its attempt names it. `id` belongs to these bytes as this process has them: written again they change nothing.
 * @throws PiecesMissingError when a sweeper has taken it meanwhile
 */
export async function writeAnswerPieces(
  db: Db,
  id: string,
  { jobId, attempt }: Pick<AttemptEndRecord, 'jobId' | 'attempt'>,
  answer: Buffer,
): Promise<void> {
  const later = sql`now() + make_interval(secs => ${writingSeconds})`
  await sql`
    insert into large_answers as l (id, job_id, attempt, bytes, check_at)
    values (${id}::uuid, ${jobId}::uuid, ${attempt}, ${answer.length}, ${later})
    on conflict (id) do update set check_at = greatest(l.check_at, excluded.check_at)
  `.execute(db)
  try {
    for (let position = 0; position < answer.length; position += pieceBytes) {
      const body = answer.subarray(position, position + pieceBytes)
      await sql`
        insert into answer_pieces (answer, "position", body) values (${id}::uuid, ${position}, ${body}) on conflict do nothing
      `.execute(db)
    }
  } catch (error) {
    throw error instanceof pg.DatabaseError && error.code === foreignKeyViolation ? new PiecesMissingError() : error
  }
}

/**
 * Ends an attempt whose answer stands in pieces. Its row is held meanwhile, so that no sweeper takes the pieces between the look at
 * them and the commit. An answer that the job did not take is swept next.
 * @throws PiecesMissingError when they are not whole
 */
export async function endWithPieces(
  db: Db,
  end: AttemptEndRecord,
  uncertainTtlSeconds: number,
): Promise<EndedAttempt | undefined> {
  return db.transaction().execute(async (transaction) => {
    const { rows } = await sql<{ whole: boolean }>`
      select bytes = (select sum(octet_length(body)) from answer_pieces p where p.answer = l.id) as whole
      from (select id, bytes from large_answers where id = ${end.responsePieces}::uuid for update) l
    `.execute(transaction)
    if (rows[0]?.whole !== true) throw new PiecesMissingError()
    const [ended] = await endAttempts(transaction, [end], uncertainTtlSeconds)
    const isAnswer = ended?.recorded === true && ended.answerAttempt === end.attempt
    await sql`
      update large_answers set check_at = now() + make_interval(secs => ${isAnswer ? 60 : 0}) where id = ${end.responsePieces}::uuid
    `.execute(transaction)
    return ended
  })
}

/** The piece of a stored answer that holds the byte at `from`, from that byte on; null: it is gone. */
export async function readAnswerPiece(db: Db, answer: string, from: number): Promise<Buffer | null> {
  const position = from - (from % pieceBytes)
  const { rows } = await sql<{ body: Buffer }>`
    select substring(body from ${from - position + 1}::integer) as body from answer_pieces
    where answer = ${answer}::uuid and "position" = ${position} and octet_length(body) > ${from - position}
  `.execute(db)
  return rows[0]?.body ?? null
}

/** The bytes of an answer that is not too large to be held whole; null: there is none, or it is, or it is gone. */
export async function readWholeAnswer(
  db: Db,
  row: Pick<JobRow, 'response' | 'response_bytes' | 'response_pieces'>,
): Promise<Buffer | null> {
  const { response, response_bytes: bytes, response_pieces: answer } = row
  if (response !== null || answer === null || bytes === null || bytes > wholeAnswerBytes) return response
  const pieces: Buffer[] = []
  for (let from = 0; from < bytes; from += pieceBytes) {
    const piece = await readAnswerPiece(db, answer, from)
    if (piece === null) return null
    pieces.push(piece)
  }
  return Buffer.concat(pieces)
}

/**
 * Looks after large answers whose moment has come, `limit` of them, and deletes about so many bytes of pieces. That of a live job is looked at
 * again when the job expires; that of an attempt that is still open, later; all others go, piece by piece.
 */
export async function sweepLargeAnswers(db: Db, limit: number, bytes: number): Promise<SweptRows> {
  const pieces = Math.max(1, Math.floor(bytes / pieceBytes))
  const { rows } = await sql<{ swept: number; due: number }>`
    with due as materialized (
      select id, job_id, attempt from large_answers where check_at <= now()
      order by check_at limit ${limit} for update skip locked
    ),
    judged as materialized (
      select
        d.id,
        case
          when j.id is not null then greatest(j.expires_at, now() + interval '1 minute')
          when a.job_id is not null then now() + interval '10 minutes'
        end as check_again
      from due d
      left join answers w on w.job_id = d.job_id and w.response_pieces = d.id
      left join jobs j on j.id = w.job_id
      left join attempts a on a.job_id = d.job_id and a.attempt = d.attempt and a.finished_at is null
    ),
    kept as (
      update large_answers l set check_at = k.check_again from judged k where l.id = k.id and k.check_again is not null
    ),
    victims as materialized (
      select p.answer, p."position" from judged k join answer_pieces p on p.answer = k.id
      where k.check_again is null limit ${pieces}
    ),
    gone as (
      delete from answer_pieces p using victims v where p.answer = v.answer and p."position" = v."position" returning 1
    ),
    -- In the statement after the one that took the last piece.
    emptied as (
      delete from large_answers l using judged k
      where l.id = k.id and k.check_again is null and not exists (select from answer_pieces p where p.answer = k.id)
      returning 1
    )
    select (select count(*) from gone)::int as swept, (select count(*) from judged where check_again is null)::int as due
  `.execute(db)
  return { count: rows[0]?.swept ?? 0, more: (rows[0]?.due ?? 0) > 0 }
}
