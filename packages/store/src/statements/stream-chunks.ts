import type { JobState } from '@askonce/core'
import { sql } from 'kysely'
import { checked, lockOrder, notExpired, withAnswer } from '../fragments.ts'
import { hot } from '../hot.ts'
import { Rows } from '../rows.ts'
import { payloadsOf, streamsChannel } from '../session.ts'
import type { Db } from '../tables.ts'
import { pieceBytes } from './large-answers.ts'
import { findable } from './end-attempts.ts'
import { sweepBytes, swept, type SweptRows } from './sweep.ts'

/** A piece of an open attempt's stream. */
export interface StreamChunk {
  jobId: string
  attempt: number
  /** Bytes of the stream before it. */
  position: number
  body: Buffer
}

/**
 * Adds pieces to streams and tells those who follow. A piece that is there already stays as it is, so a statement whose reply was lost is
 * sent again unchanged. No job row is looked at: readers take the pieces of the newest attempt only, and what a zombie writes is swept.
 *
 * This commit does not wait for the disk, so it may hold its NOTIFY, too. A crash of Postgres can lose pieces for that; readers stop
 * before the gap, and go on in the stored answer.
 */
export async function appendStreamChunks(db: Db, chunks: readonly StreamChunk[]): Promise<void> {
  const ids = [...new Set(chunks.map(({ jobId }) => jobId))]
  await hot(db, 'append_stream_chunks')`
    with quick as materialized (select set_config('synchronous_commit', 'off', true)),
    told as materialized (
      select pg_notify(${streamsChannel}, payload) from unnest(${payloadsOf(ids)}::text[]) as p (payload), quick
    ),
    t as (select count(*) as n from told)
    insert into stream_chunks (job_id, attempt, "position", body)
    select c.* from t, ${new Rows<StreamChunk>(
      chunks,
      {
        job_id: ['uuid', (chunk) => chunk.jobId],
        attempt: ['integer', (chunk) => chunk.attempt],
        position: ['integer', (chunk) => chunk.position],
        body: ['bytea', (chunk) => chunk.body],
      },
      'c',
    )}
    on conflict do nothing
  `
}

/** Notes the provider's id of an answer that begins to show, while its attempt is the one that runs: the row is locked until it is there. */
export async function nameAnswers(
  db: Db,
  names: readonly { jobId: string; attempt: number; answerId: string }[],
): Promise<void> {
  await hot(db, 'name_answers')`
    with named as (
      select j.id, j.tenant_id, n.answer_id, ${findable} as findable
      from jobs j, ${new Rows<(typeof names)[number]>(
        names,
        {
          job_id: ['uuid', (name) => name.jobId],
          attempt: ['integer', (name) => name.attempt],
          answer_id: ['text', (name) => name.answerId],
        },
        'n',
      )}
      where j.id = any(${names.map(({ jobId }) => jobId)}::uuid[])
        and ${checked(sql`j.id = n.job_id and j.attempt = n.attempt and j.state = 'running' and j.streamed`)}
      ${lockOrder}
      for update of j
    )
    insert into answers (job_id, tenant_id, answer_id, findable)
    select id, tenant_id, answer_id, findable from named
    on conflict (job_id) do update set answer_id = excluded.answer_id
  `
}

/** Where a follower of a stream is. */
export interface StreamCursor {
  tenantId: string
  jobId: string
  /** The attempt whose stream it has begun; null: none yet. */
  attempt: number | null
  /** Bytes of that stream that it has. */
  position: number
}

/** What comes next. */
export interface StreamPage {
  /** Null: the job is gone. */
  state: JobState | null
  /** The attempt whose stream this is: the one that answered, or else the newest. */
  attempt: number
  /** The bytes behind the cursor; empty while there are none. Of another attempt than the cursor's: from its beginning. */
  bytes: Buffer
  /** Length of the whole stream, once the answer is stored. */
  length: number | null
  /** Of the stored answer. */
  contentType: string | null
}

/** Pieces of a page. */
const chunksOfPage = 8
/** Bytes of a page of a stored answer. */
const bytesOfPage = 256 * 1024
const none = Buffer.alloc(0)

/** Three beats. What a worker whose last beat is older has shown may go on or not: who has not begun it waits until that is known. */
const aliveForMs = 1_500

/**
 * The next page of each stream, in order. A reader that begins gets nothing of an attempt whose worker gives no sign of life: it would see
 * the words of a call that died, and an error behind them. One snapshot says both where the job is and what there is to
 * show.
 */
