import { sql } from 'kysely'
import type { Db } from '../tables.ts'
import { endAttempts, type AttemptEndRecord, type EndedAttempt } from './end-attempts.ts'

/** Answers up to this many bytes stand in their job's row and share statements with others; larger ones are stored in pieces. */
export const inlineAnswerBytes = 8 * 1024 * 1024
export const pieceBytes = 1024 * 1024

/** A sweeper leaves the pieces of an answer alone for so long after somebody began to write them. */
const writingSeconds = 3_600

/** The pieces of an answer are not all there (a sweeper was faster than a writer that stood still): they are to be written again. */
export class PiecesMissingError extends Error {
  constructor() {
    super('pieces of the answer are not there any more')
  }
}

/**
 * Writes an answer in pieces, each in a statement of its own, so that others get their turn between them. Nobody sees it before the
 * end of its attempt says that it is the job's answer. Writing it again changes nothing.
 */
export async function writeAnswerPieces(
  db: Db,
  { jobId, attempt }: Pick<AttemptEndRecord, 'jobId' | 'attempt'>,
  answer: Buffer,
): Promise<void> {
  await sql`
    insert into large_answers as l (job_id, attempt, bytes, check_at)
    values (${jobId}::uuid, ${attempt}, ${answer.length}, now() + make_interval(secs => ${writingSeconds}))
    on conflict (job_id, attempt) do update set bytes = excluded.bytes, check_at = greatest(l.check_at, excluded.check_at)
  `.execute(db)
  for (let position = 0; position < answer.length; position += pieceBytes) {
    const body = answer.subarray(position, position + pieceBytes)
    await sql`
      insert into answer_pieces (job_id, attempt, "position", body) values (${jobId}::uuid, ${attempt}, ${position}, ${body})
      on conflict do nothing
    `.execute(db)
  }
}

/**
 * Ends an attempt whose answer stands in pieces. The row of `large_answers` is held meanwhile, so that no sweeper takes the pieces between
 * the look at them and the commit. An answer that the job did not take is swept next.
 * @throws PiecesMissingError when they are not whole
 */
export async function endWithPieces(
  db: Db,
  end: AttemptEndRecord,
  uncertainTtlSeconds: number,
): Promise<EndedAttempt | undefined> {
  return db.transaction().execute(async (transaction) => {
    await sql`
      select from large_answers where job_id = ${end.jobId}::uuid and attempt = ${end.attempt} for update
    `.execute(transaction)
    const { rows } = await sql<{ bytes: number }>`
      select coalesce(sum(octet_length(body)), 0)::integer as bytes from answer_pieces
      where job_id = ${end.jobId}::uuid and attempt = ${end.attempt}
    `.execute(transaction)
    if (rows[0]?.bytes !== end.responseBytes) throw new PiecesMissingError()
    const [ended] = await endAttempts(transaction, [end], uncertainTtlSeconds)
    const isAnswer = ended !== undefined && ended.answerAttempt === end.attempt
    await sql`
      update large_answers set check_at = now() + make_interval(secs => ${isAnswer ? 60 : 0})
      where job_id = ${end.jobId}::uuid and attempt = ${end.attempt}
    `.execute(transaction)
    return ended
  })
}

/** The piece of a stored answer that holds the byte at `from`, from that byte on; null: it is gone. */
export async function readAnswerPiece(db: Db, jobId: string, attempt: number, from: number): Promise<Buffer | null> {
  const position = from - (from % pieceBytes)
  const { rows } = await sql<{ body: Buffer }>`
    select substring(body from ${from - position + 1}::integer) as body from answer_pieces
    where job_id = ${jobId}::uuid and attempt = ${attempt} and "position" = ${position} and octet_length(body) > ${from - position}
  `.execute(db)
  return rows[0]?.body ?? null
}

/** Pieces that one sweep deletes. */
const piecesAtOnce = 64

/**
 * Looks after large answers whose moment has come, and says how many pieces it has deleted. That of a live job is looked at again when the
 * job expires; that of an attempt that is still open, later; all others go, piece by piece.
 */
export async function sweepLargeAnswers(db: Db): Promise<number> {
  const { rows } = await sql<{ swept: number }>`
    with due as materialized (
      select job_id, attempt from large_answers where check_at <= now() order by check_at limit 100 for update skip locked
    ),
    judged as materialized (
      select
        d.job_id, d.attempt,
        case
          when j.id is not null then greatest(j.expires_at, now() + interval '1 minute')
          when a.job_id is not null then now() + interval '10 minutes'
        end as check_again
      from due d
      left join jobs j on j.id = d.job_id and j.answer_attempt = d.attempt and j.response_bytes is not null
      left join attempts a on a.job_id = d.job_id and a.attempt = d.attempt and a.finished_at is null
    ),
    kept as (
      update large_answers l set check_at = k.check_again from judged k
      where l.job_id = k.job_id and l.attempt = k.attempt and k.check_again is not null
    ),
    victims as materialized (
      select p.job_id, p.attempt, p."position"
      from judged k join answer_pieces p on p.job_id = k.job_id and p.attempt = k.attempt
      where k.check_again is null limit ${piecesAtOnce}
    ),
    gone as (
      delete from answer_pieces p using victims v
      where p.job_id = v.job_id and p.attempt = v.attempt and p."position" = v."position"
      returning 1
    ),
    -- In the statement after the one that took the last piece.
    emptied as (
      delete from large_answers l using judged k
      where l.job_id = k.job_id and l.attempt = k.attempt and k.check_again is null
        and not exists (select from answer_pieces p where p.job_id = k.job_id and p.attempt = k.attempt)
      returning 1
    )
    select (select count(*) from gone) + (select count(*) from emptied) as swept
  `.execute(db)
  return rows[0]?.swept ?? 0
}
