import type { JobError, JobState } from '@askonce/core'
import { sql } from 'kysely'
import { checked, notExpired, withAnswer } from '../fragments.ts'
import { unnest } from '../rows.ts'
import type { Db } from '../tables.ts'
import type { LeasedBatch } from './batch-scan.ts'
import { wholeAnswerBytes } from './large-answers.ts'

/** A line whose turn it is. */
export interface ReadyLine {
  line: number
  custom_id: string
  fingerprint: Buffer
  model: string
  lane: string
  request: Buffer
  job_id: string
  refusal: { code: string; message: string } | null
  reserve_usd: number | null
  reserve_tokens: number | null
}

/** The next lines to submit, in order: at most `limit`, with about `maxBytes` of requests, but at least one. */
export async function readReadyLines(db: Db, batchId: string, limit: number, maxBytes: number): Promise<ReadyLine[]> {
  const { rows } = await sql<ReadyLine>`
    with page as (
      select l.line, octet_length(l.request) as size from batch_lines l
      where l.batch_id = ${batchId}::uuid and l.state = 'ready'
      order by l.line limit ${limit}
    ),
    sized as (select line, sum(size) over (order by line) - size as before from page)
    select l.line, l.custom_id, l.fingerprint, l.model, l.lane, l.request, l.job_id, l.refusal, l.reserve_usd,
      l.reserve_tokens
    from sized s join batch_lines l on l.batch_id = ${batchId}::uuid and l.line = s.line
    where s.before < ${maxBytes}
    order by l.line
  `.execute(db)
  return rows
}

/** A line whose job is there. */
export interface OpenedLine {
  line: number
  jobId: string
  /** This batch made the job run. */
  started: boolean
  /** The key had a stored answer. */
  replayed: boolean
}

/**
 * Notes the jobs of lines, after their commit. A crash before this statement submits the lines again, with the same ids, and gets
 * the same jobs. False: somebody else has the batch.
 */
export async function openLines(
  db: Db,
  { id, lease }: LeasedBatch,
  lines: readonly OpenedLine[],
  leaseMs: number,
): Promise<boolean> {
  const { rows } = await sql<{ owned: boolean }>`
    with owned as (
      update batches set submitted = submitted + ${lines.length}, leased_until = now() + ${leaseMs} * interval '1 millisecond'
      where id = ${id}::uuid and lease = ${lease}::uuid and status in ('in_progress', 'cancelling')
      returning id
    ),
    opened as (
      update batch_lines l set state = 'open', job_id = i.job_id, started = i.started, replayed = i.replayed
      from owned o, ${unnest<OpenedLine>(
        lines,
        {
          line: ['integer', (line) => line.line],
          job_id: ['uuid', (line) => line.jobId],
          started: ['boolean', (line) => line.started],
          replayed: ['boolean', (line) => line.replayed],
        },
        'i',
      )}
      where l.batch_id = ${id}::uuid and l.line = any(${lines.map(({ line }) => line)}::integer[])
        and ${checked(sql`l.batch_id = o.id and l.line = i.line and l.state = 'ready'`)}
    )
    select exists (select from owned) as owned
  `.execute(db)
  return rows[0]?.owned ?? false
}

/** Open lines whose job has ended or is gone, among the `limit` open lines after `after`; and the last line that was looked at. */
export async function findEnded(
  db: Db,
  batchId: string,
  after: number,
  limit: number,
): Promise<{ lines: number[]; last: number | null }> {
  const { rows } = await sql<{ line: number; ended: boolean }>`
    with page as (
      select l.line, l.job_id from batch_lines l
      where l.batch_id = ${batchId}::uuid and l.state = 'open' and l.line > ${after}
      order by l.line limit ${limit}
    )
    select p.line, j.id is null or j.completed_at is not null as ended
    from page p left join jobs j on j.id = p.job_id
    order by p.line
  `.execute(db)
  return { lines: rows.filter(({ ended }) => ended).map(({ line }) => line), last: rows.at(-1)?.line ?? null }
}