export async function readStreams(db: Db, cursors: readonly StreamCursor[]): Promise<StreamPage[]> {
  const rows = await hot<{
    n: number
    state: JobState | null
    attempt: number | null
    bytes: Buffer | null
    length: number | null
    contentType: string | null
  }>(db, 'read_streams')`
    select
      i.n, j.state, s.attempt, w.response_content_type as "contentType",
      case
        when j.state <> 'succeeded' then c.bytes
        when w.response_bytes is null then substring(w.response from p.start + 1 for ${bytesOfPage})
        else l.bytes
      end as bytes,
      case when j.state = 'succeeded' then coalesce(w.response_bytes, octet_length(w.response)) end as length
    from ${new Rows<StreamCursor & { n: number }>(
      cursors.map((cursor, n) => Object.assign({ n }, cursor)),
      {
        n: ['integer', (cursor) => cursor.n],
        tenant_id: ['text', (cursor) => cursor.tenantId],
        job_id: ['uuid', (cursor) => cursor.jobId],
        attempt: ['integer', (cursor) => cursor.attempt],
        position: ['integer', (cursor) => cursor.position],
      },
      'i',
    )}
    left join lateral (
      select * from jobs j where j.id = i.job_id and ${checked(sql`j.tenant_id = i.tenant_id`)} and ${notExpired} limit 1
    ) j on true
    ${withAnswer}
    cross join lateral (select coalesce(j.answer_attempt, j.attempt) as attempt) s
    cross join lateral (select case when i.attempt is null or i.attempt = s.attempt then i.position else 0 end as start) p
    left join lateral (
      select string_agg(k.body, ''::bytea order by k.position) filter (where k.position = p.start + k.before) as bytes
      from (
        select
          c.position, c.body,
          coalesce(sum(octet_length(c.body)) over (order by c.position rows between unbounded preceding and 1 preceding), 0) as before
        from stream_chunks c
        where c.job_id = j.id and c.attempt = s.attempt and c.position >= p.start
        order by c.position limit ${chunksOfPage}
      ) k
    ) c on j.state = 'running' and (i.attempt = s.attempt or exists (
      select from (select worker_id from attempts where job_id = j.id and attempt = s.attempt limit 1) a
      cross join lateral (select * from workers where id = a.worker_id limit 1) w
      where not w.dead and w.beat_at > now() - ${aliveForMs} * interval '1 millisecond'
    ))
    left join lateral (
      select substring(k.body from p.start % ${pieceBytes}::integer + 1 for ${bytesOfPage}) as bytes
      from answer_pieces k
      where k.answer = w.response_pieces and k."position" = p.start - p.start % ${pieceBytes}::integer
      limit 1
    ) l on w.response_pieces is not null
    order by i.n
  `
  return rows.map(({ state, attempt, bytes, length, contentType }) => ({
    state,
    attempt: attempt ?? 0,
    // Pieces that do not continue what the reader has are not for it: a gap is filled by the stored answer.
    bytes: bytes ?? none,
    length,
    contentType,
  }))
}

/** Deletes what was shown of attempts that have ended. */
export async function deleteStreamChunks(
  db: Db,
  attempts: readonly { jobId: string; attempt: number }[],
): Promise<void> {
  await hot(db, 'delete_stream_chunks')`
    delete from stream_chunks c
    using ${new Rows<(typeof attempts)[number]>(
      attempts,
      { job_id: ['uuid', (one) => one.jobId], attempt: ['integer', (one) => one.attempt] },
      'a',
    )}
    where c.job_id = any(${attempts.map(({ jobId }) => jobId)}::uuid[]) and ${checked(sql`c.job_id = a.job_id and c.attempt = a.attempt`)}
  `
}

/** Deletes pieces within bounds whose attempt is not the one that runs: their worker died, or did not come to it. */
export async function sweepStreamChunks(db: Db, limit: number, bytes = sweepBytes): Promise<SweptRows> {
  const { rows } = await sql<{ picked: number; swept: number }>`
    with old as (
      select c.job_id, c.attempt, c.position, c.created_at, pg_column_size(c.body)::bigint as bytes
      from stream_chunks c
      left join jobs j on j.id = c.job_id
      where
        c.created_at < now() - interval '1 minute'
        and (j.id is null or j.state <> 'running' or j.attempt <> c.attempt)
      order by c.created_at limit ${limit}
      for update of c skip locked
    ),
    sized as (
      select job_id, attempt, position, sum(bytes) over (order by created_at, job_id, attempt, position) - bytes as before from old
    ),
    gone as (
      delete from stream_chunks c using sized o
      where c.job_id = o.job_id and c.attempt = o.attempt and c.position = o.position and o.before < ${bytes}
      returning 1
    )
    select (select count(*) from old) as picked, (select count(*) from gone) as swept
  `.execute(db)
  return swept(rows[0], limit)
}