/** The open lines of these jobs, by batch. */
export async function findLinesOf(db: Db, jobIds: readonly string[]): Promise<{ batch_id: string; lines: number[] }[]> {
  const { rows } = await sql<{ batch_id: string; lines: number[] }>`
    select l.batch_id, array_agg(l.line order by l.line) as lines
    from batch_lines l
    where l.job_id = any(${jobIds}::uuid[]) and l.state = 'open'
    group by l.batch_id
  `.execute(db)
  return rows
}

/** The lines that are not done, in order. */
export async function readUndone(db: Db, batchId: string, after: number, limit: number): Promise<number[]> {
  const { rows } = await sql<{ line: number }>`
    select line from batch_lines
    where batch_id = ${batchId}::uuid and state in ('ready', 'open') and line > ${after}
    order by line limit ${limit}
  `.execute(db)
  return rows.map(({ line }) => line)
}

/** A line that is not done, with its job as far as there is one. */
export interface LineWithJob {
  line: number
  custom_id: string
  state: 'ready' | 'open'
  job_id: string
  started: boolean
  replayed: boolean
  /** The one batch that wants the job. */
  owner_batch: string | null
  /** Null: there is no job, or none any more. */
  job_state: JobState | null
  /** Null also where it is too large to be held whole. */
  response: Buffer | null
  /** Length of an answer that stands in pieces. */
  response_bytes: number | null
  response_status: number | null
  provider_request_id: string | null
  error: JobError | null
  error_response: Buffer | null
  input_tokens: number | null
  output_tokens: number | null
  cost_usd: number | null
}

/**
 * These lines, as far as they are not done, in order, with about `maxBytes` of answers at most, but at least one. For a transaction
 * that holds the row of the batch: then nobody else writes results of these lines.
 */
export async function readLinesWithJobs(
  db: Db,
  batchId: string,
  lines: readonly number[],
  maxBytes: number,
): Promise<LineWithJob[]> {
  const { rows } = await sql<LineWithJob>`
    with found as (
      select
        l.line, l.custom_id, l.state, l.job_id, l.started, l.replayed, j.id as found_job,
        coalesce(octet_length(w.response), case when w.response_bytes <= ${wholeAnswerBytes} then w.response_bytes end, 0) as size
      from batch_lines l
      left join jobs j on j.id = l.job_id and l.state = 'open' and ${notExpired}
      ${withAnswer}
      where l.batch_id = ${batchId}::uuid and l.line = any(${lines}::integer[]) and l.state <> 'done'
    ),
    sized as (select *, sum(size) over (order by line) - size as before from found)
    select
      s.line, s.custom_id, s.state, s.job_id, s.started, s.replayed, j.owner_batch, j.state as job_state, w.response_bytes,
      case when w.response_bytes <= ${wholeAnswerBytes} then (
        select string_agg(p.body, ''::bytea order by p."position") from answer_pieces p where p.answer = w.response_pieces
      ) else w.response end as response,
      j.response_status, j.provider_request_id, j.error, j.error_response, j.input_tokens, j.output_tokens, j.cost_usd
    from sized s left join jobs j on j.id = s.found_job
    ${withAnswer}
    where s.before < ${maxBytes}
    order by s.line
  `.execute(db)
  return rows
}

/** Lines whose job is gone (deleted, or expired) are submitted again, under new ids. */
export async function reopenLines(
  db: Db,
  batchId: string,
  lines: readonly { line: number; jobId: string }[],
): Promise<void> {
  await sql`
    update batch_lines l set state = 'ready', job_id = i.job_id, started = false, replayed = false
    from ${unnest<(typeof lines)[number]>(
      lines,
      { line: ['integer', ({ line }) => line], job_id: ['uuid', ({ jobId }) => jobId] },
      'i',
    )}
    where l.batch_id = ${batchId}::uuid and l.line = any(${lines.map(({ line }) => line)}::integer[])
      and ${checked(sql`l.line = i.line and l.state = 'open'`)}
  `.execute(db)
  await sql`update batches set submitted = submitted - ${lines.length} where id = ${batchId}::uuid`.execute(db)
}
